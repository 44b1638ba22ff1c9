"""launch/worker.sh, which each machine runs, with a fake Python."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from test_launch_tpu_vm import jft_python

REPO = Path(__file__).parent.parent


@pytest.fixture
def worker(tmp_path):
    """Starts one; `code` and `unfinished` are of the Python that it runs."""

    def start(*arguments, code="", unfinished="1"):
        env = os.environ | {
            "PYTHON": str(jft_python(tmp_path / "python", code, unfinished)),
            "CLOUD": str(tmp_path),
            "HOME": str(tmp_path),
            "JFT_POLL": "0.02",
        }
        return subprocess.Popen(
            ["bash", str(REPO / "launch" / "worker.sh"), *arguments],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def ended(process):
    text, _ = process.communicate()
    return process.returncode, text


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_it_ends_as_the_program_does(worker, code):
    process = worker("eval", "--workdir=w", code=f"sys.exit({code})")
    assert ended(process) == (code, "begins\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["train", "--workdir=w"], 75),
        (["train", "--workdir", "w"], 75),
        (["train", "-workdir=w", "--config=c"], 75),
        (["train", "--workdir=w", "--dry_run"], 0),
        (["train", "--help"], 0),
        (["eval", "--workdir=w"], 0),
    ],
)
def test_training_with_steps_left_has_not_come_to_its_end(worker, arguments, code):
    assert ended(worker(*arguments))[0] == code


def test_it_asks_about_the_workdir_of_the_run(worker):
    at_its_end = "int(sys.argv[3] != 'a b')"
    arguments = ["train", "--workdir=c", "--workdir=a b"]
    assert ended(worker(*arguments, unfinished=at_its_end))[0] == 0


def test_it_waits_for_what_a_shared_file_system_shows_late(worker, tmp_path):
    file = repr(str(tmp_path / "asked"))
    late = f"open({file}, 'a').write('.') and os.stat({file}).st_size < 4"
    assert ended(worker("train", "--workdir=w", unfinished=late))[0] == 0
    assert (tmp_path / "asked").read_text() == "...."


WAITS = """
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(CODE))
print("waits", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize(("ends", "code"), [(0, 75), (2, 2), (143, 143)])
def test_a_signal_reaches_the_program_and_its_code_counts(worker, tmp_path, ends, code):
    asked = f"open({str(tmp_path / 'asked')!r}, 'a').write('.')"
    process = worker(
        "train", "--workdir=w", code=WAITS.replace("CODE", str(ends)), unfinished=asked
    )
    while process.stdout.readline() != "waits\n":
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == code
    # Told so itself, it knows that no other machine is late.
    assert not (tmp_path / "asked").exists() or (tmp_path / "asked").read_text() == "."


def test_any_user_can_go_on_with_what_it_writes(worker, tmp_path):
    before = os.umask(0o022)
    try:
        ended(worker("eval", code=f"open({str(tmp_path / 'result')!r}, 'w')"))
    finally:
        os.umask(before)
    assert (tmp_path / "result").stat().st_mode & 0o777 == 0o666


def test_help_is_there(worker):
    assert "bash launch/worker.sh train --config=" in ended(worker("--help"))[1]
