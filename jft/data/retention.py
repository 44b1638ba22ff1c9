"""The retention panel: small sets that show what any model can do, whatever it is tuned on.

Test sets of other tasks may be too hard for a base, which then has nothing to lose on them. Here
every language model has: it predicts general text, tells which of four endings makes sense, and
follows some plain instructions. Every evaluation scores them; `eval.retention` says which, and puts
rows of the user's own in their place.

    text           {"text": ...}, one set for each kind of text, or for each file of the user's
    prompts        the prompts of the evaluation's own test sets, as texts
    choice         {"input": ..., "choices": [...], "answer": its index, letter or text}
    instruction    {"input": ..., "checks": [rules, see `rules`], "output": a right answer}
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from jft.data import rules
from jft.data.prompting.prompts import fill
from jft.data.rows import choices, readers
from jft.data.rows.dataset_ref import DatasetRef
from jft.data.rows.own_rows import LONE_SURROGATE, Dataset
from jft.errors import UserError
from jft.tasks import PROMPTS, RETENTION_TASKS, TEXT, Example, Task

FOLDER = Path(__file__).parent / "retention"
KEY = "eval.retention"
# Rows of each test set whose prompts are read.
NUM_PROMPTS = 12
# Base models follow an instruction better after they have seen how it is done.
INSTRUCTION = "Instruction: {input}\nAnswer:"
INSTRUCTION_DEMOS: tuple[Example, ...] = (
    {"input": "Name the capital of Italy.", "output": " Rome"},
    {"input": "Write one short sentence about rain.", "output": " The rain fell on the roof."},
    {"input": "List two animals, separated by a comma.", "output": " horse, sheep"},
)


class RetentionSet(NamedTuple):
    """A set of the panel, and how it is asked."""

    dataset: Dataset
    template: str
    demos: tuple[Example, ...]


class Asked(NamedTuple):
    """A test set of the evaluation, with the template of its prompts."""

    dataset: Dataset
    template: str


def retention_sets(parts: Iterable[str], asked: Iterable[Asked]) -> list[RetentionSet]:
    """Read the parts of the panel that `eval.retention` names.

    Args:
      parts: names of parts; those but `prompts` may have `:` and a file of rows after them.
      asked: the test sets of the evaluation, of which `prompts` are taken.

    Raises:
      UserError: no such part, or rows that are not of its form.
    """
    found: dict[tuple[str, str], RetentionSet] = {}
    for part in parts:
        name, _, place = part.partition(":")
        if name not in PARTS or (place and name == "prompts"):
            known = ", ".join(PARTS)
            raise UserError(f"{KEY}={part}: is one of {known}, or one of these with :rows.jsonl")
        sets = _prompts(asked) if name == "prompts" else _read(name, place)
        for each in sets:
            key = each.dataset.task.name, each.dataset.name
            if key in found:
                raise UserError(f"{KEY}={part}: {each.dataset.name} stands there twice")
            found[key] = each
    return list(found.values())


def _read(part: str, place: str) -> list[RetentionSet]:
    task, convert = PARTS[part]
    if place:
        ref = DatasetRef.parse(place, KEY)
        if not ref.is_own:
            formats = ", ".join(readers.FORMATS)
            raise UserError(f"{KEY}={part}:{place}: rows come as {formats}, hf: or tfds:")
        rows = [row for part in ref.read() for row in part.rows]
        files = [(ref.name, ref.text, rows)]
    else:
        paths = sorted((FOLDER / part).glob("*.json"))
        files = [(path.stem, str(path), list(readers.read_file(path, KEY))) for path in paths]
    return [_set(task, convert, *file, own=bool(place)) for file in files]


def _set(
    task: Task, convert: Callable, name: str, source: str, raw: list, own: bool
) -> RetentionSet:
    dataset = Dataset(name, task, source, own, [])
    examples = [convert(each, dataset.where(i)) for i, each in enumerate(raw)]
    dataset = dataset._replace(examples=examples)
    if task.scored == TEXT:
        return RetentionSet(dataset, "", ())
    if "checks" in task.fields:
        return RetentionSet(dataset, INSTRUCTION, INSTRUCTION_DEMOS)
    return RetentionSet(dataset, "{input}", ())


def _prompts(asked: Iterable[Asked]) -> list[RetentionSet]:
    """Make texts of the prompts of test sets, without demonstrations."""
    sets = []
    for dataset, template in asked:
        texts = [{"output": fill(template, each)} for each in dataset.examples[:NUM_PROMPTS]]
        name = f"{dataset.task.name}/{dataset.name}"
        texts_set = Dataset(name, RETENTION_TASKS[PROMPTS], dataset.source, dataset.own, texts)
        sets.append(RetentionSet(texts_set, "", ()))
    return sets


def _text(row: object, where: str) -> Example:
    return {"output": _field(row, "text", where)}


def _choice(row: object, where: str) -> Example:
    question, texts = _field(row, "input", where), _list(row, "choices", where)
    assert isinstance(row, dict)
    example = choices.read_choices(row | {"input": question, "choices": texts}, where).by_text()
    return example | {"choices": "\n".join(texts)}  # as results of older versions have it


def _instruction(row: object, where: str) -> Example:
    question, checks = _field(row, "input", where), _list(row, "checks", where)
    assert isinstance(row, dict)
    if not checks:
        raise UserError(f"{where}: checks=[]: must be a list of rules")
    for each in checks:
        rules.check_rule(each, where)
    output = _field(row, "output", where) if row.get("output") else ""
    return {"input": question, "checks": "\n".join(checks), "output": output}


def _list(row: object, name: str, where: str) -> list[str]:
    """Read a list of texts, each on one line; CSV has no lists, and holds it as JSON."""
    value = row.get(name) if isinstance(row, dict) else None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UserError(f"{where}: {name}={value!r:.80}: must be a list of texts (in CSV, of JSON)")
    for each in value:
        _check_text(each, name, where)
    return [" ".join(each.split()) for each in value]


def _field(row: object, name: str, where: str) -> str:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {name}={value!r:.80}: must be text")
    _check_text(value, name, where)
    return value.rstrip()


def _check_text(value: str, name: str, where: str) -> None:
    if found := LONE_SURROGATE.search(value):
        raise UserError(
            f"{where}: {name} holds {found[0]!r}, half of a character; save it as UTF-8 again"
        )


# Each part with its task, and what makes an example of a row.
PARTS: dict[str, tuple[Task, Callable[[object, str], Example]]] = {
    "text": (RETENTION_TASKS["general text"], _text),
    "prompts": (RETENTION_TASKS[PROMPTS], _text),
    "choice": (RETENTION_TASKS["multiple choice"], _choice),
    "instruction": (RETENTION_TASKS["instructions"], _instruction),
}
