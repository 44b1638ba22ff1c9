"""The command line that all benchmarks have."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from jft.checkpoints.files import RANDOM_MODEL


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """Make a parser with `--model` and `--data`, whose paths it makes absolute.

    Args:
      name: name of the module in this package.
      doc: its docstring, for `--help`.
    """
    command = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--model", type=model, required=True, help="a folder or a GGUF file")
    command.add_argument("--data", type=folder, required=True, help="the paper's folder data/")
    return command


def run(main: Callable[[], None]) -> None:
    """Call `main`, and end with exit code 130 if the user interrupts it."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)


def positive(text: str) -> int:
    """Parse a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 1 on")
    return int(text)


def model(text: str) -> str:
    """Parse the name of a model: a folder, a file, or the random one."""
    if text == RANDOM_MODEL:
        return text
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"{text}: no such folder or file")
    return str(Path(text).resolve())


def folder(text: str) -> Path:
    """Parse the name of a folder."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: no such folder")
    return Path(text).resolve()
