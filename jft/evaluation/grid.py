"""The grid of an evaluation: every dataset at every number of shots with every prompt."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from jft import config as config_lib
from jft import workdir as workdir_lib
from jft.data import checks, choices, sources
from jft.data import tokenizer as tokenizer_lib
from jft.data.choices import Choices, Setting
from jft.data.sources import Dataset, Suite
from jft.errors import UserError
from jft.evaluation import scoring
from jft.evaluation.stats import standard_error
from jft.progress import Bar, phase, say
from jft.tasks import TASKS, relation
from jft.training import pretrained, setup
from jft.training.pretrained import Origin

Key = tuple[str, str, int, int]


def evaluate(config: config_lib.Config, workdir: str) -> None:
    """Score one model on the grid, leaving out the cells that are finished already.

    Raises:
      UserError: config, data, model or workdir are not fit for it; the message says why.
    """
    origin = pretrained.origin(config.model.path)
    if not origin.finished:
        say(f"note: {config.model.path} stopped at step {origin.step}; this scores that step")
    cells = settings(config)
    with workdir_lib.claim(workdir, config) as folder:
        finished = _finished(folder, origin)
        todo = [cell for cell in cells if _key(cell) not in finished]
        if not todo:
            say(f"Finished: {folder} holds all {len(cells)} cells")
            return
        if finished:
            say(f"Going on: {len(cells) - len(todo)} of {len(cells)} cells are finished")
        _score_cells(config, origin, folder, todo)
        say(f"Done: {len(cells)} cells in {folder}")


def settings(config: config_lib.Config) -> list[Setting]:
    """The cells that a config asks for.

    Raises:
      UserError: a dataset, a prompt or demonstrations that are not there, a task without labels, or
        two data sets of one name.
    """
    for name in ("shots", "prompts"):
        if not getattr(config.eval, name):
            raise UserError(f"eval.{name} is empty; give at least one, such as 0")
    source, task = sources.suite(config.data.root), TASKS[config.data.task]
    names = config.eval.datasets or source.tests(task)
    if not names:
        raise UserError(f"eval.datasets is empty, and {source.root / task.name} holds no test set")
    datasets = [source.test(name, task) for name in names]
    for dataset in datasets:
        if not dataset.task.labels:
            scored = [name for name, t in TASKS.items() if t.labels]
            raise UserError(
                f"eval.datasets={dataset.name}: task {dataset.task.name} has no labels to score; "
                f"tasks with labels are {', '.join(scored)}"
            )
    _check_names(datasets)
    cells = [
        choices.setting(source, dataset, shots, prompt, _demos(config, source, dataset))
        for dataset in datasets
        for shots in config.eval.shots
        for prompt in config.eval.prompts
    ]
    return list({_key(cell): cell for cell in cells}.values())


def _check_names(datasets: list[Dataset]) -> None:
    """Results know a data set by its task and name."""
    paths: dict[tuple[str, str], Path] = {}
    for dataset in datasets:
        known = paths.setdefault((dataset.task.name, dataset.name), dataset.path)
        if known.resolve() != dataset.path.resolve():
            raise UserError(
                f"eval.datasets: {known} and {dataset.path} are both called {dataset.name}; "
                "leave one out, or rename it"
            )


def _demos(config: config_lib.Config, source: Suite, dataset: Dataset) -> str:
    """The demonstrations asked for, where they fit; a suite has some for its other tasks, too."""
    fits = dataset.task.name == config.data.task or source.root not in dataset.path.parents
    return config.data.demos if fits else ""


def model_name(config: config_lib.Config, origin: Origin) -> str:
    """What results call a model: its own name, or how it was trained and on what."""
    if config.model.name:
        return config.model.name
    if origin.run is None:
        return Path(origin.path).stem if origin.path.endswith(".gguf") else Path(origin.path).name
    data = origin.run.data
    kind = f"FTICL-{data.shots}" if data.shots else "FT"
    return f"{kind} {Path(data.train).stem}"


def _score_cells(
    config: config_lib.Config, origin: Origin, folder: Path, cells: list[Setting]
) -> None:
    mesh, dtype = setup.devices(config)
    with phase("Reading the data"):
        tokenizer = tokenizer_lib.load(pretrained.tokenizer_path(config.model.path))
        planned = [
            choices.plan(
                cell, tokenizer, config.eval.limit, config.data.max_length, config.data.row_length
            )
            for cell in cells
        ]
    with phase("Loading the model"):
        decoder, params = pretrained.load(config.model.path, mesh)
        model = scoring.scorer(decoder, params, mesh, dtype, config.eval.batch_tokens)
    name = model_name(config, origin)
    with Bar(f"Scoring {name}", sum(len(cell.encoded) for cell in planned)) as bar:
        for cell in planned:
            label = f"{cell.setting.dataset.name} at {cell.setting.shots} shots"
            scores = scoring.score(model, cell, functools.partial(bar.advance, label))
            rows = item_rows(name, cell, scores)
            workdir_lib.append_jsonl(folder / "rows.jsonl", rows)
            record = cell_record(name, origin, cell, rows) | {"bos": bool(tokenizer.prefix)}
            workdir_lib.append_jsonl(folder / "cells.jsonl", [record])


def item_rows(model: str, cell: Choices, scores: np.ndarray) -> list[dict]:
    """One record for each item; ties go to the label that comes first."""
    dataset, labels = cell.setting.dataset, cell.setting.dataset.task.labels
    records = []
    for index, values in zip(cell.indices, scores, strict=True):
        gold, prediction = dataset.rows[index]["output"], labels[int(values.argmax())]
        records.append(
            _identity(model, cell.setting)
            | {"index": index, "output": gold, "prediction": prediction}
            | {"scores": dict(zip(labels, values.tolist(), strict=True))}
            | {"correct": prediction == gold}
        )
    return records


def cell_record(model: str, origin: Origin, cell: Choices, rows: list[dict]) -> dict:
    """The record of a cell, of which its items are known."""
    dataset, run = cell.setting.dataset, origin.run
    train = (run.data.task, _dataset_name(run.data.train)) if run else None
    correct = [float(row["correct"]) for row in rows]
    demos = list(cell.setting.demos)
    return _identity(model, cell.setting) | {
        "relation": relation(train, (dataset.task.name, dataset.name)),
        "metric": "accuracy",
        "value": float(np.mean(correct)),
        "stderr": standard_error(correct),
        "n": len(rows),
        "skipped": cell.skipped,
        "shortened": sum(encoded.shortened for encoded in cell.encoded),
        "demos_among_items": len(checks.overlap(dataset.task, demos, dataset.rows)),
        "train": run.data.train if run else None,
        "train_task": run.data.task if run else None,
        "train_shots": run.data.shots if run else None,
        "base": pretrained.absolute(run.model.path) if run else origin.path,
        "model_path": origin.path,
        "step": origin.step,
    }


def _identity(model: str, cell: Setting) -> dict:
    return {
        "model": model,
        "task": cell.dataset.task.name,
        "dataset": cell.dataset.name,
        "shots": cell.shots,
        "prompt": cell.prompt,
    }


def _dataset_name(train: str) -> str:
    return sources.dataset_name(Path(train))


def _key(cell: Setting) -> Key:
    return (cell.dataset.task.name, cell.dataset.name, cell.shots, cell.prompt)


def _record_key(record: dict) -> Key:
    return (record["task"], record["dataset"], record["shots"], record["prompt"])


def _finished(folder: Path, origin: Origin) -> set[Key]:
    """The cells that are whole; items of a cell that a kill cut short are dropped.

    Raises:
      UserError: the model has been trained on since.
    """
    cells = workdir_lib.keep_jsonl(folder / "cells.jsonl", lambda record: True)
    for cell in cells:
        if cell["step"] != origin.step:
            raise UserError(
                f"--workdir={folder} holds scores of step {cell['step']}, but {origin.path} is now "
                f"at step {origin.step}; choose another workdir"
            )
    whole = {_record_key(cell) for cell in cells}
    workdir_lib.keep_jsonl(folder / "rows.jsonl", lambda record: _record_key(record) in whole)
    return whole
