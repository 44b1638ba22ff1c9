"""`trained_on.txt`: hashes of the examples of a run, kept whatever becomes of its training file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from jft.errors import UserError, naming
from jft.runtime import workdir as workdir_lib
from jft.tasks import Example, Task

FILE = "trained_on.txt"
HEX_DIGITS = 16


def among(task: Task, examples: Sequence[Example], trained: Collection[str]) -> list[int]:
    """Find the indices of the examples whose hashes are in `trained`."""
    return [i for i, each in enumerate(examples) if any(x in trained for x in _hashes(task, each))]


def write_hashes(
    folder: Path, task: Task, examples: Iterable[Example], before: Collection[str]
) -> None:
    """Write the hash of every distinct example into a run's workdir.

    Args:
      folder: the workdir.
      task: the task of the examples.
      examples: all that the run is trained on.
      before: the hashes of its base model's examples, from `read_hashes`.
    """
    hashes = {_hashes(task, example)[0] for example in examples} | set(before)
    workdir_lib.write_text(folder / FILE, "".join(f"{line}\n" for line in sorted(hashes)))


def read_hashes(folder: Path) -> frozenset[str] | None:
    """Read the hashes of a run; None where the file is gone.

    Raises:
      UserError: the file is damaged.
    """
    try:
        with naming(folder / FILE):
            return frozenset((folder / FILE).read_text(encoding="ascii").split())
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise UserError(f"{folder / FILE}: damaged; restore it, or train again") from None


def _hashes(task: Task, example: Example) -> tuple[str, str]:
    """Hash an example as files have it, and as those of before had it, which knew white space."""
    before = (" ".join(example[name].split()) for name in task.fields)
    texts = (json.dumps([task.name, *inputs]) for inputs in (task.inputs(example), before))
    now, then = (hashlib.sha256(text.encode()).hexdigest()[:HEX_DIGITS] for text in texts)
    return now, then
