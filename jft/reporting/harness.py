"""Reading of lm-evaluation-harness's result folders, written with `--log_samples`.

A folder holds `results_*.json` and, for each task, `samples_<task>_*.jsonl` with a line for each
document. Models are paired by document; of several runs in a folder the latest counts. There is no
telling what a model was trained on, so all tasks are of the retention panel's kind: what the base
could do before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from jft.errors import UserError
from jft.evaluation import metrics
from jft.evaluation.stats import standard_error
from jft.reporting.models import Evaluation, ModelName, ScoredCell, ScoredItem, ScoredModel
from jft.runtime import workdir
from jft.runtime.progress import say
from jft.runtime.records import Key
from jft.tasks import RETENTION

SAMPLES = "samples_*.jsonl"
TASK = "lm-eval"
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
    name, results = _model_name(folder), _results(folder)
    cells = dict(
        pair
        for task, file in _latest(folder).items()
        for pair in _cells(task, file, _shots(results, task), "base" if is_base else RETENTION)
    )
    evaluation = Evaluation(list(cells), {}, [])
    return ScoredModel(
        name=name,
        own_name=ModelName(name),
        path=str(folder),
        step=0,
        steps=None,
        base=reference,
        base_sha256=f"{TASK} {reference}",
        train=None,
        train_task=None,
        train_shots=0,
        seed=0,
        adapters="",
        examples=None,
        recipe_id=name,
        plain_recipe_id=None,
        sha256=f"{TASK} {name}",
        evaluations={str(folder): evaluation},
        run=None,
        cells=cells,
    )


def _latest(folder: Path) -> dict[str, Path]:
    """Find the last samples of each task, whose files' names end in their time."""
    found = {}
    for file in sorted(folder.glob(SAMPLES)):
        found[file.stem.removeprefix("samples_").rpartition("_")[0]] = file
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


def _shots(results: dict, task: str) -> int:
    number = (results.get("n-shot") or {}).get(task)
    return number if isinstance(number, int) else 0


def _cells(task: str, file: Path, shots: int, relation: str) -> list[tuple[Key, ScoredCell]]:
    """Read a task's samples; of several ways to take answers out of outputs the first counts."""
    samples: dict[str, list[tuple[str, dict]]] = {}
    for number, sample in enumerate(_lines(file), start=1):
        where = f"{file} line {number}"
        if not isinstance(sample, dict) or not isinstance(sample.get("doc_id"), int):
            raise UserError(f"{where}: is no sample of lm-evaluation-harness, with a doc_id")
        samples.setdefault(str(sample.get("filter", "none")), []).append((where, sample))
    for name, lines in list(samples.items())[:1]:
        if len(samples) > 1:
            say(f"note: {task}: of the filters {', '.join(samples)} the report takes {name}")
        return [_cell(task, lines, shots, relation)]
    return []


def _lines(file: Path) -> list[dict]:
    try:
        return workdir.read_jsonl(file)
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8: {error}") from None


def _cell(
    name: str, lines: list[tuple[str, dict]], shots: int, relation: str
) -> tuple[Key, ScoredCell]:
    where, first = lines[0]
    known = [metric for metric in METRICS if metric in first]
    if not known:
        raise UserError(
            f"{where}: {name} has none of the metrics that jft knows: {', '.join(METRICS)}; leave "
            "the task out"
        )
    key = Key(TASK, name, shots, 0, 0)
    values = {m: [_value(place, sample, m) for place, sample in lines] for m in known}
    main = values.pop(known[0])
    items = {
        sample["doc_id"]: ScoredItem(
            request=f"{sample.get('doc_hash', '')} {sample.get('prompt_hash', '')}",
            gold=str(sample.get("target")),
            prediction=_prediction(sample, by_length=known[0] == "acc_norm"),
            value=value,
        )
        for (_, sample), value in zip(lines, main, strict=True)
    }
    if len(items) < len(lines):
        raise UserError(f"{where}: {name} has a document twice in one file; run it again")
    n, mean = len(main), math.fsum(main) / len(main)
    cautions = dict.fromkeys(("shortened", "demos_among_items", "items_trained_on"), -1)
    measures = {METRICS[metric]: of for metric, of in values.items()}
    metric, error = METRICS[known[0]], standard_error(main)
    return key, ScoredCell(key, metric, relation, mean, error, n, 0, cautions, items, measures)


def _value(where: str, sample: dict, metric: str) -> float:
    value = sample.get(metric)
    if metric == "bits_per_byte" and isinstance(value, list) and len(value) == 2:
        logprob, size = value
        value = -logprob / size / math.log(2) if size else None
    if isinstance(value, bool | int | float) and math.isfinite(value):
        bounded = metrics.METRICS[METRICS[metric]].unit == ""
        if 0 <= value <= 1 or not bounded:
            return float(value)
    raise UserError(f"{where}: {metric}={sample.get(metric)!r}; must be a number from 0 to 1")


def _prediction(sample: dict, by_length: bool) -> str:
    """Name the answer: the number of the likeliest choice, or the text that was taken for it.

    Args:
      sample: a document.
      by_length: whether choices are compared by log-probability per character.
    """
    answers = sample.get("filtered_resps") or [""]
    if all(isinstance(each, list) and len(each) == 2 for each in answers) and len(answers) > 1:
        arguments = list((sample.get("arguments") or {}).values())
        lengths = [1] * len(answers)
        if by_length and len(arguments) == len(answers):
            lengths = [max(1, len(str(each.get("arg_1", "")).strip())) for each in arguments]
        scores = [float(each[0]) / n for each, n in zip(answers, lengths, strict=True)]
        return str(scores.index(max(scores)))
    return json.dumps(answers[0]) if not isinstance(answers[0], str) else answers[0]
