"""launch/skypilot.yaml: what SkyPilot runs of it, run here."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from test_launch_tpu_vm import AWKWARD, jft_python, pythons

REPO = Path(__file__).parent.parent
TASK = yaml.safe_load((REPO / "launch" / "skypilot.yaml").read_text())


@pytest.fixture
def bash(tmp_path):
    """Runs a script of the task as a node does, in a copy of this tree; returns its calls."""
    tree = tmp_path / "sky_workdir"
    shutil.copytree(REPO / "launch", tree / "launch")
    for part in "pyproject.toml", "constraints.txt":
        shutil.copy(REPO / part, tree)

    def run(script, **more):
        env = os.environ | {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "CLOUD": str(tmp_path),
            "HOME": str(tmp_path),
            "SKYPILOT_NUM_NODES": "1",
            "SKYPILOT_NODE_IPS": "10.0.0.1",
            "SKYPILOT_NODE_RANK": "0",
            **{name: value for name, value in TASK["envs"].items() if value},
            **more,
        }
        subprocess.run(["bash", "-c", script], cwd=tree, env=env, check=True)
        return [json.loads(line)[2:] for line in (tmp_path / "calls").read_text().splitlines()]

    return run


@pytest.fixture
def installed(tmp_path):
    jft_python(tmp_path / "sky_workdir" / ".venv" / "bin" / "python")


def test_one_node_needs_no_other(bash, installed):
    (call,) = bash(TASK["run"], ARGS="train --config=c.py --workdir=/bucket/ft")
    assert call == ["-m", "jft.train", "--config=c.py", "--workdir=/bucket/ft"]


@pytest.mark.parametrize("rank", [0, 2])
def test_several_nodes_meet_at_the_first(bash, installed, rank):
    (call,) = bash(
        TASK["run"],
        ARGS="train --config=c.py",
        SKYPILOT_NUM_NODES="3",
        SKYPILOT_NODE_IPS="10.0.0.1\n10.0.0.2\n10.0.0.3",
        SKYPILOT_NODE_RANK=str(rank),
    )
    flags = ["--coordinator=10.0.0.1:9876", "--processes=3", f"--process={rank}"]
    assert call == ["-m", "jft.train", "--config=c.py", *flags]


def test_the_machines_of_a_tpu_slice_find_each_other(bash, installed):
    ips = "10.0.0.1\n10.0.0.2"
    more = {"EXTRAS": "tpu", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": ips}
    assert bash(TASK["run"], ARGS="train", **more) == [["-m", "jft.train"]]


def test_arguments_are_quoted_as_for_a_shell(bash, installed):
    quoted = subprocess.run(
        ["bash", "-c", 'printf "%q " "$@"', "", *AWKWARD], capture_output=True, text=True
    ).stdout
    (call,) = bash(TASK["run"], ARGS=f"train {quoted}")
    assert call == ["-m", "jft.train", *AWKWARD]


@pytest.mark.parametrize(
    ("extras", "image", "bare"),
    [("cuda", "python3.11", False), ("tpu", "", False), ("tpu", "python3.12", True)],
)
def test_it_installs_jft_and_a_python_where_none_will_do(bash, tmp_path, extras, image, bare):
    pythons(tmp_path, image, bare)
    made = [" ".join(call) for call in bash(TASK["setup"], EXTRAS=extras)]
    assert any(call.endswith(f"-c constraints.txt -e .[{extras}]") for call in made)
    assert any("uv python install" in call for call in made) == (bare or not image)


def test_what_is_preempted_goes_on_in_the_bucket():
    assert TASK["workdir"] == "."
    assert TASK["resources"]["use_spot"] is True
    assert TASK["resources"]["job_recovery"] == {"recover_on_exit_codes": [75]}
    assert TASK["file_mounts"] == {"/bucket": {"source": "gs://${BUCKET}", "mode": "MOUNT"}}
    # SkyPilot asks for what has no value.
    assert [name for name, value in TASK["envs"].items() if value is None] == ["BUCKET", "ARGS"]
