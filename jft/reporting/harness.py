"""Reading of lm-evaluation-harness's result folders, written with `--log_samples`.

A folder holds `results_*.json` and, for each task, `samples_<task>_*.jsonl` with a line for each
document. Models are paired by document; of several runs in a folder the latest counts. There is no
telling what a model was trained on, so all tasks are of the retention panel's kind: what the base
could do before. A task's value is the mean over its documents, also of bits per byte, which the
harness weighs by their length.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from jft.errors import UserError
from jft.evaluation import metrics
from jft.evaluation.stats import standard_error
from jft.reporting.models import (
    FOREIGN,
    UNKNOWN,
    Evaluation,
    ModelName,
    ScoredCell,
    ScoredItem,
    ScoredModel,
)
from jft.runtime import workdir
from jft.runtime.progress import say
from jft.runtime.records import Key, is_number
from jft.tasks import RETENTION

SAMPLES = "samples_*.jsonl"
# Its metrics by the names of ours; the first of a task is its main one.
METRICS = {
    **{"acc_norm": metrics.CHOICES, "acc": "acc", "exact_match": "exact", "em": "exact"},
    **{"f1": "f1", "rougeL": metrics.ROUGE_L, "bits_per_byte": metrics.BITS},
}


def folders(root: Path) -> list[Path]:
    """Find the folders of results with samples in a folder and those inside it."""
    return sorted({file.parent.resolve() for file in root.rglob(SAMPLES)})


def read(found: Sequence[Path], base: Path | None) -> list[ScoredModel]:
    """Read the models scored in some folders, which `folders` found.

    Args:
      found: the folders.
      base: which of them, or the folder around it, holds the base; None: the first of them.

    Raises:
      UserError: files that are damaged, a metric that jft does not know, or no such base.
    """
    if not found:
        return []
    is_base = [
        base in (folder, *folder.parents) if base else not i for i, folder in enumerate(found)
    ]
    if not any(is_base):
        raise UserError(f"--base={base}: none of the folders of lm-evaluation-harness is in it")
    if base is None and len(found) > 1:
        say(
            f"note: of lm-evaluation-harness's models that in {found[0]} is the base; --base=DIR "
            "says which"
        )
    first = next(folder for folder, of_base in zip(found, is_base, strict=True) if of_base)
    reference = _model_name(first)
    return [
        _model(folder, reference, of_base) for folder, of_base in zip(found, is_base, strict=True)
    ]


def _model(folder: Path, reference: str, is_base: bool) -> ScoredModel:
    name, relation = _model_name(folder), "base" if is_base else RETENTION
    cells: dict[Key, ScoredCell] = {}
    for task, (stamp, file) in _latest(folder).items():
        found = _cell(task, file, _shots(folder, stamp, task), relation)
        cells |= {found.key: found} if found else {}
    if not cells:
        raise UserError(f"{folder}: none of its tasks has a metric that jft knows")
    evaluation = Evaluation(list(cells), {}, [])
    return ScoredModel(
        name=name,
        own_name=ModelName(name),
        path=str(folder),
        step=0,
        steps=None,
        base=reference,
        base_sha256=f"{FOREIGN} {reference}",
        train=None,
        train_task=None,
        train_shots=0,
        seed=0,
        adapters="",
        examples=None,
        recipe_id=name,
        plain_recipe_id=None,
        sha256=f"{FOREIGN} {name}",
        evaluations={str(folder): evaluation},
        run=None,
        cells=cells,
    )


def _latest(folder: Path) -> dict[str, tuple[str, Path]]:
    """Find the last samples of each task, with their time, in which files' names end."""
    found = {}
    for file in sorted(folder.glob(SAMPLES)):
        task, _, stamp = file.stem.removeprefix("samples_").rpartition("_")
        found[task] = stamp, file
    return found


def _results(folder: Path) -> dict:
    files = sorted(folder.glob("results*.json"))
    if not files:
        raise UserError(f"{folder}: holds samples but no results*.json of lm-evaluation-harness")
    found = workdir.read_json(files[-1])
    if not isinstance(found, dict):
        raise UserError(f"{files[-1]}: must be an object, not {type(found).__name__}")
    return found


def _model_name(folder: Path) -> str:
    results = _results(folder)
    return str(results.get("model_name") or folder.name)


def _shots(folder: Path, stamp: str, task: str) -> int:
    """Find a task's number of demonstrations in the results of the same time, or else the last."""
    file = folder / f"results_{stamp}.json"
    results = workdir.read_json(file) if file.exists() else _results(folder)
    numbers = results.get("n-shot") if isinstance(results, dict) else None
    number = numbers.get(task) if isinstance(numbers, dict) else None
    return number if isinstance(number, int) else 0


def _cell(task: str, file: Path, shots: int, relation: str) -> ScoredCell | None:
    """Read a task's samples; of several ways to take answers out of outputs the first counts.

    None, with a note, for a task without a metric that jft knows.
    """
    samples: dict[str, list[tuple[str, dict]]] = {}
    for number, sample in enumerate(_lines(file), start=1):
        where = f"{file} line {number}"
        if not isinstance(sample, dict) or not isinstance(sample.get("doc_id"), int):
            raise UserError(f"{where}: is no sample of lm-evaluation-harness, with a doc_id")
        samples.setdefault(str(sample.get("filter", "none")), []).append((where, sample))
    if not samples:
        raise UserError(f"{file}: holds no samples; run {task} again, or remove the file")
    (name, lines), *others = samples.items()
    if others:
        say(f"note: {task}: of the filters {', '.join(samples)} the report takes {name}")
    measured = {m: [_value(where, sample, m) for where, sample in lines]
                for m in METRICS if all(m in sample for _, sample in lines)}  # fmt: skip
    values = {
        m: [value for value in of if value is not None]
        for m, of in measured.items()
        if None not in of
    }
    if not values:
        say(f"note: the report leaves out {task}: it has none of {', '.join(METRICS)} from 0 to 1")
        return None
    main, *further = values
    items = {
        sample["doc_id"]: ScoredItem(
            request=f"{sample.get('doc_hash', '')} {sample.get('prompt_hash', '')}",
            gold=str(sample.get("target")),
            prediction=_prediction(where, sample, by_length=main == "acc_norm"),
            value=value,
        )
        for (where, sample), value in zip(lines, values[main], strict=True)
    }
    if len(items) < len(lines):
        raise UserError(f"{file}: {task} has a document twice; run it again")
    return ScoredCell(
        key=Key(FOREIGN, task, shots, 0, 0),
        metric=METRICS[main],
        relation=relation,
        value=math.fsum(values[main]) / len(lines),
        stderr=standard_error(values[main]),
        n=len(lines),
        skipped=0,
        cautions=dict.fromkeys(("shortened", "demos_among_items", "items_trained_on"), UNKNOWN),
        items=items,
        measures={METRICS[metric]: values[metric] for metric in further},
    )


def _lines(file: Path) -> list[dict]:
    try:
        return workdir.read_jsonl(file)
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8: {error}") from None


def _value(where: str, sample: dict, metric: str) -> float | None:
    """Read a metric of a document; None where it lies beyond what jft knows of it.

    Raises:
      UserError: no number, or for bits per byte no log-probability with a number of bytes.
    """
    value = sample[metric]
    if metric == "bits_per_byte":
        if isinstance(value, list) and len(value) == 2 and all(map(is_number, value)):
            logprob, size = map(float, value)
            if logprob <= 0 < size:
                return -logprob / size / math.log(2)
        raise UserError(f"{where}: {metric}={value!r:.80}; must be [log-probability, bytes]")
    if isinstance(value, list):  # of parts of a document
        return None
    if not is_number(value):
        raise UserError(f"{where}: {metric}={value!r:.80}; must be a number")
    return float(value) if 0 <= value <= 1 else None


def _prediction(where: str, sample: dict, by_length: bool) -> str:
    """Name the answer: the number of the likeliest choice, or the text that was taken for it.

    Args:
      where: begins messages.
      sample: a document.
      by_length: whether choices are compared by log-probability per character.
    """
    answers = sample.get("filtered_resps")
    if not isinstance(answers, list) or not answers:
        raise UserError(f"{where}: filtered_resps={answers!r:.80}; must be a list of answers")
    if len(answers) == 1 or not all(isinstance(a, list) and len(a) == 2 for a in answers):
        return answers[0] if isinstance(answers[0], str) else json.dumps(answers[0])
    arguments, lengths = sample.get("arguments"), [1] * len(answers)
    if by_length and isinstance(arguments, dict) and len(arguments) == len(answers):
        asked = (each.get("arg_1") if isinstance(each, dict) else "" for each in arguments.values())
        lengths = [max(1, len(str(text).strip())) for text in asked]
    try:
        scores = [float(each[0]) / n for each, n in zip(answers, lengths, strict=True)]
    except (TypeError, ValueError):
        message = f"{where}: filtered_resps={answers!r:.80}; must hold log-probabilities"
        raise UserError(message) from None
    return str(scores.index(max(scores)))
