"""Reading of the workdirs of evaluations, and of the trainings of the models they scored."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jft import config as config_lib
from jft.data import eval_grid, readers
from jft.data.datasets import Dataset
from jft.errors import UserError
from jft.evaluation import metrics
from jft.reporting.models import (
    Evaluation,
    ModelName,
    Run,
    ScoredCell,
    ScoredItem,
    ScoredModel,
    merge,
)
from jft.runtime import records as records_lib
from jft.runtime import workdir
from jft.runtime.records import Key
from jft.tasks import RELATIONS

# What an evaluation counts beside its metric.
CAUTIONS = ("shortened", "demos_among_items", "items_trained_on")
# What every record of a workdir says of the model.
OF_MODEL = (
    *("model", "train", "train_task", "train_shots", "train_seed", "train_examples", "recipe"),
    *("adapters", "plain_recipe", "base", "base_sha256", "model_path", "step", "model_sha256"),
)
PROBE = {
    **{"step": int, "task": str, "dataset": str, "relation": str, "n": int},
    **{"nll_change": int | float, "nll_change_stderr": int | float | None},
    **{"kl": int | float, "kl_stderr": int | float | None},
}
DRIFT = {"relative_norm": int | float | None}
WEIGHT = DRIFT | {"kind": str, "layer": int | None, "full_rank": int | None}


def read_models(dirs: Sequence[str]) -> list[ScoredModel]:
    """Read the models scored in these folders and the folders inside them, bases first.

    Raises:
      UserError: no evaluation in a folder; files that are damaged, incomplete or contradictory; or
        two evaluations of a model that has changed between them.
    """
    folders = dict.fromkeys(folder for path in dirs for folder in _workdirs(path))
    return merge(map(_read_evaluation, folders))


def model_name(text: str) -> ModelName:
    """Split the name of a model into its parts: records hold it as one text.

    Example: `FT gadgets_train[:64] seed 3` has the title `FT gadgets_train`, limit 64 and seed 3.
    """
    number = "(0|[1-9][0-9]*)"
    found = re.fullmatch(rf"(.*?)(?:\[:{number}\])?(?: seed {number})?", text, re.DOTALL)
    assert found
    title, limit, seed = found.groups()
    return ModelName(title, int(limit) if limit else None, int(seed) if seed else None)


def read_datasets(models: Iterable[ScoredModel]) -> dict[tuple[str, str], Dataset]:
    """Find the datasets, by task and name, that were scored and are still on this machine."""
    evaluations = [each for model in models for each in model.evaluations.values()]
    found: dict[tuple[str, str], Dataset] = {}
    for config in dict.fromkeys(each.config for each in evaluations if each.config):
        try:
            datasets = eval_grid.datasets(config_lib.from_dict(json.loads(config)))
        except (UserError, AttributeError, TypeError):
            continue
        found |= {(dataset.task.name, dataset.name): dataset for dataset in datasets}
    return found


def _workdirs(path: str) -> list[Path]:
    root = Path(path).expanduser()
    found = sorted(file.parent.resolve() for file in root.rglob("cells.jsonl"))
    if not found:
        problem = "holds no cells.jsonl" if root.is_dir() else "is not a folder"
        raise UserError(f"{path} {problem}; give the --workdir of a finished python -m jft.eval")
    return found


def _read_evaluation(folder: Path) -> ScoredModel:
    """Read the workdir of an evaluation: a model with the cells that were scored there."""
    file = folder / "cells.jsonl"
    records = workdir.read_jsonl(file, records_lib.CELL)
    if not records:
        raise UserError(f"{file}: no finished cell; run python -m jft.eval on this workdir again")
    for line, record in enumerate(records, start=1):
        _check_record(f"{file} line {line}", record, records[0])
    items = _items(folder / "rows.jsonl", {records_lib.key(r): r["metric"] for r in records})
    evaluation = Evaluation(
        [records_lib.key(r) for r in records], _config(folder), _data_findings(folder)
    )
    first = records[0]
    tuned = any(record["relation"] != "base" for record in records)
    return ScoredModel(
        name=first["model"],
        own_name=model_name(first["model"]),
        path=first["model_path"],
        step=first["step"],
        base=first["base"],
        base_sha256=first["base_sha256"] or first["model_sha256"],
        train=first["train"] and readers.title(first["train"]),
        train_task=first["train_task"],
        train_shots=first["train_shots"] or 0,
        seed=first["train_seed"] or 0,
        adapters=first["adapters"],
        examples=first["train_examples"],
        recipe_id=first["recipe"],
        plain_recipe_id=first["plain_recipe"],
        sha256=first["model_sha256"],
        evaluations={str(folder): evaluation},
        run=_read_run(Path(first["model_path"])) if tuned else None,
        cells={records_lib.key(r): _cell(folder, r, items) for r in records},
    )


def _check_record(where: str, record: dict, first: dict) -> None:
    for field in OF_MODEL:
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
    """Read the items of every finished cell; those of a cell that was cut short are left out."""
    items: dict[Key, dict[int, ScoredItem]] = {key: {} for key in metric_of}
    for line, record in enumerate(workdir.read_jsonl(file, records_lib.ROW), start=1):
        key = records_lib.key(record)
        if key in items:
            items[key][record["index"]] = _item(f"{file} line {line}", record, metric_of[key])
    return items


def _item(where: str, record: dict, metric: str) -> ScoredItem:
    field = metrics.item_field(metric)
    value = record.get(field)
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        raise UserError(f"{where}: {field}={value!r}; must be a number from 0 to 1")
    return ScoredItem(
        record["request_sha256"], record["output"], record["prediction"], float(value)
    )


def _cell(folder: Path, record: dict, items_of: dict[Key, dict[int, ScoredItem]]) -> ScoredCell:
    key, metric = records_lib.key(record), record["metric"]
    items = items_of[key]
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
    """Read the text of `config.json` and indent it; the report only shows it."""
    file = folder / "config.json"
    if not file.is_file():
        return ""
    try:
        return json.dumps(json.loads(file.read_text(encoding="utf-8")), indent=2)
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON: {error}; restore or remove it") from None


def _read_run(folder: Path) -> Run | None:
    """Read the workdir of a training; None for any other model, or if it is not on this machine."""
    if not workdir.is_workdir(folder):
        return None
    return Run(
        config=workdir.read_json(folder / workdir.CONFIG),
        steps=_read_json(folder / "model.json").get("steps"),
        drift=_drift(folder / "drift.json"),
        probes=workdir.read_jsonl(folder / "probes.jsonl", PROBE),
        data_findings=_data_findings(folder),
    )


def _drift(file: Path) -> dict | None:
    found = _read_json(file)
    try:
        if found:
            workdir.check(str(file), found, {"all": dict, "weights": list})
            workdir.check(str(file), found["all"], DRIFT)
            for weight in found["weights"]:
                workdir.check(str(file), weight, WEIGHT)
    except UserError:
        return None
    return found or None


def _data_findings(folder: Path) -> list[dict]:
    return _read_json(folder / "data_report.json").get("findings") or []


def _read_json(file: Path) -> dict:
    """Read a file that the report can do without: empty where it is missing or damaged."""
    try:
        return workdir.read_json(file) if file.exists() else {}
    except UserError:
        return {}  # the program that wrote it will say what is wrong
