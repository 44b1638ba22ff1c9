"""The records of a scored cell, and what it was made from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from pathlib import Path

import numpy as np

from jft import config as config_lib
from jft.checkpoints.model_ref import ModelRef
from jft.data import checks, prefix_tree, trained_on
from jft.data.dataset_ref import DatasetRef
from jft.data.eval_batches import PackedCell
from jft.data.eval_grid import Cell
from jft.data.prompts import Encoded
from jft.errors import UserError
from jft.evaluation import metrics
from jft.evaluation.stats import standard_error
from jft.runtime import workdir as workdir_lib
from jft.runtime.records import Key
from jft.tasks import method, relation

# The sections of a config that say how a model is trained; of their keys those that do not (the
# base is known by its weights), and those that training with demonstrations changes: which they
# are, and the room that they need.
RECIPE = ("model", "data", "train", "optim", "lora")
NO_RECIPE = ("model.path", "model.name", "data.seed")
OF_DEMONSTRATIONS = tuple(
    f"data.{name}" for name in ("shots", "demos", "demo_mode", "max_length", "row_length")
)


def key(setting: Cell) -> Key:
    """The cell that a setting asks for."""
    dataset = setting.dataset
    return Key(dataset.task.name, dataset.name, setting.shots, setting.prompt, setting.draw)


def model_name(config: config_lib.Config, ref: ModelRef) -> str:
    """What results call a model: its own name, or how it was trained and on what."""
    if config.model.name:
        return config.model.name
    if ref.run is None:
        return Path(ref.path).stem if ref.path.endswith(".gguf") else Path(ref.path).name
    data = ref.run.data
    size = f"[:{data.examples}]" if data.examples else ""
    seed = f" seed {data.seed}" if data.seed else ""
    kind = " ".join(filter(None, (method(data.shots), _adapters(ref.run.lora))))
    return f"{kind} {DatasetRef.parse(data.train).title}{size}{seed}"


def _adapters(config: config_lib.Lora) -> str:
    """What kind of adapters were trained, such as `LoRA-16 int8`; empty for all weights."""
    if not config.rank:
        return ""
    base = f" {config.base}" if config.base != "auto" else ""
    return f"{'DoRA' if config.dora else 'LoRA'}-{config.rank}{base}"


def label_rows(model: str, items: PackedCell, scores: np.ndarray) -> list[dict]:
    """One record for each item that was scored; ties go to the label that comes first.

    Raises:
      UserError: a score that is not a number, which would make the first label every answer.
    """
    dataset, labels = items.cell.dataset, items.cell.dataset.task.labels
    records = []
    for i, (index, values) in enumerate(zip(items.indices, scores, strict=True)):
        if not np.isfinite(values).all():
            raise UserError(
                f"{dataset.where(index)}: the model gives {values.tolist()} for "
                f"{', '.join(labels)}; its weights are damaged, or too large for model.dtype"
            )
        prediction = labels[int(values.argmax())]
        records.append(
            _row(model, items, i, prediction)
            | {"scores": dict(zip(labels, values.tolist(), strict=True))}
            | {"correct": prediction == dataset.examples[index]["output"]}
        )
    return records


def text_rows(model: str, items: PackedCell, texts: list[str], max_new_tokens: int) -> list[dict]:
    """One record for each item that a text of at most so many tokens was generated for."""
    rows = items.cell.dataset.examples
    return [
        _row(model, items, i, text, max_new_tokens)
        | {"generation": text}
        | {"rougeL": metrics.rouge_l(text, rows[index]["output"])}
        | {"bleu": metrics.sentence_bleu(text, rows[index]["output"])}
        for i, (index, text) in enumerate(zip(items.indices, texts, strict=True))
    ]


class Training:
    """What a run's workdir says of its training.

    Raises:
      UserError: a file of it is damaged.
    """

    def __init__(self, ref: ModelRef):
        assert ref.run
        assert ref.record
        file = ref.folder / "data_report.json"
        report = workdir_lib.read_json(file) if file.exists() else {}
        self.run, self.rows_sha256 = ref.run, report.get("rows_sha256")
        self.examples = report.get("rows_trained_on")
        self.saved, self.seen = ref.record, ref.trained_on

    def recipe(self, without: Collection[str] = ()) -> str:
        """What runs have in common that differ only in their seed, their machine, and `without`."""
        keys = {
            path: value
            for path, field, value in config_lib.keys(self.run)
            if path.partition(".")[0] in RECIPE and not field.metadata["runtime"]
            if path not in (*without, *NO_RECIPE)
        }
        return workdir_lib.sha256([keys, self.rows_sha256, self.saved.base_sha256])[:16]


def record(
    model: str,
    ref: ModelRef,
    items: PackedCell,
    rows: list[dict],
    training: Training | None,
) -> dict:
    """The record of a cell, of which its rows are known, and how the model was trained."""
    setting, run = items.cell, ref.run
    dataset, counts = setting.dataset, prefix_tree.count(items.sequences)
    scored = [dataset.examples[i] for i in items.indices]
    train = (run.data.task, DatasetRef.parse(run.data.train).name) if run else None
    return _identity(model, setting) | {
        "relation": relation(train, (dataset.task.name, dataset.name)),
        **(_mean(metrics.ACCURACY, rows) if dataset.task.labels else _rouge_l(rows)),
        "n": len(rows),
        "skipped": items.skipped,
        "sequence_tokens": counts.sequence_tokens,
        "row_tokens": counts.row_tokens,
        "shortened": sum(encoded.shortened for encoded in items.encoded),
        "demos_among_items": len(checks.overlap(dataset.task, scored, setting.demos)),
        "items_trained_on": len(trained_on.among(dataset.task, scored, training.seen))
        if training and training.seen is not None
        else None,
        "train": run.data.train if run else None,
        "train_task": run.data.task if run else None,
        "train_shots": run.data.shots if run else None,
        "train_seed": run.data.seed if run else None,
        "adapters": _adapters(run.lora) if run else "",
        "train_examples": training.examples if training else None,
        "recipe": training.recipe() if training else None,
        "plain_recipe": training.recipe(OF_DEMONSTRATIONS) if training else None,
        "base": training.saved.base if training else ref.path,
        "base_sha256": training.saved.base_sha256 if training else None,
        "model_path": ref.path,
    }


def _rouge_l(rows: list[dict]) -> dict:
    texts, references = [row["generation"] for row in rows], [row["output"] for row in rows]
    return _mean(metrics.ROUGE_L, rows) | {"bleu": metrics.corpus_bleu(texts, references)}


def _mean(metric: str, rows: list[dict]) -> dict:
    values = [float(row[metrics.item_field(metric)]) for row in rows]
    stderr = standard_error(values)
    return {
        "metric": metric,
        "value": float(np.mean(values)),
        "stderr": None if math.isnan(stderr) else stderr,
    }


def inputs(ref: ModelRef, model_digest: str, setting: Cell, limit: int) -> dict:
    """What a cell's scores depend on besides the config, to find out when it changes."""
    rows = setting.dataset.examples[: limit or None]
    return {
        "step": ref.step,
        "model_sha256": model_digest,
        "rows_sha256": workdir_lib.sha256(rows),
        "prompt_sha256": workdir_lib.sha256([setting.template, setting.demos]),
    }


def _row(model: str, items: PackedCell, i: int, prediction: str, max_new_tokens: int = 0) -> dict:
    index = items.indices[i]
    return _identity(model, items.cell) | {
        "index": index,
        "request_sha256": _request(items.encoded[i], max_new_tokens),
        "output": items.cell.dataset.examples[index]["output"],
        "prediction": prediction,
    }


def _request(encoded: Encoded, max_new_tokens: int) -> str:
    """What the model was asked: equal where data, template, demonstrations and limits are."""
    digest = hashlib.sha256()
    for sequence in encoded.sequences:
        sizes = [len(sequence.tokens), sequence.start, max_new_tokens]
        digest.update(np.array(sizes, "<i4").tobytes())
        digest.update(np.asarray(sequence.tokens, "<i4").tobytes())
    return digest.hexdigest()[:16]


def _identity(model: str, cell: Cell) -> dict:
    return {
        "model": model,
        "task": cell.dataset.task.name,
        "dataset": cell.dataset.name,
        "shots": cell.shots,
        "prompt": cell.prompt,
        "draw": cell.draw,
    }
