"""The results of an evaluation: records of its model, its cells and their items."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from jft import config as config_lib
from jft.checkpoints.model_ref import ModelRef
from jft.data import checks, rules, trained_on
from jft.data.eval_cells import EncodedCell
from jft.data.eval_grid import Cell, chat_setting
from jft.data.prompting.prompts import Encoded
from jft.data.rows.dataset_ref import DatasetRef
from jft.data.rows.datasets import Dataset
from jft.errors import UserError
from jft.evaluation import metrics, texts
from jft.evaluation.compiled import Reading
from jft.evaluation.generation import Generation
from jft.evaluation.stats import standard_error
from jft.runtime import records
from jft.runtime import workdir as workdir_lib
from jft.runtime.records import Key
from jft.tasks import (
    CHOICE,
    FORM_TASKS,
    INSTRUCTION,
    RETENTION_TASKS,
    TASKS,
    Example,
    answers_of,
    method,
)

# Sections of a config that say how a model is trained; keys of them that do not (the base is known
# by its weights); and keys that training with demonstrations changes: those that choose the
# demonstrations, and the room that they need.
RECIPE = ("model", "data", "train", "optim", "lora")
NO_RECIPE = ("model.path", "model.name", "data.seed")
OF_DEMONSTRATIONS = tuple(
    f"data.{name}"
    for name in (
        *("shots", "demos", "demo_mode", "demo_style", "demo_loss"),
        *("max_length", "row_length"),
    )
)


def cell_key(cell: Cell) -> Key:
    """Make the key that records of a cell have."""
    dataset = cell.dataset
    return Key(dataset.task.name, dataset.name, cell.shots, cell.prompt, cell.draw)


def model_name(config: config_lib.Config, ref: ModelRef) -> str:
    """Name a model in results: by `model.name`, or by how it was trained and on what."""
    if config.model.name:
        return config.model.name
    if ref.run is None:
        return Path(ref.path).stem if ref.path.endswith(".gguf") else Path(ref.path).name
    data = ref.run.data
    size = f"[:{data.examples}]" if data.examples else ""
    seed = f" seed {data.seed}" if data.seed else ""
    kind = " ".join(filter(None, (method(data.shots), _adapters(ref.run.lora))))
    return f"{kind} {train_title(data)}{size}{seed}"


def train_title(data: config_lib.Data) -> str:
    """Name the training sets of a model, such as `paws_train_2000 + chats_train`."""
    return " + ".join(DatasetRef.parse(name).title for name in data.train)


def _adapters(config: config_lib.Lora) -> str:
    """Name the kind of adapters that were trained, such as `LoRA-16 int8`; empty without any."""
    if not config.rank:
        return ""
    base = f" {config.base}" if config.base != "auto" else ""
    return f"{'DoRA' if config.dora else 'LoRA'}-{config.rank}{base}"


def model_record(config: config_lib.Config, ref: ModelRef, found: dict) -> dict:
    """Make the record of a scored model, `records.SCORED_MODEL`: what is true of all its cells.

    Args:
      config: of the evaluation.
      ref: the model.
      found: `step` and `model_sha256`, as they were before the model was loaded, and `bos`: whether
        its tokenizer puts a token before every text.

    Raises:
      UserError: a file of its training is damaged.
    """
    run, saved = ref.run, ref.record
    facts = {"model": model_name(config, ref), "model_path": ref.path} | found
    facts["chat"] = chat_setting(config) == "chat"
    facts |= {
        "base": saved.base if saved else ref.path,
        "base_sha256": saved.base_sha256 if saved else None,
    }
    if run is None:
        return dict.fromkeys(records.SCORED_MODEL.fields) | facts | {"adapters": ""}
    report = _data_report(ref.folder)
    return facts | {
        "steps": saved.steps if saved else None,
        "adapters": _adapters(run.lora),
        "train": run.data.train[0] if len(run.data.train) == 1 else train_title(run.data),
        "train_task": " + ".join(dict.fromkeys(task for task, _ in training_sets(ref) or ())),
        "train_shots": run.data.shots,
        "train_seed": run.data.seed,
        "train_examples": report.get("rows_trained_on"),
        "recipe": _recipe(ref, report),
        "plain_recipe": _recipe(ref, report, OF_DEMONSTRATIONS),
    }


def _data_report(folder: Path) -> dict:
    """Read what a training says of its data; empty where that was deleted."""
    if not (folder / records.DATA_REPORT.name).exists():
        return {}
    return records.read(folder, records.DATA_REPORT)


def _recipe(ref: ModelRef, report: dict, without: Collection[str] = ()) -> str:
    """Hash what runs have in common that differ only in seed, machine, and the keys `without`."""
    assert ref.run
    assert ref.record
    keys = {
        path: value
        for path, field, value in config_lib.keys(ref.run)
        if path.partition(".")[0] in RECIPE and not field.metadata["runtime"]
        if path not in (*without, *NO_RECIPE)
    }
    return workdir_lib.sha256([keys, report.get("rows_sha256"), ref.record.base_sha256])[:16]


def answer_records(model: str, encoded: EncodedCell, scores: list[np.ndarray]) -> list[dict]:
    """Make a record for each item whose answers were scored; of equal scores the first wins.

    Of the labels of a task the likeliest is the prediction, of an item's choices the likeliest for
    its length in characters.

    Args:
      model: its name in results.
      encoded: the cell.
      scores: log-probabilities of each item's answers.

    Raises:
      UserError: a score that is not a number, which would make the first answer every prediction.
    """
    dataset, found = encoded.cell.dataset, []
    for i, (index, values) in enumerate(zip(encoded.indices, scores, strict=True)):
        example, sequences = dataset.examples[index], encoded.encoded[i].sequences
        answers, own = answers_of(dataset.task, example), dataset.task.kind == CHOICE
        if not np.isfinite(values).all():
            raise _not_finite(dataset, index, f"{values.tolist()} for {', '.join(answers)}")
        sizes = [len(answer) if own else 1 for answer in answers]
        prediction = answers[int((values / sizes).argmax())]
        found.append(
            _item(model, encoded, i, prediction)
            | {"scores": dict(zip(answers, values.tolist(), strict=True))}
            | {"correct": prediction == example["output"]}
            | ({"tokens": [len(s.tokens) - s.start for s in sequences]} if own else {})
        )
    return found


def text_records(
    model: str,
    encoded: EncodedCell,
    generations: list[Generation],
    max_new_tokens: int,
    answer_pattern: re.Pattern | None = None,
) -> list[dict]:
    """Make a record for each item that a text was generated for.

    Args:
      model: its name in results.
      encoded: the cell.
      generations: one for each item.
      max_new_tokens: the most tokens that were generated.
      answer_pattern: finds answers in generations, see `texts.matches`; None: nothing does.
    """
    dataset, found = encoded.cell.dataset, []
    for i, (index, each) in enumerate(zip(encoded.indices, generations, strict=True)):
        example = dataset.examples[index]
        record = _item(model, encoded, i, each.text, max_new_tokens)
        record |= {"generation": each.text, "cut": each.tokens == max_new_tokens}
        if dataset.task.kind == INSTRUCTION:
            record |= {"followed": rules.follows(each.text, example["checks"])}
        else:
            record |= _scored(each.text, example, answer_pattern)
        if each.reference is not None:
            if not math.isfinite(each.reference):
                raise _not_finite(dataset, index, f"{each.reference} for its reference")
            record |= {"logprob": each.reference, "bytes": encoded.encoded[i].num_bytes}
        found.append(record)
    return found


def _scored(text: str, example: Example, answer_pattern: re.Pattern | None) -> dict:
    """Compare a generation with the references of its item."""
    golds = [example["output"], *json.loads(example.get("golds", "[]"))]
    found: dict = {"golds": golds[1:]} if golds[1:] else {}
    if answer_pattern:
        found |= {"pattern": texts.matches(text, golds, answer_pattern)}
    return found | {"rougeL": max(texts.rouge_l(text, gold) for gold in golds)}


def reading_records(model: str, encoded: EncodedCell, readings: list[Reading]) -> list[dict]:
    """Make a record for each text that was read.

    Raises:
      UserError: a log-probability that is not a number.
    """
    dataset, found = encoded.cell.dataset, []
    for i, (index, each) in enumerate(zip(encoded.indices, readings, strict=True)):
        if not math.isfinite(each.logprob):
            raise _not_finite(dataset, index, f"{each.logprob} for a text")
        likeliest = [
            {"ids": list(of), "logprobs": [round(x, 5) for x in of.values()]}
            for of in each.likeliest
        ]
        of_text = {"logprob": each.logprob, "bytes": encoded.encoded[i].num_bytes}
        found.append(_item(model, encoded, i, "") | of_text | {"likeliest": likeliest})
    return found


def _not_finite(dataset: Dataset, index: int, what: str) -> UserError:
    return UserError(
        f"{dataset.where(index)}: the model gives {what}; its weights are damaged, or too large "
        "for model.dtype"
    )


def training_sets(ref: ModelRef) -> list[tuple[str, str]] | None:
    """Find the (task, name) of the sets that a model was trained on here; None for other models.

    Raises:
      UserError: a file of its training is damaged.
    """
    if ref.run is None:
        return None
    data, report = ref.run.data, _data_report(ref.folder)
    # A relative path may mean another folder by now, and rows may have a task by their form.
    if sets := report.get("sets"):
        return [(each["task"], each["dataset"]) for each in sets]
    if report.get("dataset"):
        return [(report.get("task") or data.task, report["dataset"])]
    refs = [DatasetRef.parse(name, "data.train", TASKS | FORM_TASKS) for name in data.train]
    return [(ref.task or data.task, ref.name) for ref in refs]


def cell_record(
    model: str,
    encoded: EncodedCell,
    items: list[dict],
    ref: ModelRef,
    relation: str,
    metric: str = "",
) -> dict:
    """Make the record of a cell from the records of its items.

    Args:
      model: its name in results.
      encoded: the cell.
      items: records of all its items.
      ref: the model.
      relation: of the test set to the training set.
      metric: the main one; empty: that of its kind.

    Raises:
      UserError: the metric has no value here.
    """
    cell, seen = encoded.cell, ref.trained_on
    dataset, counts = cell.dataset, encoded.counts
    own = dataset.task.name not in RETENTION_TASKS  # no training is on the tasks of the panel
    scored = [dataset.examples[i] for i in encoded.indices] if own else []
    return _identity(model, cell) | {
        "relation": relation,
        "chat": cell.chat,
        **_measures(items, dataset.task.kind, metric),
        "n": len(items),
        "skipped": encoded.skipped,
        "sequence_tokens": counts.sequence_tokens,
        "row_tokens": counts.row_tokens,
        "shortened": sum(each.shortened for each in encoded.encoded),
        "demos_among_items": len(checks.overlap(dataset.task, scored, cell.demos if own else ())),
        "items_trained_on": len(trained_on.among(dataset.task, scored, seen))
        if seen is not None
        else None,
    }


def cell_inputs(cell: Cell, limit: int, chat_template: str | None) -> dict:
    """Hash what the scores of a cell depend on besides model and config, to notice changes."""
    examples = cell.dataset.examples[: limit or None]
    prompt = [cell.template, cell.demos, *([chat_template] if cell.chat else [])]
    return {
        "rows_sha256": workdir_lib.sha256(examples),
        "prompt_sha256": workdir_lib.sha256(prompt),
    }


def _measures(items: list[dict], kind: str, main: str = "") -> dict:
    """Average all metrics over the items, and give the main one a place of its own."""
    measured, main = metrics.measure(items, kind), main or metrics.MAIN[kind]
    if main not in measured:
        place = f"{items[0]['task']}/{items[0]['dataset']}"
        what = metrics.METRICS[main].meaning
        raise UserError(f"eval.metric: {main} means nothing on {place}: it is the {what}")
    found = {name: _mean(values) for name, values in measured.items()}
    return {"metric": main} | found[main] | {"metrics": found}


def _mean(values: list[float]) -> dict:
    stderr = standard_error(values)
    return {"value": float(np.mean(values)), "stderr": None if math.isnan(stderr) else stderr}


def _item(
    model: str, encoded: EncodedCell, i: int, prediction: str, max_new_tokens: int = 0
) -> dict:
    """Make what records of labels and of texts have in common."""
    index = encoded.indices[i]
    return _identity(model, encoded.cell) | {
        "index": index,
        "request_sha256": _request_sha256(encoded.encoded[i], max_new_tokens),
        "output": encoded.cell.dataset.examples[index]["output"],
        "prediction": prediction,
    }


def _request_sha256(encoded: Encoded, max_new_tokens: int) -> str:
    """Hash what the model was asked: equal where data, template, demonstrations and limits are."""
    digest = hashlib.sha256()
    for sequence in encoded.sequences:
        sizes = [len(sequence.tokens), sequence.start, max_new_tokens]
        digest.update(np.array(sizes, "<i4").tobytes())
        digest.update(np.asarray(sequence.tokens, "<i4").tobytes())
    return digest.hexdigest()[:16]


def _identity(model: str, cell: Cell) -> dict:
    return {"model": model} | cell_key(cell)._asdict()
