"""Whole programs, training, scoring and generation, by what they spend their time on.

    python -m benchmarks.accelerator.programs SPEC

With the paper's data: PAWS, and SocialQA for generation. With others: the suite in jft. This
process leaves the device to the programs.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.accelerator.part import Row, Spec, attempt, serve
from jft.runtime import records

REPO = Path(__file__).parent.parent.parent
# A line of progress at the end of a phase, such as "Reading the data: 1.2 s".
PHASE = re.compile(r"([A-Z][^:]*): ([\d.]+) s")
# Steps of 16 examples for which a schedule is made; a peer takes the same.
STEPS = 40
STEP = "Compiling the training step"


class Rows(NamedTuple):
    """The rows of training, of scoring and of generation: `data.task`, `data.train`, sets."""

    task: str
    train: str
    scored: str
    generated: str


PAPER = Rows(
    "detection", "paws_train_2000", "detection:paws_test_500", "question:socialqa_test_500"
)
MINI = Rows("sentiment", "gadgets_train_480", "sentiment:gadgets_test_120", "summary:town_test_120")


def rows_of(spec: Spec) -> Rows:
    """Find which rows the data folder has."""
    return PAPER if (Path(spec.data) / PAPER.task / f"{PAPER.train}.json").exists() else MINI


def timeline(command: list[str], cache: str) -> dict[str, float]:
    """Run a program of jft, and return the seconds of its phases, of its start and in all.

    Args:
      command: arguments of Python.
      cache: folder for what is compiled and computed before.

    Raises:
      RuntimeError: it failed; the message is its last line.
    """
    began = time.perf_counter()
    environment = os.environ | {"XDG_CACHE_HOME": cache, "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=REPO, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    found: dict[str, float] = {}
    line, at = "", {}
    assert process.stdout
    for line in process.stdout:
        now = time.perf_counter() - began
        found.setdefault("start", now)
        if match := PHASE.fullmatch(line.strip()):
            name = re.sub(r" step \d+$", "", match[1])
            found[name] = found.get(name, 0.0) + float(match[2])
            at[name] = now
    if process.wait():
        raise RuntimeError(line.strip())
    found["in all"] = time.perf_counter() - began
    if STEP in at:
        found["steps and probes"] = at["Saving"] - found["Saving"] - at[STEP]
    return {name: round(seconds, 2) for name, seconds in found.items()}


def training(spec: Spec, workdir: Path, cache: str) -> Row:
    """Run a training of 125 steps."""
    found = rows_of(spec)
    times = timeline(
        [
            *("-m", "jft.train", "--config=configs/finetune.py", f"--workdir={workdir}"),
            *(f"--config.model.path={spec.model}", f"--config.data.root={spec.data}"),
            *(f"--config.data.task={found.task}", f"--config.data.train={found.train}"),
            *("--config.train.batch_size=16", f"--config.train.steps={8 if spec.tiny else 125}"),
        ],
        cache,
    )
    lines = (workdir / records.METRICS.name).read_text().splitlines()
    steps = sum(json.loads(line)["seconds"] for line in lines)
    return times | {"steps": round(steps, 2)}


def evaluation(spec: Spec, of: str, shots: str, workdir: Path, cache: str) -> Row:
    """Run an evaluation of some rows."""
    return timeline(
        [
            *("-m", "jft.eval", "--config=configs/evaluate.py", f"--workdir={workdir}"),
            *(f"--config.model.path={spec.model}", f"--config.data.root={spec.data}"),
            *(f"--config.eval.datasets={of}", f"--config.eval.shots={shots}"),
            "--config.eval.retention=",
            f"--config.eval.limit={8 if spec.tiny else 500}",
        ],
        cache,
    )


def rows(spec: Spec) -> Iterator[Row]:
    """Measure every program twice: from an empty cache, and from a warm one."""
    found = rows_of(spec)
    programs: dict[str, Callable[[Path, str], Row]] = {
        "e. jft.train": functools.partial(training, spec),
        "e. jft.eval, scoring": functools.partial(evaluation, spec, found.scored, "0,4"),
        "e. jft.eval, generation": functools.partial(evaluation, spec, found.generated, "2"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for table, run in programs.items():
            for cache in ("empty",) if spec.tiny else ("empty", "warm"):
                workdir = Path(folder) / f"{table[-5:]}-{cache}"
                row = {"table": f"{table}, seconds", "cache": cache}
                yield attempt(row, functools.partial(run, workdir, f"{folder}/cache"))


if __name__ == "__main__":
    serve(rows)
