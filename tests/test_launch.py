"""The scripts in launch/, against fake programs of the places that they are for."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import flags
import pytest

REPO = Path(__file__).parent.parent
SLURM = REPO / "launch" / "slurm.sbatch"

# Starts its command twice, as SLURM does on two nodes; ends with the worst of their exit codes.
SRUN = """
import json, os, signal, subprocess, sys
command = sys.argv[1:]
with open(os.environ["RECORD"], "a") as record:
    record.write(json.dumps(["srun", *command]) + "\\n")
while command[0].startswith("--"):
    command.pop(0)
step = {
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}
started = [
    subprocess.Popen(command, env=os.environ | step | {"SLURM_PROCID": str(i)}) for i in range(2)
]
# scancel reaches the processes of a step, whatever srun is doing.
signal.signal(signal.SIGTERM, lambda *_: [each.terminate() for each in started])
with open(os.environ["RECORD"] + ".pid", "w") as file:
    file.write(str(os.getpid()))
sys.exit(max(each.wait() for each in started))
"""
SCANCEL = """
import os, signal
with open(os.environ["RECORD"] + ".pid") as file:
    os.kill(int(file.read()), signal.SIGTERM)
"""
OTHER = """
import json, os, sys
with open(os.environ["RECORD"], "a") as record:
    record.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
"""


@pytest.fixture
def slurm(tmp_path):
    """Runs a SLURM job's script here; what it called is in `record`."""
    binaries, record = tmp_path / "bin", tmp_path / "record"
    binaries.mkdir()
    for name, code in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", OTHER)):
        (binaries / name).write_text(f"#!{sys.executable}\n{code}")
        (binaries / name).chmod(0o755)

    def start(*arguments, python=sys.executable, **more):
        env = os.environ | {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "RECORD": str(record),
            "PYTHON": str(python),
            "SLURM_JOB_ID": str(os.getpid()),
            "XLA_FLAGS": flags.QUICKLY,
            **more,
        }
        return subprocess.Popen(
            ["bash", str(SLURM), *arguments],
            cwd=REPO,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    start.called = lambda: [json.loads(line) for line in record.read_text().splitlines()]
    return start


def training(workdir, steps):
    return [
        *("train", "--config=configs/finetune.py", f"--workdir={workdir}"),
        *("--config.model.path=random:llama-tiny", "--config.data.train=gadgets_train_480"),
        *("--config.train.batch_size=4", f"--config.train.steps={steps}"),
        *("--config.probe.limit=0", "--config.model.name=a 'b' c"),
    ]


def ended(process, code=0):
    text, _ = process.communicate()
    assert process.returncode == code, text
    return text


def test_a_slurm_job_trains_with_two_processes(slurm, tmp_path):
    text = ended(slurm(*training(tmp_path / "run", 3)))
    assert "2 processes, 2 devices" in text
    assert "Done: 3 steps" in text
    ((*start, config, _, _, _, _, _, _, name),) = slurm.called()
    assert start == ["srun", "--kill-on-bad-exit=1", sys.executable, "-m", "jft.train"]
    assert config == "--config=configs/finetune.py"
    assert name == "--config.model.name=a 'b' c"


def test_before_its_time_is_over_it_saves_and_goes_back_into_the_queue(slurm, tmp_path):
    run = tmp_path / "run"
    process = slurm(*training(run, 400))
    metrics = run / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert "run the same command again to go on" in ended(process)
    done = metrics.read_bytes().count(b"\n")
    assert done < 400
    assert (run / "checkpoints" / str(done)).is_dir()
    assert slurm.called()[1:] == [["scontrol", "requeue", str(os.getpid())]]


def fake_python(tmp_path, code):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("code", "restarts", "expected", "requeued"),
    [(0, 0, 0, False), (2, 0, 2, False), (1, 0, 0, True), (137, 3, 0, True), (1, 20, 1, False)],
)
def test_what_is_lost_is_started_again_and_what_is_wrong_is_not(
    slurm, tmp_path, code, restarts, expected, requeued
):
    python = fake_python(tmp_path, code)
    process = slurm("train", python=python, SLURM_RESTART_COUNT=str(restarts))
    ended(process, expected)
    assert (["scontrol", "requeue", str(os.getpid())] in slurm.called()) == requeued


def test_a_dry_run_prints_what_a_job_runs(slurm, tmp_path):
    text = ended(slurm("--dry-run", *training("run dir", 3)))
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {text}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    ended(slurm(*training("run dir", 3), python=fake_python(tmp_path, 0)))
    (called,) = slurm.called()
    assert words[0:3] == ["srun", "--kill-on-bad-exit=1", sys.executable]
    assert words[3:] == called[3:]


def test_it_runs_in_a_job_only(slurm):
    text = ended(slurm("train", SLURM_JOB_ID=""), 2)
    assert text == "error: no SLURM job around this; start it by sbatch\n"


def test_help_is_there(slurm):
    assert "sbatch --nodes=2" in ended(slurm("--help"))


# Beside Python, also where its environment is not activated.
PLACES = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
SHELLCHECK = shutil.which("shellcheck", path=PLACES)


@pytest.mark.skipif(not SHELLCHECK, reason="shellcheck is in the extra `dev`")
def test_scripts_pass_shellcheck():
    scripts = [*(REPO / "launch").glob("*.sh"), SLURM, REPO / ".ci" / "run"]
    done = subprocess.run(
        [SHELLCHECK, "-x", *map(str, scripts)], cwd=REPO, capture_output=True, text=True
    )
    assert not done.returncode, done.stdout
