"""The table of tasks, and what training and testing on them is called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jft.errors import UserError


@dataclass(frozen=True, slots=True)
class Task:
    """A task: the fields of its rows, what may be shortened in them, and its labels.

    Attributes:
      name: as in `data.task` and in `prompt_map.json`.
      fields: what a row holds besides `output`.
      texts: the fields that may lose their end when a sequence is too long.
      labels: the outputs allowed, in the order of ties; empty for generation.
    """

    name: str
    fields: tuple[str, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()


IN_DOMAIN, OUT_OF_DOMAIN, OUT_OF_TASK = RELATIONS = ("in-domain", "out-of-domain", "out-of-task")

TASKS = {
    task.name: task
    for task in (
        Task("summary", ("input",), ("input",)),
        Task("question", ("input", "answer"), ("input",)),
        Task("sentiment", ("input",), ("input",), ("positive", "negative")),
        Task(
            "inference",
            ("input_1", "input_2"),
            ("input_1", "input_2"),
            ("entailment", "neutral", "contradiction"),
        ),
        Task("detection", ("input_1", "input_2"), ("input_1", "input_2"), ("yes", "no")),
    )
}


def relation(train: tuple[str, str] | None, test: tuple[str, str]) -> str:
    """How a test set relates to what a model was trained on.

    Args:
      train: (task, dataset) of the training set; None for a model that was not fine-tuned here.
      test: (task, dataset) of the test set.

    Returns:
      `base`, `in-domain`, `out-of-domain` (same task, other data) or `out-of-task`.
    """
    if train is None:
        return "base"
    if train == test:
        return IN_DOMAIN
    return OUT_OF_DOMAIN if train[0] == test[0] else OUT_OF_TASK


def method(shots: int) -> str:
    """What training with so many demonstrations before every example is called."""
    return f"FTICL-{shots}" if shots else "FT"


def shots_by_task(
    path: str, values: tuple[str, ...], tasks: Iterable[str]
) -> dict[str, tuple[int, ...]]:
    """Read the shots that a key such as `eval.task_shots` gives to tasks: `question=0/1/2`.

    Raises:
      UserError: a value is not written so, or there is no such task.
    """
    found = {}
    for value in values:
        task, _, numbers = value.partition("=")
        parts = numbers.split("/")
        if not task or not all(part.isdecimal() for part in parts):
            raise UserError(f"{path}={value}: is written task=0/1/2")
        if task not in tasks:
            raise UserError(f"{path}={value}: no task {task}; there are {', '.join(tasks)}")
        found[task] = tuple(map(int, parts))
    return found
