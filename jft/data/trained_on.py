"""What a run was trained on, remembered by hash whatever becomes of the training file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from jft.data.datasets import Example
from jft.errors import UserError
from jft.runtime import workdir as workdir_lib
from jft.tasks import Task

FILE = "trained_on.txt"
HEX_DIGITS = 16


def inputs(task: Task, row: Example) -> tuple[str, ...]:
    """What makes two rows of a task the same: their fields, white space collapsed."""
    return tuple(" ".join(row[name].split()) for name in task.fields)


def among(task: Task, rows: Sequence[Example], trained: Collection[str]) -> list[int]:
    """Indices of the rows that were trained on."""
    return [i for i, row in enumerate(rows) if _hash(task, row) in trained]


def write(folder: Path, task: Task, rows: Iterable[Example], before: Collection[str]) -> None:
    """Leave the hash of every distinct row in a run's workdir.

    Args:
      folder: the workdir.
      task: of the rows.
      rows: what the run is trained on.
      before: what its base model was trained on, as `read` gives it.
    """
    hashes = {_hash(task, row) for row in rows} | set(before)
    workdir_lib.write_text(folder / FILE, "".join(f"{line}\n" for line in sorted(hashes)))


def read(folder: Path) -> frozenset[str] | None:
    """The hashes of a run; None where the file is gone.

    Raises:
      UserError: the file is damaged.
    """
    try:
        return frozenset((folder / FILE).read_text(encoding="ascii").split())
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise UserError(f"{folder / FILE}: damaged; restore it, or train again") from None


def _hash(task: Task, row: Example) -> str:
    text = json.dumps([task.name, *inputs(task, row)])
    return hashlib.sha256(text.encode()).hexdigest()[:HEX_DIGITS]
