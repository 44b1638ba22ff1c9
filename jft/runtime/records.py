"""The files that programs leave in workdirs: what each holds, its version, and one reader.

Each of these files, or each line of it in JSON Lines, has a `version`; none means 1. Files of older
versions are read, newer ones are refused. `workdir.read_config` does the same for config.json, and
`checkpoints/manifest.py` describes the manifest in a checkpoint, which has no version.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from jft.errors import UserError
from jft.runtime import workdir

# The fields of a record with their types; `[type]` is a list of them.
Kind = typing.Union[type, types.UnionType, "Schema", list["Kind"]]
Schema = Mapping[str, Kind]
# A larger number means a damaged file.
LARGEST_NUMBER = 1e300

NUMBER = int | float
GRID = {"task": str, "dataset": str, "shots": int, "prompt": int, "draw": int}


class Format(NamedTuple):
    """A kind of file.

    Attributes:
      name: of the file in a workdir.
      version: the one that is written.
      fields: those that every record has, with their types.
    """

    name: str
    version: int
    fields: Schema


METRICS = Format(
    "metrics.jsonl",
    1,
    {
        **{"step": int, "loss": NUMBER, "grad_norm": NUMBER, "lr": NUMBER, "seconds": NUMBER},
        **{"examples": int, "target_tokens": int, "row_tokens": int},
    },
)
PROBES = Format(
    "probes.jsonl",
    1,
    {
        **{"step": int, "task": str, "dataset": str, "relation": str, "n": int},
        **{"accuracy": NUMBER | None, "nll": NUMBER},
        **{"nll_change": NUMBER, "nll_change_stderr": NUMBER | None},
        **{"kl": NUMBER, "kl_stderr": NUMBER | None},
    },
)
GENERATIONS = Format(
    "generations.jsonl",
    1,
    {
        **{"step": int, "index": int, "task": str, "dataset": str},
        **{"output": str, "generation": str, "rougeL": NUMBER},
    },
)
DISTANCE: dict[str, Kind] = {"relative_norm": NUMBER | None, "cosine": NUMBER | None}
WEIGHT = {
    "kind": str,
    "layer": int | None,
    "effective_rank": NUMBER | None,
    "full_rank": int | None,
}
DRIFT = Format(
    "drift.json",
    1,
    {"base": str, "base_step": int, "all": DISTANCE, "weights": [DISTANCE | WEIGHT]},
)
FINDING: dict[str, Kind] = {
    **{"severity": str, "check": str, "where": str, "count": int, "of": int},
    **{"indices": [int], "text": str},
}
DATA_REPORT = Format("data_report.json", 1, {"findings": [FINDING]})
TRAINED_MODEL = Format(
    "model.json",
    2,  # in version 1 the decoder's sizes stood for the description: see `model_record.read_record`
    {"steps": int, "base": str, "base_sha256": str, "base_step": int | None},
)
# Facts of a scored model that hold for all its cells. In version 1 they stood in every cell: see
# `read_scored_model`. Beside them `chat` says whether it was asked through its chat template.
SCORED_MODEL = Format(
    "model.json",
    2,
    {
        **{"model": str, "model_path": str, "step": int, "model_sha256": str, "bos": bool},
        **{"base": str, "base_sha256": str | None, "adapters": str},
        **{"train": str | None, "train_task": str | None, "train_shots": int | None},
        **{"train_seed": int | None, "train_examples": int | None},
        **{"recipe": str | None, "plain_recipe": str | None},
    },
)
CELLS = Format(
    "cells.jsonl",
    2,
    GRID
    | {
        **{"model": str, "relation": str, "metric": str, "value": NUMBER},
        **{"stderr": NUMBER | None, "n": int, "skipped": int},
        **{"rows_sha256": str, "prompt_sha256": str, "sequence_tokens": int, "row_tokens": int},
        **{"shortened": int, "demos_among_items": int, "items_trained_on": int | None},
    },
)
ROWS = Format(
    "rows.jsonl",
    1,
    GRID | {"model": str, "index": int, "request_sha256": str, "output": str, "prediction": str},
)
# Beside exported adapters: what they were trained on.
ADAPTER_BASE = Format("jft_base.json", 1, {"base": str, "base_sha256": str})
JOBS = Format(
    "jobs.jsonl",
    1,
    {"job": str, "sha256": str, "status": str, "seconds": NUMBER, "message": str},
)
DRY_RUN = Format("dry_run.json", 1, {"jobs": list, "seconds": NUMBER})


class Key(NamedTuple):
    """The identity of a cell of the grid."""

    task: str
    dataset: str
    shots: int
    prompt: int
    draw: int

    def __str__(self) -> str:
        """Name the cell as messages do."""
        draw = f", draw {self.draw}" if self.draw else ""
        return f"{self.task}/{self.dataset} at {self.shots} shots, prompt {self.prompt}{draw}"


def is_number(value: object) -> bool:
    """Check for a number that is not too large to be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < LARGEST_NUMBER  # nor is nan


def key(record: dict) -> Key:
    """Find the cell that a record belongs to."""
    return Key(*(record[field] for field in GRID))


def write(folder: Path, kind: Format, value: dict) -> None:
    """Replace a JSON file atomically."""
    workdir.write_json(folder / kind.name, {"version": kind.version} | value)


def append(folder: Path, kind: Format, records: Iterable[dict], wait: bool = True) -> None:
    """Add records to a JSON Lines file; with `wait` they are on disk when this returns."""
    versioned = ({"version": kind.version} | record for record in records)
    workdir.append_jsonl(folder / kind.name, versioned, wait)


def sync(folder: Path, kind: Format) -> None:
    """Wait until the disk has all records of a file."""
    workdir.sync(folder / kind.name)


def read(folder: Path, kind: Format) -> dict:
    """Read a JSON file.

    Raises:
      UserError: it is missing, damaged, of a newer version, or lacks a field.
    """
    file = folder / kind.name
    value = workdir.read_json(file)
    workdir.check_version(str(file), value, kind.version)
    check(str(file), value, kind.fields)
    return value


def read_lines(folder: Path, kind: Format) -> list[dict]:
    """Read the records of a JSON Lines file; none if there is no file.

    A last line that a kill cut off is left out.

    Raises:
      UserError: a line is malformed, of a newer version, or lacks a field.
    """
    return _checked(folder, kind, workdir.read_jsonl(folder / kind.name))


def keep_lines(
    folder: Path, kind: Format, wanted: Callable[[dict], bool] = lambda record: True
) -> list[dict]:
    """Drop the records that `wanted` refuses from a JSON Lines file, and return the others."""
    kept = [record for record in read_lines(folder, kind) if wanted(record)]
    if (folder / kind.name).exists():
        workdir.write_text(folder / kind.name, workdir.to_jsonl(kept))
    return kept


def read_scored_model(folder: Path) -> dict:
    """Read what an evaluation says of its model, of version 1 from the cells, where it stood.

    Raises:
      UserError: nothing is there; it is damaged; or, in version 1, cells of several models.
    """
    if (folder / SCORED_MODEL.name).exists():
        return read(folder, SCORED_MODEL)
    file = folder / CELLS.name
    cells = workdir.read_jsonl(file)
    if any("version" in cell for cell in cells):
        raise UserError(f"{folder / SCORED_MODEL.name}: missing; restore it, or score again")
    for line, cell in enumerate(cells, start=1):
        check(f"{file} line {line}", cell, SCORED_MODEL.fields)
    if not cells:
        raise UserError(f"{file}: no finished cell; run python -m jft.eval on this workdir again")
    facts = [{name: cell[name] for name in SCORED_MODEL.fields} for cell in cells]
    for line, of_line in enumerate(facts, start=1):
        for field, value in of_line.items():
            if value != facts[0][field]:
                raise UserError(
                    f"{file} line {line}: {field}={value!r}, but line 1 has {facts[0][field]!r}; "
                    "score each model in a workdir of its own"
                )
    return facts[0]


def _checked(folder: Path, kind: Format, records: list[dict]) -> list[dict]:
    for line, record in enumerate(records, start=1):
        where = f"{folder / kind.name} line {line}"
        workdir.check_version(where, record, kind.version)
        check(where, record, kind.fields)
    return records


def check(where: str, record, schema: Schema) -> None:
    """Check that a record has the fields of a schema.

    Raises:
      UserError: naming the field.
    """
    if not isinstance(record, dict):
        raise UserError(f"{where}: must be an object, not {type(record).__name__}; restore it")
    for field, kind in schema.items():
        if field not in record:
            raise UserError(f"{where}: {field} is missing; restore it, if this jft wrote the file")
        _check_value(where, field, record[field], kind)


def _check_value(where: str, field: str, value, kind: Kind) -> None:
    if isinstance(kind, Mapping):
        return check(f"{where}: {field}", value, kind)
    if isinstance(kind, list):
        _check_value(where, field, value, list)
        for i, each in enumerate(value):
            _check_value(where, f"{field}[{i}]", each, kind[0])
        return None
    wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
    if wrong or (isinstance(value, int | float) and not abs(value) < LARGEST_NUMBER):
        raise UserError(
            f"{where}: {field}={repr(value)[:40]} is not what jft writes there; restore it"
        )
