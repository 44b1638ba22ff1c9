"""The cells of an evaluation: which data sets are asked how, as a config says."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jft import config as config_lib
from jft.data import sources
from jft.data.sources import Dataset, Row, Suite
from jft.errors import UserError

# In `eval.datasets`: the test sets of every task.
ALL = "all"


class Setting(NamedTuple):
    """How a dataset is asked: one cell of the grid.

    Attributes:
      dataset: the test rows.
      shots: demonstrations before each item.
      prompt: index into the prompt map.
      draw: of the demonstrations: 0 for the first of their file, n for a draw with seed n.
      template: of the prompt.
      demos: `shots` rows of the demonstration file.
    """

    dataset: Dataset
    shots: int
    prompt: int
    draw: int
    template: str
    demos: tuple[Row, ...]


def settings(config: config_lib.Config) -> list[Setting]:
    """The cells that a config asks for.

    Raises:
      UserError: a dataset, a prompt or demonstrations that are not there, or two data sets of
        one name.
    """
    grid, source = config.eval, sources.suite(config.data)
    for name in ("shots", "prompts", "draws"):
        if not getattr(grid, name):
            raise UserError(f"eval.{name} is empty; give at least one, such as 0")
    task_shots = config_lib.by_task("eval.task_shots", grid.task_shots, source.tasks)
    return [
        setting(source, dataset, shots, prompt, draw, _demos(config, dataset))
        for dataset in datasets(config)
        for shots in dict.fromkeys(task_shots.get(dataset.task.name, grid.shots))
        for draw in dict.fromkeys(grid.draws if shots else (0,))
        for prompt in dict.fromkeys(grid.prompts)
    ]


def setting(
    source: Suite, dataset: Dataset, shots: int, prompt: int, draw: int = 0, demos: str = ""
) -> Setting:
    """One cell; `demos` as `data.demos`: whose demonstrations, or the dataset's own.

    Raises:
      UserError: a prompt or demonstrations that are not there.
    """
    template = source.template(dataset.task, prompt)
    rows = source.demos(dataset.task, demos or dataset.name, shots)
    if draw:
        rows = [rows[i] for i in np.random.default_rng([draw]).permutation(len(rows))]
    return Setting(dataset, shots, prompt, draw, template, tuple(rows[:shots]))


def datasets(config: config_lib.Config) -> list[Dataset]:
    """The test sets that a config asks for.

    Raises:
      UserError: one that is not there, or two of one task and name: results know them by these.
    """
    source, names = sources.suite(config.data), config.eval.datasets
    every = source.tests(*source.tasks.values())
    wanted = [each for name in names for each in (every if name == ALL else [name])]
    wanted = wanted or source.tests(source.task)
    if not wanted:
        folder = source.root / source.task.name
        raise UserError(f"eval.datasets is empty, and {folder} holds no test set")
    found: dict[tuple[str, str], Dataset] = {}
    for dataset in map(source.test, wanted):
        known = found.setdefault((dataset.task.name, dataset.name), dataset)
        if known.source != dataset.source:
            raise UserError(
                f"eval.datasets: {known.source} and {dataset.source} are both called "
                f"{dataset.name}; leave one out, or rename it"
            )
    return list(found.values())


def _demos(config: config_lib.Config, dataset: Dataset) -> str:
    """The demonstrations asked for, where they fit; a suite has some for its other tasks, too."""
    fits = dataset.task.name == config.data.task or dataset.own
    return config.data.demos if fits else ""
