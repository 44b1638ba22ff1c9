"""A system call that fails once in a program: it ends with a line or goes on, never hangs.

The next start of the same command gives the bits of a run that was left alone.
"""

import errno
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import flags
import pytest

from jft.checkpoints import safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib

REPO = Path(__file__).parent.parent
CALLS = "open,read,write,fsync,rename,mkdir,unlink"
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT)
# JFT_FAULTS=999 tries every kind of call, which takes hours.
SAMPLE = int(os.environ.get("JFT_FAULTS", "1"))
CONFIGS = REPO / "configs"
PROGRAMS = {
    "train": [
        *(f"--config={CONFIGS}/finetune.py", "--config.model.path=base"),
        *("--config.data.train=rows.jsonl", "--config.train.steps=4"),
        *("--config.train.batch_size=4", "--config.checkpoint.every=2"),
        *("--config.probe.limit=2", "--config.probe.every=2", "--config.optim.lr=1e-3"),
    ],
    "eval": [
        *(f"--config={CONFIGS}/evaluate.py", "--config.model.path=whole", "--config.eval.limit=3"),
        *("--config.eval.datasets=gadgets,town", "--config.eval.shots=0,1"),
        "--config.eval.retention=choice",
        "--config.eval.max_new_tokens=4",
    ],
    "export": ["whole"],
    "report": ["whole-eval"],
}
# How the runs that nothing fails in are called.
WHOLE = {"train": "whole", "eval": "whole-eval", "export": "whole-export", "report": "whole-report"}
# What a training leaves that does not depend on the clock or on what ended before.
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
    """Runs of the programs on a tiny model in a folder of their own, some with a fault."""

    def __init__(self, folder, library):
        self.folder, self.library = folder, library

    def start(self, program, name, at=0, error=errno.EIO, calls=CALLS, path=None):
        """Run a program; returns it, and the system calls on files in the folder, or on `path`."""
        (done,), log = self.start_all(program, name, 1, 0, at, error, calls, path)
        return done, log

    def start_all(
        self, program, name, number, which, at=0, error=errno.EIO, calls=CALLS, path=None
    ):
        """Run a program in several processes, with the calls of one of them watched."""
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        where = "--out" if program in ("export", "report") else "--workdir"
        command = [sys.executable, "-m", f"jft.{program}", *PROGRAMS[program], f"{where}={name}"]
        fault = {
            "LD_PRELOAD": str(self.library),
            **{"FAULT_PATH": path or str(self.folder), "FAULT_CALLS": calls},
            **{"FAULT_AT": str(at), "FAULT_ERRNO": str(error), "FAULT_LOG": str(log)},
        }
        cache = {"XDG_CACHE_HOME": str(self.folder / "cache"), "XLA_FLAGS": flags.QUICKLY}
        variables = os.environ | cache | {"PYTHONPATH": str(REPO)}
        with socket.create_server(("", 0)) as server:
            port = server.getsockname()[1]
        started = []
        for i in range(number):
            place = (f"--coordinator=localhost:{port}", f"--processes={number}", f"--process={i}")
            place += ("--config.mesh.data=1", f"--config.mesh.fsdp={number}")  # so that all write
            started.append(
                subprocess.Popen(
                    [*command, *(place if number > 1 else ())],
                    cwd=self.folder,
                    env=variables | (fault if i == which else {}),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        with ThreadPoolExecutor(number) as reading:
            texts = list(reading.map(lambda process: process.communicate(), started))
        done = [
            subprocess.CompletedProcess(process.args, process.returncode, *text)
            for process, text in zip(started, texts, strict=True)
        ]
        return done, log.read_text().splitlines() if log.exists() else []

    def left(self, program, name):
        """Collect what a program has left, without what depends on the clock."""
        folder = self.folder / name
        if program == "train":
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            records = [json.loads(line) for line in lines]
            found = {"losses": [(r["step"], r["loss"], r["grad_norm"]) for r in records]}
            found |= {file: (folder / file).read_text() for file in LEFT}
            for step in sorted(each.name for each in (folder / "checkpoints").iterdir()):
                found[step] = (folder / "checkpoints" / step / "manifest/metadata").read_text()
            return found
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {
            str(path.relative_to(folder)): path.read_bytes().replace(name.encode(), b"")
            for path in files
            if path.name != ".jft-export"
        }


@pytest.fixture(scope="module")
def once(library, tmp_path_factory):
    """Whole runs of each program, and the workdir of the training if killed after step 2."""
    runs = Runs(tmp_path_factory.mktemp("once"), library)
    base = str(runs.folder / "base")
    safetensors_io.save(*safetensors_io.load("random:llama-tiny")[:0:-1], base)
    tokenizer_lib.load("random:llama-tiny").save(base)
    rows = [{"input": f"text {i}", "output": ("positive", "negative")[i % 2]} for i in range(16)]
    (runs.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for program, name in WHOLE.items():
        done, _ = runs.start(program, name)
        assert done.returncode == 0, done.stderr
    half = runs.folder / "half"
    shutil.copytree(runs.folder / "whole", half)
    shutil.rmtree(half / "checkpoints" / "4")
    (half / "drift.json").unlink()
    return runs


def kinds(log):
    """Group the numbers of calls that are alike: of arrays, of one file, of a temporary name."""
    found = {}
    for line in log:
        number, call, path = line.split(" ", 2)
        path = re.sub(r"(params|opt_state)\.[^/]*", r"\1", path)
        path = re.sub(r"[0-9a-f]{16,}", "H", path)
        found.setdefault((call, re.sub(r"\d+", "N", path)), []).append(int(number))
    return list(found.values())


def check(runs, program, prepare, at, error):
    """Let a call fail in a run, start it again, and compare what it leaves."""
    prepare(runs.folder / "faulty")
    done, log = runs.start(program, "faulty", at, error)
    if len(log) < at:  # a run that finds more in its cache makes fewer calls
        return
    what = f"{program}: {log[at - 1]} fails with {errno.errorcode[error]}"
    text = f"{what}: {done.stdout} {done.stderr}"
    print(done.returncode, what, flush=True)
    assert "Traceback" not in text
    assert done.returncode in (0, 1, 2), text
    if done.returncode:
        (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
        assert os.strerror(error) in line or "cannot be opened" in line, text
        assert not re.search("damaged|remove", line), text
        path = Path(log[at - 1].split(" ", 2)[2]).relative_to(runs.folder)
        assert any(part in line for part in path.parts), text
    if done.returncode or program != "export":  # which writes to a new folder only
        again, _ = runs.start(program, "faulty")
        assert again.returncode == 0, (text, again.stdout + again.stderr)
    assert runs.left(program, "faulty") == runs.left(program, WHOLE[program]), text


def sweep(runs, program, start):
    """Let calls fail in a run that has `start`: a workdir, or a cache that holds nothing yet."""

    def prepare(folder):
        for each in (folder, folder.with_name(f"{folder.name}.part")):
            shutil.rmtree(each, ignore_errors=True)
        if start == "empty cache":
            shutil.rmtree(runs.folder / "cache")
        elif start:
            shutil.copytree(runs.folder / start, folder)

    random.seed(time.time_ns())  # other calls each time: that is the point
    prepare(runs.folder / "faulty")
    done, log = runs.start(program, "faulty")
    assert done.returncode == 0, done.stderr
    # Of runs that compile, what differs from others is the cache.
    found = kinds(line for line in log if start != "empty cache" or "/cache/" in line)
    for numbers in random.sample(found, min(SAMPLE, len(found))):
        check(runs, program, prepare, random.choice(numbers), random.choice(ERRORS))
    return len(found)


@pytest.mark.parametrize(
    ("program", "start", "least"),
    [
        ("train", "", 40),
        ("train", "half", 40),
        ("train", "empty cache", 2),
        ("eval", "", 30),
        ("export", "", 20),
        ("report", "", 20),
    ],
)
def test_a_call_that_fails_once_changes_no_bit(once, program, start, least):
    assert sweep(once, program, start) > least


@pytest.mark.parametrize("which", [0, 1])
def test_a_call_that_fails_in_one_of_two_processes_ends_both_or_none(once, which):
    random.seed(time.time_ns())
    whole, _ = once.start_all("train", "whole-2", 2, which)
    assert [each.returncode for each in whole] == [0, 0], whole
    shutil.rmtree(once.folder / "faulty", ignore_errors=True)
    _, log = once.start_all("train", "faulty", 2, which)  # now that the cache is filled
    found = kinds(log)
    for numbers in random.sample(found, min(SAMPLE, len(found))):
        shutil.rmtree(once.folder / "faulty", ignore_errors=True)
        at, error = random.choice(numbers), random.choice(ERRORS)
        done, log = once.start_all("train", "faulty", 2, which, at, error)
        what = f"process {which}: {log[at - 1 :][:1]} fails with {errno.errorcode[error]}"
        print([each.returncode for each in done], what, flush=True)
        text = f"{what}: {done}"
        assert "Traceback" not in text
        assert all(each.returncode in (0, 1, 2) for each in done), text
        assert len({each.returncode == 0 for each in done}) == 1, text
        again, _ = once.start_all("train", "faulty", 2, which)
        assert [each.returncode for each in again] == [0, 0], (text, again)
        assert once.left("train", "faulty") == once.left("train", "whole-2"), text


@pytest.mark.parametrize("which", [0, 1])
def test_a_write_in_the_background_that_fails_in_one_of_two_processes_ends_both(once, which):
    shutil.rmtree(once.folder / "faulty", ignore_errors=True)
    done, log = once.start_all(
        "train", "faulty", 2, which, 1, errno.EIO, "rename", "optimizer.orbax-checkpoint-tmp"
    )
    assert log, "nothing was written"
    assert [each.returncode for each in done] == [[2, 1], [1, 2]][which], done
    assert f"saving failed: {os.strerror(errno.EIO)}" in done[which].stderr
    assert f"process {which} of 2 has ended" in done[1 - which].stderr


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
def test_what_the_machine_does_not_let_be_read_is_not_called_damaged(once, file, error):
    run = once.folder / "unread"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(once.folder / "half", run)
    done, log = once.start("train", "unread", 1, error, "open", f"unread/{file}")
    assert log, "the file was not opened"
    (line,) = done.stderr.splitlines()
    assert os.strerror(error) in line
    assert not re.search("damaged|remove|move it|make room|another workdir", line)
    assert done.returncode == 2
    assert once.start("train", "unread")[0].returncode == 0
    assert once.left("train", "unread") == once.left("train", "whole")
