"""Reads what evaluations left in their workdirs: models, each with its cells and their items."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jft.data import readers as rows_lib
from jft.errors import UserError
from jft.evaluation import metrics
from jft.runtime import records as records_lib
from jft.runtime import workdir
from jft.runtime.records import Key
from jft.tasks import RELATIONS

# What an evaluation counts beside its metric.
CAUTIONS = ("shortened", "demos_among_items", "items_trained_on")
IDENTITY = (
    *("model", "train", "train_task", "train_shots", "train_seed", "train_examples", "recipe"),
    *("adapters", "plain_recipe", "base", "base_sha256", "model_path", "step", "model_sha256"),
)


class ScoredItem(NamedTuple):
    """A scored item: what was asked, the gold output, the model's, the metric's value in [0, 1]."""

    request: str
    gold: str
    prediction: str
    value: float


@dataclass(frozen=True, slots=True)
class ScoredCell:
    """One model on one dataset at one number of shots with one prompt.

    Attributes:
      key: what it has in common with the same cell of another model.
      metric: what its values are of.
      relation: of the dataset to the model's training set.
      value, stderr: the metric's mean and its standard error, in [0, 1].
      n, skipped: items scored, and left out for want of a gold label.
      cautions: what else the evaluation counted, by name (shortened inputs, leaked items).
      items: by row number of the dataset.
    """

    key: Key
    metric: str
    relation: str
    value: float
    stderr: float
    n: int
    skipped: int
    cautions: dict[str, int]
    items: dict[int, ScoredItem]


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """A model that was scored.

    Attributes:
      name: unique in the report.
      own_name: as its evaluations call it.
      path, step: which checkpoint.
      base, base_sha256: the model that it was tuned from, and its weights then; a base's own.
      train, train_task, train_shots: its training set, None for a base; 0 shots = FT, k = FTICL.
      seed: of its training.
      adapters: what kind of them was trained, such as `LoRA-16`; empty: all weights.
      examples: distinct rows it was trained on.
      recipe: equal for models that differ in nothing but their seed.
      plain_recipe: equal for those that differ in their demonstrations, too.
      sha256: of the weights.
      folders: the workdirs of its evaluations, each with the cells in it.
      configs: their `config.json`, by folder.
      cells: by what they are compared by.
    """

    name: str
    own_name: str
    path: str
    step: int | None
    base: str | None
    base_sha256: str
    train: str | None
    train_task: str | None
    train_shots: int
    seed: int
    adapters: str
    examples: int | None
    recipe: str | None
    plain_recipe: str | None
    sha256: str
    folders: dict[str, list[Key]]
    configs: dict[str, str]
    cells: dict[Key, ScoredCell]

    @property
    def training(self) -> tuple[str, int | None]:
        """What its seeds have in common: a recipe, and after how many steps."""
        return (self.recipe or self.path, self.step)

    @property
    def is_base(self) -> bool:
        """Whether it was not fine-tuned here."""
        return all(cell.relation == "base" for cell in self.cells.values())


def collect(dirs: Sequence[str]) -> list[ScoredModel]:
    """The models scored in these folders and the folders inside them, bases first.

    Evaluations of the same weights are one model, wherever these lay; others with one name get
    names that tell them apart.

    Raises:
      UserError: no evaluation in a folder; files that are damaged, incomplete or contradictory; or
        two evaluations of a model that has changed between them.
    """
    folders = dict.fromkeys(folder for path in dirs for folder in _workdirs(path))
    models: dict[tuple, ScoredModel] = {}
    for model in map(_read, folders):
        identity = (model.name, model.sha256)
        models[identity] = _merge(models[identity], model) if identity in models else model
    _check_unchanged(models.values())
    order = sorted(models.values(), key=_order)
    return [dataclasses.replace(m, name=_unique_name(m, order)) for m in order]


def merge_cells(models: Iterable[ScoredModel]) -> dict[Key, ScoredCell]:
    """The cells of several evaluations of one model.

    Raises:
      UserError: two of them score a cell differently.
    """
    cells: dict[Key, ScoredCell] = {}
    for model in models:
        for key, cell in model.cells.items():
            if cells.setdefault(key, cell).items != cell.items:
                raise UserError(
                    f"{', '.join(model.folders)}: scores {model.path} on {key} differently from "
                    "another folder of this report; leave one of them out"
                )
    return cells


def _workdirs(path: str) -> list[Path]:
    root = Path(path).expanduser()
    found = sorted(file.parent.resolve() for file in root.rglob("cells.jsonl"))
    if not found:
        problem = "holds no cells.jsonl" if root.is_dir() else "is not a folder"
        raise UserError(f"{path} {problem}; give the --workdir of a finished python -m jft.eval")
    return found


def _read(folder: Path) -> ScoredModel:
    file = folder / "cells.jsonl"
    records = workdir.read_jsonl(file, records_lib.CELL)
    if not records:
        raise UserError(f"{file}: no finished cell; run python -m jft.eval on this workdir again")
    for line, record in enumerate(records, start=1):
        _check_record(f"{file} line {line}", record, records[0])
    items = _items(folder / "rows.jsonl", {records_lib.key(r): r["metric"] for r in records})
    first, name = records[0], str(folder)
    return ScoredModel(
        name=first["model"],
        own_name=first["model"],
        path=first["model_path"],
        step=first["step"],
        base=first["base"],
        base_sha256=first["base_sha256"] or first["model_sha256"],
        train=first["train"] and rows_lib.title(first["train"]),
        train_task=first["train_task"],
        train_shots=first["train_shots"] or 0,
        seed=first["train_seed"] or 0,
        adapters=first["adapters"],
        examples=first["train_examples"],
        recipe=first["recipe"],
        plain_recipe=first["plain_recipe"],
        sha256=first["model_sha256"],
        folders={name: [records_lib.key(r) for r in records]},
        configs={name: _config(folder)},
        cells={records_lib.key(r): _cell(folder, r, items) for r in records},
    )


def _check_record(where: str, record: dict, first: dict) -> None:
    for field in IDENTITY:
        if record[field] != first[field]:
            raise UserError(
                f"{where}: {field}={record[field]!r}, but line 1 has {first[field]!r}; "
                "score each model in a workdir of its own"
            )
    if record["relation"] not in (*RELATIONS, "base"):
        raise UserError(
            f"{where}: relation={record['relation']!r}; must be base, {', '.join(RELATIONS)}"
        )


def _items(file: Path, metric_of: dict[Key, str]) -> dict[Key, dict[int, ScoredItem]]:
    """The items of every finished cell; rows of a cell that was cut short are left out."""
    items: dict[Key, dict[int, ScoredItem]] = {key: {} for key in metric_of}
    for line, row in enumerate(workdir.read_jsonl(file, records_lib.ROW), start=1):
        key = records_lib.key(row)
        if key in items:
            items[key][row["index"]] = _item(f"{file} line {line}", row, metric_of[key])
    return items


def _item(where: str, row: dict, metric: str) -> ScoredItem:
    field = metrics.item_field(metric)
    value = row.get(field)
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        raise UserError(f"{where}: {field}={value!r}; must be a number from 0 to 1")
    return ScoredItem(row["request_sha256"], row["output"], row["prediction"], float(value))


def _cell(folder: Path, record: dict, rows: dict[Key, dict[int, ScoredItem]]) -> ScoredCell:
    key, metric = records_lib.key(record), record["metric"]
    items = rows[key]
    if len(items) != record["n"]:
        raise UserError(
            f"{folder / 'cells.jsonl'}: the cell {key} has n={record['n']}, but "
            f"{folder / 'rows.jsonl'} holds {len(items)} rows of it; run python -m jft.eval again "
            "in a new workdir"
        )
    if not items:
        raise UserError(
            f"{folder / 'cells.jsonl'}: the cell {key} has no items; every row was skipped, so "
            "leave this dataset out of eval.datasets"
        )
    value = math.fsum(item.value for item in items.values()) / len(items)
    if metric == metrics.ACCURACY and not abs(value - record["value"]) <= 1e-6:
        raise UserError(
            f"{folder / 'cells.jsonl'}: the cell {key} has accuracy {record['value']}, but its "
            f"rows in rows.jsonl give {value}; run python -m jft.eval again in a new workdir"
        )
    cautions = {name: record[name] or 0 for name in CAUTIONS}
    stderr = math.nan if record["stderr"] is None else record["stderr"]
    return ScoredCell(
        key, metric, record["relation"], record["value"], stderr, record["n"],
        record["skipped"], cautions, items,
    )  # fmt: skip


def _config(folder: Path) -> str:
    """The file as it is, laid out; the report only shows it."""
    file = folder / "config.json"
    if not file.is_file():
        return ""
    try:
        return json.dumps(json.loads(file.read_text(encoding="utf-8")), indent=2)
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON: {error}; restore or remove it") from None


def _check_unchanged(models: Iterable[ScoredModel]) -> None:
    known: dict[tuple, ScoredModel] = {}
    for model in models:
        first = known.setdefault((model.name, model.path, model.step), model)
        if first is not model:
            raise UserError(
                f"{model.path} has changed between its evaluations {min(first.folders)} and "
                f"{min(model.folders)}; leave one of them out, or score it again in a new workdir"
            )


def _merge(first: ScoredModel, second: ScoredModel) -> ScoredModel:
    return dataclasses.replace(
        first,
        folders=first.folders | second.folders,
        configs=first.configs | second.configs,
        cells=merge_cells((first, second)),
    )


def _order(model: ScoredModel) -> tuple:
    training = (model.train_task or "", model.train or "", model.examples or 0, model.train_shots)
    seed = model.seed
    return (not model.is_base, *training, seed, model.name, model.path, model.step or 0)


def _unique_name(model: ScoredModel, models: list[ScoredModel]) -> str:
    namesakes = [m for m in models if m.name == model.name and m is not model]
    if not namesakes:
        return model.name
    parts = [m.path.rstrip("/").split("/") for m in (model, *namesakes)]
    ends = [part for part in parts if part != parts[0]]
    length = 1
    while length < len(parts[0]) and any(e[-length:] == parts[0][-length:] for e in ends):
        length += 1
    label = "/".join(parts[0][-length:])
    if any(m.path == model.path for m in namesakes):
        label += f" at step {model.step}"
    return f"{model.name} ({label})"
