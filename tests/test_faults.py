"""A system call that fails once in a training: the run ends with a line or goes on, never hangs.

The next start of the same command gives the bits of a run that was left alone.
"""

import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import flags
import pytest

REPO = Path(__file__).parent.parent
CALLS = "open,read,write,fsync,rename,mkdir,unlink"
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT)
# JFT_FAULTS=999 tries every kind of call, which takes an hour.
SAMPLE = int(os.environ.get("JFT_FAULTS", "3"))
# What a run leaves that does not depend on the clock or on what ended before.
LEFT = ("probes.jsonl", "drift.json", "model.json", "trained_on.txt", "config.json")

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None or sys.platform != "linux", reason="needs a C compiler on Linux"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    built = tmp_path_factory.mktemp("faults") / "faults.so"
    source = REPO / "tests/faults/faults.c"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(built), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return built


class Runs:
    """Trainings of the tiny model in folders of a test, some of them with a fault."""

    def __init__(self, folder, library):
        self.folder, self.library = folder, library

    def start(self, name, at=0, error=errno.EIO, calls=CALLS, path=None):
        """Run a training; returns it, and the system calls on files in its workdir, or `path`."""
        workdir, log = self.folder / name, self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        command = [
            *(sys.executable, "-m", "jft.train", "--config=configs/finetune.py"),
            *(f"--workdir={workdir}", "--config.model.path=random:llama-tiny"),
            *("--config.data.train=gadgets_train_480", "--config.train.steps=4"),
            *("--config.train.batch_size=4", "--config.checkpoint.every=2"),
            *("--config.probe.limit=2", "--config.probe.every=2", "--config.optim.lr=1e-3"),
        ]
        fault = {
            "LD_PRELOAD": str(self.library),
            **{"FAULT_PATH": path or str(workdir), "FAULT_CALLS": calls, "FAULT_LOG": str(log)},
            **{"FAULT_AT": str(at), "FAULT_ERRNO": str(error)},
        }
        cache = {"XDG_CACHE_HOME": str(self.folder / "cache"), "XLA_FLAGS": flags.QUICKLY}
        done = subprocess.run(
            command, cwd=REPO, env=os.environ | cache | fault, capture_output=True, text=True
        )
        return done, log.read_text().splitlines() if log.exists() else []

    def left(self, name):
        """Collect what a run has left: losses, probes, and the hashes of its checkpoints."""
        workdir = self.folder / name
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        found = {"losses": [(r["step"], r["loss"], r["grad_norm"]) for r in records]}
        found |= {file: (workdir / file).read_text() for file in LEFT}
        for step in sorted(each.name for each in (workdir / "checkpoints").iterdir()):
            found[step] = (workdir / "checkpoints" / step / "manifest/metadata").read_text()
        return found


@pytest.fixture(scope="module")
def once(library, tmp_path_factory):
    """A whole training, and the workdir that it would have left if killed after step 2."""
    runs = Runs(tmp_path_factory.mktemp("once"), library)
    done, runs.first = runs.start("whole")
    assert done.returncode == 0, done.stderr
    half = runs.folder / "half"
    shutil.copytree(runs.folder / "whole", half)
    shutil.rmtree(half / "checkpoints" / "4")
    (half / "drift.json").unlink()
    return runs


def kinds(log):
    """Group calls that are alike: of arrays, of one file, of a temporary name."""
    found = {}
    for line in log:
        number, call, path = line.split(" ", 2)
        path = re.sub(r"(params|opt_state)\.[^/]*", r"\1", path)
        found.setdefault((call, re.sub(r"\d+", "N", path)), []).append(int(number))
    return found


def check(runs, whole, name, prepare, at, error, what):
    """Let a call fail in a run, start it again, and compare what it leaves."""
    workdir = runs.folder / name
    shutil.rmtree(workdir, ignore_errors=True)
    prepare(workdir)
    done, _ = runs.start(name, at, error)
    text = done.stdout + done.stderr
    assert "Traceback" not in text, (what, text)
    assert done.returncode in (0, 1, 2), (what, text)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, (what, text)
        assert "damaged" not in lines[0], (what, text)
        assert "remove" not in lines[0], (what, text)
    again, _ = runs.start(name)
    assert again.returncode == 0, (what, text, again.stdout + again.stderr)
    assert runs.left(name) == whole, what
    return done.returncode


def sweep(runs, choose):
    """Let calls fail in new and in resumed runs; `choose` picks from the kinds of calls."""
    whole, half = runs.left("whole"), runs.folder / "half"
    shutil.copytree(half, runs.folder / "resumed")
    done, second = runs.start("resumed")
    assert done.returncode == 0, done.stderr
    assert runs.left("resumed") == whole

    def resumed(workdir):
        shutil.copytree(half, workdir)

    ends = []
    for log, prepare in ((runs.first, lambda workdir: None), (second, resumed)):
        for kind, numbers in choose(sorted(kinds(log).items())):
            at, error = random.choice(numbers), random.choice(ERRORS)
            what = f"call {at} of kind {kind} with {errno.errorcode[error]}"
            ends.append((check(runs, whole, "faulty", prepare, at, error, what), what))
    return ends


def test_a_call_that_fails_once_changes_no_bit(once):
    random.seed(time.time_ns())  # other calls each time: that is the point
    ends = sweep(once, lambda found: random.sample(found, min(SAMPLE, len(found))))
    print(*ends, sep="\n")
    assert len(ends) >= 2 * min(SAMPLE, 3)


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("config.json", errno.EACCES),
        ("checkpoints/2/manifest/metadata", errno.EIO),
        ("checkpoints/2/model/params.embed", errno.EACCES),
        ("checkpoints/2/model/params.embed", errno.EIO),
        ("model.json", errno.EIO),
        ("probes.npz", errno.EACCES),
    ],
)
def test_what_the_machine_does_not_let_be_read_is_not_called_damaged(
    library, once, tmp_path, file, error
):
    shutil.copytree(once.folder / "half", tmp_path / "run")
    runs = Runs(tmp_path, library)
    done, log = runs.start("run", at=1, error=error, calls="open", path=f"run/{file}")
    assert log, "the file was not opened"
    (line,) = done.stderr.splitlines()
    assert os.strerror(error) in line
    assert not re.search("damaged|remove|move it|make room|another workdir", line)
    assert done.returncode == 2
    assert runs.start("run")[0].returncode == 0
    assert runs.left("run") == once.left("whole")
