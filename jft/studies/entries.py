"""The entries of a study: one training and one evaluation for each of its models."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import NamedTuple

from jft import config as config_lib
from jft.data.eval_grid import ALL
from jft.data.rows import datasets
from jft.data.rows.dataset_ref import DatasetRef
from jft.data.rows.datasets import Suite
from jft.errors import UserError
from jft.runtime.progress import say
from jft.tasks import method, shots_by_task

# Keys of `data` for a single training, and the keys of `study` that list their values in a grid.
GRID_KEYS = {"train": "train", "examples": "sizes", "shots": "shots", "seed": "seeds"}


class Job(NamedTuple):
    """A program to run, its config, and its workdir, a folder of the study's workdir."""

    program: str
    config: config_lib.Config
    folder: Path


class Entry(NamedTuple):
    """A model of the study: how it is trained and scored.

    Attributes:
      name: name of its folders, such as `FTICL-2-sentiment-shops_train_20-first-8`.
      training: job that trains it; None for the base.
      scoring: job that scores it, on the same grid for every model.
    """

    name: str
    training: Job | None
    scoring: Job


def entries(config: config_lib.Config, folder: Path) -> list[Entry]:
    """List the entries of a study: the base, then training sets x sizes x shots x seeds.

    Args:
      config: config of the study.
      folder: its workdir.

    Raises:
      UserError: a training set that is not there, a study without any, or two of one name.
    """
    study = config.study
    _check(config)
    tasks = datasets.suite(config.data).tasks
    task_shots = shots_by_task("study.task_shots", study.task_shots, tasks)
    found = [Entry("base", None, _scoring(config, config.model.path, folder, "base"))]
    found += [
        _entry(config, folder, source, size, shots, seed)
        for source in _training_sets(config)
        for size in _sizes(study.sizes, source)
        for shots in dict.fromkeys(task_shots.get(source.task.name, study.shots))
        for seed in dict.fromkeys(study.seeds)
    ]
    names = [entry.name for entry in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"study.train: two parts are called {name}; rename a training set")
    return found


def _check(config: config_lib.Config) -> None:
    """Refuse an empty grid, and keys of a single training that a study does not read."""
    for name in ("sizes", "shots", "seeds"):
        if not getattr(config.study, name):
            raise UserError(f"study.{name} is empty; give at least one, such as 0")
    for single, several in GRID_KEYS.items():
        value = getattr(config.data, single)
        if value:
            raise UserError(f"data.{single}={value}: a study does not read it; set study.{several}")
    if config.eval.in_domain:
        raise UserError(
            f"eval.in_domain={','.join(config.eval.in_domain)}: in a study this depends on the "
            "training set; name files so that those of one dataset have one name"
        )


def _entry(
    config: config_lib.Config, folder: Path, source: Suite, size: int, shots: int, seed: int
) -> Entry:
    """Name one point of the grid, and make its two jobs."""
    training = _without_grid(config)
    training.eval = config_lib.Eval()
    training.data = dataclasses.replace(source.data, examples=size, shots=shots, seed=seed)
    name = "-".join(
        [method(shots), source.task.name, DatasetRef.parse(source.data.train[0]).title]
        + ([f"first-{size}"] if size else [])
        + ([f"seed-{seed}"] if seed else [])
    )
    run = folder / "runs" / name
    return Entry(name, Job("jft.train", training, run), _scoring(config, str(run), folder, name))


def _scoring(config: config_lib.Config, model: str, folder: Path, name: str) -> Job:
    """Make the job that scores a model.

    Its config holds nothing of how the model was trained, so that all are scored alike.
    """
    scoring = _without_grid(config)
    scoring.model.path = model
    scoring.data = dataclasses.replace(config.data, train=(), examples=0, shots=0, seed=0)
    scoring.train, scoring.optim = config_lib.Train(), config_lib.Optim()
    scoring.probe, scoring.checkpoint = config_lib.Probe(), config_lib.Checkpoint()
    scoring.eval.datasets = scoring.eval.datasets or (ALL,)
    return Job("jft.eval", scoring, folder / "scores" / name)


def _without_grid(config: config_lib.Config) -> config_lib.Config:
    """Copy the config for one job, which knows nothing of the grid."""
    own = copy.deepcopy(config)
    own.study = config_lib.Study()
    return own


def _training_sets(config: config_lib.Config) -> list[Suite]:
    """Find the training sets, each a suite that is set up to read it."""
    source = datasets.suite(config.data)
    names = config.study.train or source.training_names()
    if not names:
        raise UserError(f"study.train is empty, and {source.root} holds no training set")
    return [source.for_training(name) for name in names]


def _sizes(sizes: tuple[int, ...], source: Suite) -> list[int]:
    """Keep the sizes that a training set has examples for, and say which it has not."""
    try:
        have = min(len(each.examples) for each in source.training_sets())
    except UserError:
        return list(sizes)  # its own training will say what is wrong with it; the others can run
    for size in sizes:
        if size > have:
            (train,) = source.data.train
            say(f"note: {train} holds {have} examples, so no study.sizes={size} of it")
    return [size for size in dict.fromkeys(sizes) if size <= have]
