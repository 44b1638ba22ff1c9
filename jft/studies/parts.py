"""What a study consists of: one training and one evaluation for each of its models."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import NamedTuple

from jft import config as config_lib
from jft.data import datasets
from jft.data import readers as rows_lib
from jft.data.datasets import Suite
from jft.data.eval_grid import ALL
from jft.errors import UserError
from jft.runtime.progress import say
from jft.tasks import method, shots_by_task

# What a study says of all its trainings, by what a config says of one.
OF_THE_GRID = {"train": "train", "examples": "sizes", "shots": "shots", "seed": "seeds"}


class Job(NamedTuple):
    """A program to run: its workdir is a folder of the study's."""

    program: str
    config: config_lib.Config
    folder: Path


class Part(NamedTuple):
    """A model of the study.

    Attributes:
      name: what its folders are called.
      training: None for the base.
      scoring: on the same grid for every model.
    """

    name: str
    training: Job | None
    scoring: Job


def parts(config: config_lib.Config, folder: Path) -> list[Part]:
    """The base first, then training sets x sizes x shots x seeds.

    Raises:
      UserError: a training set that is not there, a study without any, or two of one name.
    """
    study = config.study
    _check(config)
    tasks = datasets.suite(config.data).tasks
    task_shots = shots_by_task("study.task_shots", study.task_shots, tasks)
    found = [Part("base", None, _scoring(config, config.model.path, folder, "base"))]
    found += [
        _part(config, folder, source, size, shots, seed)
        for source in _training_sets(config)
        for size in _sizes(study.sizes, source)
        for shots in dict.fromkeys(task_shots.get(source.task.name, study.shots))
        for seed in dict.fromkeys(study.seeds)
    ]
    names = [part.name for part in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"study.train: two parts are called {name}; rename a training set")
    return found


def _check(config: config_lib.Config) -> None:
    """See that the grid is no empty one, and not asked for where a single training would be."""
    for name in ("sizes", "shots", "seeds"):
        if not getattr(config.study, name):
            raise UserError(f"study.{name} is empty; give at least one, such as 0")
    for single, several in OF_THE_GRID.items():
        value = getattr(config.data, single)
        if value:
            raise UserError(f"data.{single}={value}: a study does not read it; set study.{several}")


def _part(
    config: config_lib.Config, folder: Path, source: Suite, size: int, shots: int, seed: int
) -> Part:
    training = _without_grid(config)
    training.eval = config_lib.Eval()
    training.data = dataclasses.replace(source.data, examples=size, shots=shots, seed=seed)
    name = "-".join(
        [method(shots), source.task.name, rows_lib.title(source.data.train)]
        + ([f"first-{size}"] if size else [])
        + ([f"seed-{seed}"] if seed else [])
    )
    run = folder / "runs" / name
    return Part(name, Job("jft.train", training, run), _scoring(config, str(run), folder, name))


def _scoring(config: config_lib.Config, model: str, folder: Path, name: str) -> Job:
    """Every model is scored on the same grid, so on what concerns the grid alone."""
    scoring = _without_grid(config)
    scoring.model.path = model
    scoring.data = dataclasses.replace(config.data, train="", examples=0, shots=0, seed=0)
    scoring.train, scoring.optim = config_lib.Train(), config_lib.Optim()
    scoring.probe, scoring.checkpoint = config_lib.Probe(), config_lib.Checkpoint()
    scoring.eval.datasets = scoring.eval.datasets or (ALL,)
    return Job("jft.eval", scoring, folder / "scores" / name)


def _without_grid(config: config_lib.Config) -> config_lib.Config:
    """A copy for one program, which knows nothing of the other parts."""
    own = copy.deepcopy(config)
    own.study = config_lib.Study()
    return own


def _training_sets(config: config_lib.Config) -> list[Suite]:
    """One suite for each training set."""
    source = datasets.suite(config.data)
    names = config.study.train or source.trainings()
    if not names:
        raise UserError(f"study.train is empty, and {source.root} holds no training set")
    return [source.for_training(name) for name in names]


def _sizes(sizes: tuple[int, ...], source: Suite) -> list[int]:
    """The sizes that a training set has rows for."""
    try:
        have = len(source.training().rows)
    except UserError:
        return list(sizes)  # its own training will say what is wrong with it; the others can do
    for size in sizes:
        if size > have:
            say(f"note: {source.data.train} holds {have} examples, so no study.sizes={size} of it")
    return [size for size in dict.fromkeys(sizes) if size <= have]
