"""`trained_on.txt`: hashes of the examples of a run, kept whatever becomes of its training file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from jft.errors import UserError, naming
from jft.runtime import workdir as workdir_lib
from jft.tasks import TASKS, Example, Task

FILE = "trained_on.txt"
HEX_DIGITS = 16
# Begins the first line, which says how many hashes follow.
COUNT = "examples:"


def among(task: Task, examples: Sequence[Example], trained: Collection[str]) -> list[int]:
    """Find the indices of the examples whose hashes are in `trained`."""
    return [i for i, each in enumerate(examples) if any(x in trained for x in _hashes(task, each))]


def write_hashes(
    folder: Path, trained: Iterable[tuple[Task, Iterable[Example]]], before: Collection[str]
) -> None:
    """Write the hash of every distinct example into a run's workdir.

    Args:
      folder: the workdir.
      trained: the examples that the run is trained on, with their tasks.
      before: the hashes of its base model's examples, from `read_hashes`.
    """
    hashes = {_hashes(task, each)[0] for task, examples in trained for each in examples}
    hashes |= set(before)
    lines = [f"{COUNT}{len(hashes)}", *sorted(hashes)]
    workdir_lib.write_text(folder / FILE, "".join(f"{line}\n" for line in lines))


def read_hashes(folder: Path) -> frozenset[str] | None:
    """Read the hashes of a run; None where the file is gone.

    Raises:
      UserError: the file is damaged.
    """
    try:
        with naming(folder / FILE):
            first, *rest = (folder / FILE).read_text(encoding="ascii").split() or [""]
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        first, rest = "", []
    if first == f"{COUNT}{len(rest)}":
        return frozenset(rest)
    if len(first) == HEX_DIGITS:  # without a count, as it was written before
        return frozenset([first, *rest])
    raise UserError(f"{folder / FILE}: damaged; restore it, or train again")


def _hashes(task: Task, example: Example) -> list[str]:
    """Hash an example as files have it, and as older files have it.

    What counts are the inputs by the names of their fields, and the task, unless it is the user's
    own, whose name may change. Before, it was any name and the order of the fields; and before that
    the spelling of the inputs.
    """
    inputs, name = task.inputs(example), task.name if task.name in TASKS else ""
    fields = task.fields or ("output",)
    spelled = (" ".join(example[name].split()) for name in fields)
    facts = (
        [name, *sorted(zip(fields, inputs, strict=True))],
        [task.name, *inputs],
        [task.name, *spelled],
    )
    return [hashlib.sha256(json.dumps(each).encode()).hexdigest()[:HEX_DIGITS] for each in facts]
