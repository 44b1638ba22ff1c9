"""Measure jft, and others on the same work, in turns.

    python -m benchmarks.run --model=DIR --data=DIR --peer=PYTHON [--work=ft,score] [--rounds=3]

The model is a Hugging Face folder or a GGUF file, the data the paper's folder `data/`. `--peer` is
a Python with torch, transformers and gguf; without it, jft is measured alone. With `--libraries` it
has trl, datasets and lm-eval, too. All sides are loaded first; then each does a round while the
others wait, and again. The first round of each warms up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from benchmarks import command
from benchmarks.work import WORKS

REPO = Path(__file__).parent.parent
LIBRARIES = {"train": "TRL", "score": "lm-eval"}
# Memory for every side as in launch/environment.sh: in large pages, and kept once freed.
TUNABLES = "glibc.malloc.hugetlb=1"
TUNABLES += ":glibc.malloc.mmap_threshold=2147483647:glibc.malloc.trim_threshold=2147483647"
# Bytes that a round may ask for.
HELD = 4 << 30
UNITS = {"train": "examples/s", "score": "items/s", "generate": "items/s"}


class Side(NamedTuple):
    """The measurement of one side.

    Attributes:
      start, first: seconds of its start and of its first round.
      speeds: amounts per second of each later round.
      results: results of every round.
      peak_bytes: the most bytes that it held.
    """

    start: float
    first: float
    speeds: list[float]
    results: list[list]
    peak_bytes: int


class Process:
    """A worker process, which answers a line with a line, and is ended with its context."""

    def __init__(self, python: str, module: str, spec: dict):
        self.module = module
        environment = {"GLIBC_TUNABLES": TUNABLES} | os.environ
        self._process = subprocess.Popen(
            [python, "-m", module, json.dumps(spec)],
            cwd=REPO, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process alone; its end ends the worker
        )  # fmt: skip

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.communicate()  # closes its pipes

    def answer(self) -> dict:
        """Read the next answer."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.module} ended with exit status {self._process.wait()}")
        return json.loads(line)

    def ask(self) -> dict:
        """Have it do one round, and return its answer."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended, which `answer` reports
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self.answer()


def compare(name: str, args: argparse.Namespace) -> dict[str, Side]:
    """Measure all sides of one work, round by round."""
    spec = {
        "work": name,
        "model": args.model,
        "data": str(args.data),
        "rounds": args.rounds + 1,
        "threads": len(os.sched_getaffinity(0)),
    }
    work, mine = WORKS[name], (sys.executable, "benchmarks.jft_worker")
    sides = {"jft": (*mine, spec)}
    if work.beside:
        sides["beside"] = (*mine, spec | {"work": work.beside})
    elif work.kind != "generate":  # decoding is limited by memory bandwidth
        sides["limit"] = (sys.executable, "benchmarks.limit_worker", spec)
    if args.peer and not work.beside:
        sides["PyTorch"] = (args.peer, "benchmarks.torch_worker", spec)
        if args.libraries and work.kind in LIBRARIES:
            sides["library"] = (args.peer, "benchmarks.library_worker", spec)
    processes, answers = {}, {}
    with contextlib.ExitStack() as stack:
        for side, command in sides.items():  # one after the other, so that neither slows the other
            processes[side] = stack.enter_context(Process(*command))
            answers[side] = [processes[side].answer()]
        for _ in range(args.rounds + 1):
            for side, process in processes.items():
                _hold_memory()
                answers[side].append(process.ask())
    return {side: _side(found, WORKS[name].amount) for side, found in answers.items()}


def _hold_memory() -> None:
    """Allocate the memory that a round will need, and free it again.

    A virtual machine returns memory to its host that has been free for seconds, as it is while the
    other sides do their rounds. Getting it back takes as long as the work of a step; steps that
    follow one another, as in a run, never have to.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    subprocess.run([sys.executable, "-c", f"b'1' * {min(free // 2, HELD)}"], check=True)


def _side(answers: list[dict], amount: int) -> Side:
    start, first, *rest = answers
    return Side(
        start=start["seconds"],
        first=first["seconds"],
        speeds=[amount / answer["seconds"] for answer in rest],
        results=[answer["results"] for answer in answers[1:]],
        peak_bytes=answers[-1]["peak_bytes"],
    )


def differences(mine: list, theirs: list) -> str:
    """Describe how far the results of two sides are from one another."""
    if isinstance(mine[0], str):
        equal = sum(a == b for a, b in zip(mine, theirs, strict=True))
        return f"{equal} of {len(mine)} texts equal"
    pairs = zip(_numbers(mine), _numbers(theirs), strict=True)
    return f"{max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs):.1e}"


def _numbers(results: list) -> list[float]:
    return [x for each in results for x in (each if isinstance(each, list) else [each])]


def table_cells(name: str, sides: dict[str, Side]) -> list[str]:
    """Format the line of a work in the table."""
    work, jft = WORKS[name], sides["jft"]
    what = f"{work.kind}, {work.file}, {work.shots} shots"
    cells = [name, what, UNITS[work.kind], f"{statistics.median(jft.speeds):.2f}"]
    cells.append(_ratio(jft, sides["limit"]) if "limit" in sides else "-")
    cells += [f"{jft.peak_bytes / 1e9:.1f}", _times(jft)]
    if "beside" in sides:
        return [*cells, f"{_ratio(jft, sides['beside'])}, to {work.beside}", *["-"] * 5]
    for peer in ("PyTorch", "library"):
        cells += _beside(jft, sides[peer]) if peer in sides else ["-"] * 3
    return cells


def _beside(jft: Side, peer: Side) -> list[str]:
    mine, theirs = ([x for results in each.results for x in results] for each in (jft, peer))
    return [_ratio(jft, peer), f"{peer.peak_bytes / 1e9:.1f}", differences(mine, theirs)]


def _ratio(mine: Side, other: Side) -> str:
    """Format the median and the extremes of the ratios of speeds, round by round."""
    ratios = sorted(a / b for a, b in zip(mine.speeds, other.speeds, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _times(side: Side) -> str:
    return f"{side.start:.1f} + {side.first:.1f}"


COLUMNS = (
    "work", "what", "unit", "jft", "share of the limit", "GB", "start + first round, s",
    "jft / PyTorch: median (min to max)", "GB", "largest difference",
    "jft / library", "GB", "largest difference",
)  # fmt: skip


def main() -> None:
    """Measure, and print a table as each of its lines is known."""
    parser = command.parser("run", __doc__)
    parser.add_argument("--peer", help="a Python with torch, transformers and gguf")
    libraries = ", ".join(f"{name} for {kind}" for kind, name in LIBRARIES.items())
    parser.add_argument("--libraries", action="store_true", help=f"--peer has {libraries}, too")
    parser.add_argument("--work", default=",".join(WORKS), help=f"of {', '.join(WORKS)}")
    parser.add_argument("--rounds", type=command.positive, default=3, help="that are timed")
    args = parser.parse_args()
    if args.libraries and not args.peer:
        parser.error("--libraries: they are looked for in --peer, which is missing")
    if args.peer:
        found = shutil.which(args.peer)
        if not found:
            parser.error(f"--peer={args.peer}: no such program")
        args.peer = os.path.abspath(found)  # workers run in another folder
    for name in args.work.split(","):
        if name not in WORKS:
            parser.error(f"--work={name}: one of {', '.join(WORKS)}")
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib"))
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.processor() or platform.machine()}, {cores} cores; {packages}\n", flush=True)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for name in args.work.split(","):
        print(f"| {' | '.join(table_cells(name, compare(name, args)))} |", flush=True)


if __name__ == "__main__":
    command.run(main)
