"""The grid of an evaluation: every dataset at every number of shots with every prompt."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from jft import config as config_lib
from jft import workdir as workdir_lib
from jft.data import checks, items, sources
from jft.data import tokenizer as tokenizer_lib
from jft.data.items import Items, Setting
from jft.data.sources import Dataset
from jft.data.tokenizer import Tokenizer
from jft.errors import UserError
from jft.evaluation import cells as cells_lib
from jft.evaluation import decoding, records, runner, scoring
from jft.evaluation.runner import Runner
from jft.progress import Bar, phase, say
from jft.training import pretrained, setup
from jft.training.pretrained import Origin

Inputs = dict[records.Key, dict]

# What a finished cell was made from, and what to say where it is not the same any more.
CHANGED = {
    "step": "{path} has been trained on",
    "model_sha256": "the model {path} has changed",
    "rows_sha256": "its rows have changed",
    "prompt_sha256": "its template or its demonstrations have changed",
}


def evaluate(config: config_lib.Config, workdir: str) -> None:
    """Score one model on the grid, leaving out the cells that are finished already.

    Raises:
      UserError: config, data, model or workdir are not fit for it; the message says why.
    """
    origin = pretrained.origin(config.model.path)
    if not origin.finished:
        say(f"note: {config.model.path} stopped at step {origin.step}; this scores that step")
    cells = settings(config)
    digest = pretrained.fingerprint(origin)
    inputs = {
        cells_lib.key(cell): cells_lib.inputs(origin, digest, cell, config.eval.limit)
        for cell in cells
    }
    with workdir_lib.claim(workdir, config, "jft.eval") as folder:
        finished = _finished(folder, origin, inputs)
        todo = [cell for cell in cells if cells_lib.key(cell) not in finished]
        if not todo:
            say(f"Finished: {folder} holds all {len(cells)} cells")
            return
        if finished:
            say(f"Going on: {len(cells) - len(todo)} of {len(cells)} cells are finished")
        _score_cells(config, origin, folder, todo, inputs)
        say(f"Done: {len(cells)} cells in {folder}")


def settings(config: config_lib.Config) -> list[Setting]:
    """The cells that a config asks for.

    Raises:
      UserError: a dataset, a prompt or demonstrations that are not there, or two data sets of
        one name.
    """
    for name in ("shots", "prompts"):
        if not getattr(config.eval, name):
            raise UserError(f"eval.{name} is empty; give at least one, such as 0")
    source = sources.suite(config.data)
    names = config.eval.datasets or source.tests(source.task)
    if not names:
        folder = source.root / source.task.name
        raise UserError(f"eval.datasets is empty, and {folder} holds no test set")
    datasets = [source.test(name) for name in names]
    _check_names(datasets)
    cells = [
        items.setting(source, dataset, shots, prompt, _demos(config, dataset))
        for dataset in datasets
        for shots in config.eval.shots
        for prompt in config.eval.prompts
    ]
    return list({cells_lib.key(cell): cell for cell in cells}.values())


def _check_names(datasets: list[Dataset]) -> None:
    """Results know a data set by its task and name."""
    found: dict[tuple[str, str], str] = {}
    for dataset in datasets:
        known = found.setdefault((dataset.task.name, dataset.name), dataset.source)
        if known != dataset.source:
            raise UserError(
                f"eval.datasets: {known} and {dataset.source} are both called {dataset.name}; "
                "leave one out, or rename it"
            )


def _demos(config: config_lib.Config, dataset: Dataset) -> str:
    """The demonstrations asked for, where they fit; a suite has some for its other tasks, too."""
    fits = dataset.task.name == config.data.task or dataset.own
    return config.data.demos if fits else ""


def _score_cells(
    config: config_lib.Config, origin: Origin, folder: Path, cells: list[Setting], inputs: Inputs
) -> None:
    mesh, dtype = setup.devices(config)
    grid, data = config.eval, config.data
    with phase("Reading the data"):
        tokenizer = tokenizer_lib.load(pretrained.tokenizer_path(config.model.path))
        planned = [
            items.plan(cell, tokenizer, grid.limit, data.max_length, data.row_length)
            for cell in cells
        ]
    with phase("Loading the model"):
        decoder, params = pretrained.load(origin, mesh)
        encoded = [each for cell in planned for each in cell.encoded]
        checks.check_tokens(encoded, decoder.vocab_size, decoder.max_positions, origin.path)
        model = runner.create(decoder, params, mesh, dtype, grid.batch_tokens, grid.max_new_tokens)
    name = cells_lib.model_name(config, origin)
    with Bar(f"Scoring {name}", sum(len(cell.encoded) for cell in planned)) as bar:
        for cell in planned:
            label = f"{cell.setting.dataset.name} at {cell.setting.shots} shots"
            rows = _rows(name, model, cell, tokenizer, functools.partial(bar.advance, label))
            workdir_lib.append_jsonl(folder / "rows.jsonl", rows)
            record = (
                cells_lib.record(name, origin, cell, rows)
                | {"bos": bool(tokenizer.prefix)}
                | inputs[cells_lib.key(cell.setting)]
            )
            workdir_lib.append_jsonl(folder / "cells.jsonl", [record])


def _rows(
    name: str, model: Runner, cell: Items, tokenizer: Tokenizer, advance: Callable[[int], None]
) -> list[dict]:
    if cell.setting.dataset.task.labels:
        return cells_lib.label_rows(name, cell, scoring.score(model, cell, advance))
    texts = decoding.generate(model, cell, tokenizer, advance)
    return cells_lib.text_rows(name, cell, texts)


def _finished(folder: Path, origin: Origin, inputs: Inputs) -> set[records.Key]:
    """The cells that are whole; items of a cell that a kill cut short are dropped.

    Raises:
      UserError: the model, the rows or the prompts are not those of the finished cells any more.
    """
    file = folder / "cells.jsonl"
    finished = {records.key(cell): cell for cell in workdir_lib.keep_jsonl(file, records.CELL)}
    for key in finished.keys() & inputs.keys():
        changed = [name for name, now in inputs[key].items() if finished[key].get(name) != now]
        if changed:
            task, dataset, shots, _ = key
            raise UserError(
                f"--workdir={folder} holds scores of {task}/{dataset} at {shots} shots, but "
                f"{CHANGED[changed[0]].format(path=origin.path)} since; choose another workdir"
            )
    rows = workdir_lib.keep_jsonl(
        folder / "rows.jsonl", records.ROW, lambda record: records.key(record) in finished
    )
    counts = Counter(map(records.key, rows))
    whole = {key for key, cell in finished.items() if counts[key] == cell["n"]}
    if whole != finished.keys():
        for name in ("cells.jsonl", "rows.jsonl"):
            workdir_lib.keep_jsonl(folder / name, records.GRID, lambda r: records.key(r) in whole)
    return whole
