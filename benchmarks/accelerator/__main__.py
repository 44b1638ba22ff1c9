"""Measure jft on a GPU or TPU: attention, steps, whole programs, and PyTorch beside it.

    python -m benchmarks.accelerator [--model=DIR] [--data=DIR] [--peer=PYTHON] [--parts=a,b]
        [--out=accelerator.json] [--tiny]

Each part is a process with a time limit of its own, eight minutes in all: what fails or takes too
long is named, and the next part goes on. Rows are printed as they come, tables at the end, and
`--out` is written after each part. Without `--model` and `--data`, the whole programs take a random
model and the suite in jft; the model is then too small to say anything of speed. Nothing is
fetched from a network. `--peer` is a Python with torch and transformers.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import command
from benchmarks.accelerator.part import Row, Spec

REPO = Path(__file__).parent.parent.parent


class Part(NamedTuple):
    """A part of the measurement.

    Attributes:
      module: of this package.
      table: the only table of the module that it makes; empty: all.
      seconds: its time limit.
      peer: whether the peer's Python runs it.
    """

    module: str
    table: str
    seconds: float
    peer: bool = False


PARTS = {
    "a": Part("attention", "errors", 50),
    "b": Part("attention", "speeds", 90),
    "c": Part("steps", "", 140),
    "d": Part("small_steps", "", 40),
    "e": Part("programs", "", 100),
    "f": Part("torch_side", "", 60, peer=True),
}


class Found(NamedTuple):
    """The rows of a part, its seconds, and how it ended: `done`, or the reason why it is not."""

    rows: list[Row]
    seconds: float
    ended: str


def run(part: Part, spec: Spec, python: str, seconds: float, show: Callable[[Row], None]) -> Found:
    """Run a part until it ends, or its time does."""
    module = f"benchmarks.accelerator.{part.module}"
    asked = [
        python,
        "-m",
        module,
        json.dumps(spec._asdict()),
        *([part.table] if part.table else []),
    ]
    rows: list[Row] = []
    began, late = time.monotonic(), threading.Event()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as said,
        subprocess.Popen(
            asked, cwd=REPO, text=True, stdout=subprocess.PIPE, stderr=said,
            start_new_session=True,  # so that its own processes end with it
        ) as process,
    ):  # fmt: skip

        def stop() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            assert process.stdout
            for line in process.stdout:
                rows.append(json.loads(line))
                show(rows[-1])
            status = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        said.seek(0)
        lines = said.read().strip().splitlines() or [f"exit status {status}"]
    taken = time.monotonic() - began
    if late.is_set():
        return Found(rows, taken, f"stopped at its limit of {seconds:.0f} s; rows are missing")
    return Found(rows, taken, f"failed: {lines[-1]}" if status else "done")


def _show(row: Row) -> None:
    print(json.dumps(row), flush=True)


def tables(rows: list[Row]) -> str:
    """Lay rows out as Markdown, one table for each of their headings."""
    text = []
    for heading in dict.fromkeys(row["table"] for row in rows):
        of_it = [row for row in rows if row["table"] == heading]
        columns = [
            name for name in dict.fromkeys(x for row in of_it for x in row) if name != "table"
        ]
        text += [
            "",
            f"### {heading}",
            "",
            f"| {' | '.join(columns)} |",
            "|---" * len(columns) + "|",
        ]
        text += [f"| {' | '.join(str(row.get(x, '')) for x in columns)} |" for row in of_it]
    return "\n".join(text)


def about_device() -> dict:
    """Ask for the device and the versions."""
    asked = [sys.executable, "-m", "benchmarks.accelerator.device"]
    done = subprocess.run(asked, cwd=REPO, text=True, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        sys.exit(f"error: JAX does not start: {said[-1] if said else done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def parse() -> argparse.Namespace:
    """Parse the command line, and refuse what cannot be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=command.model, default=command.RANDOM_MODEL)
    parser.add_argument("--data", type=command.folder)
    parser.add_argument("--peer", default="", help="a Python with torch and transformers")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=Path("accelerator.json"))
    parser.add_argument("--tiny", action="store_true", help="sizes that try the code on a CPU")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all time limits")
    args = parser.parse_args()
    unknown = [name for name in args.parts.split(",") if name not in PARTS]
    if unknown:
        parser.error(f"--parts={','.join(unknown)}: some of {', '.join(PARTS)}")
    if args.out.exists():
        parser.error(f"--out={args.out}: it is there already; name another file")
    if args.peer and not shutil.which(args.peer):
        parser.error(f"--peer={args.peer}: no such program")
    if args.scale <= 0:
        parser.error(f"--scale={args.scale}: a number above 0")
    return args


def main() -> None:
    """Run the parts, print their tables, and write the file."""
    args = parse()
    spec = Spec(args.tiny, args.model, str(args.data or "mini"), args.peer)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    result = {"date": date, **about_device(), "spec": spec._asdict(), "parts": {}}
    print(f"{result['device']}, {date}, {result['versions']}", flush=True)
    made: list[Row] = []
    for letter in args.parts.split(","):
        part = PARTS[letter]
        if part.peer and not args.peer:
            found = Found([], 0.0, "not measured: there is no --peer")
        else:
            python = args.peer if part.peer else sys.executable
            found = run(part, spec, python, part.seconds * args.scale, _show)
        made += found.rows
        print(f"{letter}: {found.ended} ({found.seconds:.0f} s)", flush=True)
        result["parts"][letter] = found._asdict()
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(tables(made))
    print(f"\nIn {args.out}")


if __name__ == "__main__":
    command.run(main)
