"""Reading of the workdirs of evaluations, and of the trainings of the models they scored."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jft.data import eval_grid, retention
from jft.data.rows.dataset_ref import DatasetRef
from jft.data.rows.datasets import Dataset
from jft.errors import UserError, expand
from jft.evaluation import metrics
from jft.reporting import harness
from jft.reporting.models import (
    UNKNOWN,
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
from jft.runtime.progress import say
from jft.runtime.records import Key
from jft.tasks import CHOICE, GENERATED, GENERATION, LABELS, RELATIONS, TEXT

# What an evaluation counts beside its metric.
CAUTIONS = ("shortened", "demos_among_items", "items_trained_on")
# The fields of a distribution over the likeliest tokens.
LIKELIEST = ("ids", "logprobs")
# No text has so many bytes, and none is less likely than this power of e.
LARGEST = 1e9


def read_models(dirs: Sequence[str], base: str = "") -> list[ScoredModel]:
    """Read the models scored in these folders and the folders inside them, bases first.

    Folders are those of jft's evaluations and of lm-evaluation-harness's.

    Args:
      dirs: the folders.
      base: which of the latter holds the base; empty: the first.

    Raises:
      UserError: no evaluation in a folder; files that are damaged, incomplete or contradictory; or
        two evaluations of a model that has changed between them.
    """
    roots = [expand(path) for path in dirs]
    foreign = list(dict.fromkeys(f for root in roots for f in harness.folders(root)))
    if base and not foreign:
        raise UserError(
            f"--base={base}: says which folder of lm-evaluation-harness holds the base, of which "
            "there is none here; evaluations of jft know their base"
        )
    found = harness.read(foreign, expand(base).resolve() if base else None)
    folders = dict.fromkeys(f for path in dirs for f in _workdirs(path, bool(foreign)))
    return merge([*map(_read_evaluation, folders), *found])


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
    found: dict[tuple[str, str], Dataset] = {}
    for folder in (folder for model in models for folder in model.evaluations):
        try:
            config = workdir.read_config(Path(folder) / workdir.CONFIG)
            panel = retention.retention_sets(config.eval.retention, ())
            datasets = [*eval_grid.datasets(config), *(each.dataset for each in panel)]
        except UserError:
            continue
        found |= {(dataset.task.name, dataset.name): dataset for dataset in datasets}
    return found


def _workdirs(path: str, others: bool) -> list[Path]:
    root = expand(path)
    found = sorted(file.parent.resolve() for file in root.rglob("cells.jsonl"))
    if not found and not (others and harness.folders(root)):
        problem = "holds no cells.jsonl" if root.is_dir() else "is not a folder"
        raise UserError(
            f"{path} {problem}; give the --workdir of a finished python -m jft.eval (or, with "
            "--log_samples, the --output_path of lm-evaluation-harness)"
        )
    return found


def _read_evaluation(folder: Path) -> ScoredModel:
    """Read the workdir of an evaluation: a model with the cells that were scored there."""
    records, first = _cells(folder), records_lib.read_scored_model(folder)
    items = _items(folder, {records_lib.key(r): r["metric"] for r in records})
    evaluation = Evaluation(
        [records_lib.key(r) for r in records], _config(folder), _data_findings(folder)
    )
    tuned = any(record["relation"] != "base" for record in records)
    run = _read_run(Path(first["model_path"])) if tuned else None
    own_name = model_name(first["model"])._replace(chat=bool(first.get("chat")))
    return ScoredModel(
        name=str(own_name),
        own_name=own_name,
        path=first["model_path"],
        step=first["step"],
        steps=first.get("steps") or (run.steps if run else None),
        base=first["base"],
        base_sha256=first["base_sha256"] or first["model_sha256"],
        train=first["train"] and _train_title(first["train"]),
        train_task=first["train_task"],
        train_shots=first["train_shots"] or 0,
        seed=first["train_seed"] or 0,
        adapters=first["adapters"],
        examples=first["train_examples"],
        recipe_id=first["recipe"],
        plain_recipe_id=first["plain_recipe"],
        sha256=first["model_sha256"],
        evaluations={str(folder): evaluation},
        run=run,
        cells={records_lib.key(r): _cell(folder, r, items) for r in records},
    )


def _train_title(train: str) -> str:
    """Name a training set by its reference; of several their names stand there."""
    return train if " + " in train else DatasetRef.parse(train).title


def _cells(folder: Path) -> list[dict]:
    found = records_lib.read_lines(folder, records_lib.CELLS)
    if not found:
        raise UserError(
            f"{folder / records_lib.CELLS.name}: no finished cell; run python -m jft.eval on this "
            "workdir again"
        )
    for line, record in enumerate(found, start=1):
        if record["relation"] not in (*RELATIONS, "base"):
            raise UserError(
                f"{folder / records_lib.CELLS.name} line {line}: relation="
                f"{record['relation']!r}; must be base, {', '.join(RELATIONS)}"
            )
        if (record["relation"] == "base") != (found[0]["relation"] == "base"):
            raise UserError(
                f"{folder / records_lib.CELLS.name} line {line}: relation={record['relation']!r}, "
                f"but line 1 has {found[0]['relation']!r}: a base has no other"
            )
        if metrics.kind_of(record["metric"]) is None:
            raise UserError(
                f"{folder / records_lib.CELLS.name} line {line}: metric={record['metric']!r}; "
                f"must be one of {', '.join(filter(metrics.kind_of, metrics.METRICS))}"
            )
    return found


def _items(folder: Path, metric_of: dict[Key, str]) -> dict[Key, dict[int, dict]]:
    """Read the items of every finished cell; those of a cell that was cut short are left out."""
    items: dict[Key, dict[int, dict]] = {key: {} for key in metric_of}
    file, found = folder / records_lib.ROWS.name, records_lib.read_lines(folder, records_lib.ROWS)
    for line, record in enumerate(found, start=1):
        key = records_lib.key(record)
        if key in items:
            _check_item(f"{file} line {line}", record, metric_of[key])
            items[key][record["index"]] = record
    return {key: dict(sorted(rows.items())) for key, rows in items.items()}


def _check_item(where: str, record: dict, metric: str) -> None:
    """Check that the metrics of a cell can be computed from an item's record."""
    kind = metrics.kind_of(metric) or ""
    if kind == TEXT:
        _check_reading(where, record)
        return
    field = {LABELS: "correct", CHOICE: "correct"}.get(kind, metrics.MAIN[kind])
    value, whole = record.get(field), kind == GENERATION
    known = 0 <= value <= 1 if isinstance(value, bool | int | float) else False
    if not known or not (whole or value in (0, 1)):
        wanted = "a number from 0 to 1" if whole else "true or false"
        raise UserError(f"{where}: {field}={value!r:.80}; must be {wanted}")
    if kind in GENERATED:
        if not isinstance(text := record.get("generation"), str):
            raise UserError(f"{where}: generation={text!r:.80}; must be text")
        if "logprob" in record:
            _check_reading(where, record)
        return
    scores = record.get("scores")
    values = scores.values() if isinstance(scores, dict) and scores else [None]
    if not all(map(records_lib.is_number, values)):
        raise UserError(f"{where}: scores={scores!r:.80}; must be a number for each label")
    if kind == CHOICE and record["output"] not in record["scores"]:
        raise UserError(f"{where}: output={record['output']!r:.80}; must be one of its choices")


def _check_reading(where: str, record: dict) -> None:
    logprob, size = record.get("logprob"), record.get("bytes")
    if not records_lib.is_number(logprob) or not -LARGEST < float(logprob or 0) <= 1e-3:
        raise UserError(f"{where}: logprob={logprob!r:.80}; must be the logarithm of a probability")
    if not records_lib.is_number(size) or not 0.01 < float(size or 0) < LARGEST:
        raise UserError(f"{where}: bytes={size!r:.80}; must be a number of bytes")
    places = record.get("likeliest", [{"ids": [], "logprobs": []}])
    for each in places if isinstance(places, list) and places else [None]:
        lists = [each.get(name) if isinstance(each, dict) else None for name in LIKELIEST]
        sizes = {
            len(of) if isinstance(of, list) and all(map(records_lib.is_number, of)) else -1
            for of in lists
        }
        if len(sizes) > 1 or -1 in sizes:
            raise UserError(f"{where}: likeliest: must be lists of ids and of logprobs")


def _cell(folder: Path, record: dict, rows_of: dict[Key, dict[int, dict]]) -> ScoredCell:
    key, metric = records_lib.key(record), record["metric"]
    rows = rows_of[key]
    _check_rows(folder, record, rows)
    _check_alike(folder, record, list(rows.values()))
    measures = metrics.measure(list(rows.values()), metrics.kind_of(metric) or "")
    if metric not in measures:
        raise UserError(f"{folder / 'rows.jsonl'}: rows of {key} do not have what {metric} takes")
    main = measures.pop(metric)
    value = math.fsum(main) / len(main)
    if not abs(value - record["value"]) <= 1e-6 * max(1.0, abs(value)):
        raise UserError(
            f"{folder / 'cells.jsonl'}: the cell {key} has {metric} {record['value']}, but its "
            f"rows in rows.jsonl give {value}; run python -m jft.eval again in a new workdir"
        )
    cautions = {name: UNKNOWN if record[name] is None else record[name] for name in CAUTIONS}
    stderr = math.nan if record["stderr"] is None else record["stderr"]
    items = {
        index: ScoredItem(row["request_sha256"], row["output"], row["prediction"], value)
        for (index, row), value in zip(rows.items(), main, strict=True)
    }
    return ScoredCell(
        key, metric, record["relation"], record["value"], stderr, record["n"],
        record["skipped"], cautions, items, measures, _likeliest(rows),
    )  # fmt: skip


def _likeliest(rows: dict[int, dict]) -> dict[int, list[dict[int, float]]]:
    """Find what a model expected next at some places of the texts that it read."""
    return {
        index: [dict(zip(*(each[n] for n in LIKELIEST), strict=True)) for each in row["likeliest"]]
        for index, row in rows.items()
        if "likeliest" in row
    }


def _check_rows(folder: Path, record: dict, rows: dict[int, dict]) -> None:
    """Check that the rows of a cell are those that it was made of."""
    key, items = records_lib.key(record), rows
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
    # Items are numbered among those that were asked for.
    asked = record["n"] + record["skipped"]
    for index in items:
        if not 0 <= index < asked:
            raise UserError(
                f"{folder / 'rows.jsonl'}: the cell {key} has an item with index={index}, of "
                f"{asked}; run python -m jft.eval again in a new workdir"
            )


def _check_alike(folder: Path, record: dict, rows: list[dict]) -> None:
    """Check that the rows of a cell have the same labels, and distributions at as many places."""
    labels = metrics.kind_of(record["metric"]) == LABELS
    for what, sizes in (
        ("labels", {tuple(row["scores"]) if labels else () for row in rows}),
        ("likeliest", {len(row.get("likeliest", ())) for row in rows}),
    ):
        if len(sizes) > 1:
            raise UserError(
                f"{folder / 'rows.jsonl'}: rows of the cell {records_lib.key(record)} differ in "
                f"their {what}; run python -m jft.eval again in a new workdir"
            )


def _config(folder: Path) -> dict:
    """Read `config.json`, which the report only shows; empty where it is gone."""
    file = folder / workdir.CONFIG
    return workdir.read_json(file) if file.is_file() else {}


def _read_run(folder: Path) -> Run | None:
    """Read the workdir of a training; None for any other model, or if it is not on this machine."""
    if not workdir.is_workdir(folder):
        if (folder / "checkpoints").is_dir():
            say(f"note: the report leaves out the training in {folder}: no readable config.json")
        return None
    return Run(
        config=workdir.read_json(folder / workdir.CONFIG),
        steps=(_find(folder, records_lib.TRAINED_MODEL) or {}).get("steps"),
        seconds=sum(r["seconds"] for r in records_lib.read_lines(folder, records_lib.METRICS)),
        drift=_find(folder, records_lib.DRIFT),
        probes=records_lib.read_lines(folder, records_lib.PROBES),
        generations=records_lib.read_lines(folder, records_lib.GENERATIONS),
        data_findings=_data_findings(folder),
    )


def _data_findings(folder: Path) -> list[dict]:
    return (_find(folder, records_lib.DATA_REPORT) or {}).get("findings") or []


def _find(folder: Path, kind: records_lib.Format) -> dict | None:
    """Read a file that the report can do without; None, with a note, where it cannot be used."""
    if not (folder / kind.name).exists():
        return None
    try:
        return records_lib.read(folder, kind)
    except UserError as error:
        say(f"note: the report leaves out {error}")
        return None
