"""The records of a scored cell, and what it was made from."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np

from jft import config as config_lib
from jft.data import checks, sources
from jft.data.choices import Choices, Setting
from jft.errors import UserError
from jft.evaluation.records import Key
from jft.evaluation.stats import standard_error
from jft.tasks import relation
from jft.training import pretrained
from jft.training.pretrained import Origin


def key(setting: Setting) -> Key:
    """The cell that a setting asks for."""
    return (setting.dataset.task.name, setting.dataset.name, setting.shots, setting.prompt)


def model_name(config: config_lib.Config, origin: Origin) -> str:
    """What results call a model: its own name, or how it was trained and on what."""
    if config.model.name:
        return config.model.name
    if origin.run is None:
        return Path(origin.path).stem if origin.path.endswith(".gguf") else Path(origin.path).name
    data = origin.run.data
    kind = f"FTICL-{data.shots}" if data.shots else "FT"
    return f"{kind} {Path(data.train).stem}"


def item_rows(model: str, cell: Choices, scores: np.ndarray) -> list[dict]:
    """One record for each item; ties go to the label that comes first.

    Raises:
      UserError: a score that is not a number, which would make the first label every answer.
    """
    dataset, labels = cell.setting.dataset, cell.setting.dataset.task.labels
    records = []
    for index, values in zip(cell.indices, scores, strict=True):
        if not np.isfinite(values).all():
            raise UserError(
                f"{dataset.where(index)}: the model gives {values.tolist()} for "
                f"{', '.join(labels)}; its weights are damaged, or too large for model.dtype"
            )
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
    train = (run.data.task, sources.dataset_name(Path(run.data.train))) if run else None
    correct = [float(row["correct"]) for row in rows]
    stderr = standard_error(correct)
    demos = list(cell.setting.demos)
    return _identity(model, cell.setting) | {
        "relation": relation(train, (dataset.task.name, dataset.name)),
        "metric": "accuracy",
        "value": float(np.mean(correct)),
        "stderr": None if math.isnan(stderr) else stderr,
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


def inputs(model_digest: str, setting: Setting, limit: int) -> dict[str, str]:
    """Digests of what a cell's scores depend on besides the config, to find out when it changes."""
    rows = setting.dataset.rows[: limit or None]
    return {
        "model_sha256": model_digest,
        "rows_sha256": _digest(rows),
        "prompt_sha256": _digest([setting.template, setting.demos]),
    }


def _identity(model: str, cell: Setting) -> dict:
    return {
        "model": model,
        "task": cell.dataset.task.name,
        "dataset": cell.dataset.name,
        "shots": cell.shots,
        "prompt": cell.prompt,
    }


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
