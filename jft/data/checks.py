"""What is wrong with data, before training and before scoring alike.

Each check gives one finding, or none. A warning bears on what the results mean; a note is worth
knowing. What would make a run meaningless is an error instead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jft.data import trained_on
from jft.data.datasets import Dataset, Example
from jft.data.prompts import Encoded
from jft.data.trained_on import inputs
from jft.errors import UserError
from jft.runtime.progress import say
from jft.tasks import Task

# Of the places where something was found, a finding lists this many.
MAX_INDICES = 20
# Warnings on the console.
MAX_LINES = 10
# A few labels outside the task's are noise; more, and the mapping of the labels is wrong.
MAX_UNLABELLED = 0.1
# What the number changes in the texts of findings.
VERBS = ("stand", "repeat", "count", "lose")
SINGULAR = {
    "are": "is",
    "have": "has",
    "their": "its",
    "them": "it",
    "demonstrations": "a demonstration",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a reader of the results should know.

    Attributes:
      severity: `warning` or `note`.
      check: what was looked for.
      where: the dataset.
      count: how often it was found.
      of: among how many.
      indices: of the first of these rows, from 0.
      text: a sentence with the consequence and the remedy.
    """

    severity: str
    check: str
    where: str
    count: int
    of: int
    indices: list[int]
    text: str


class Prompts(NamedTuple):
    """Rows as sequences.

    Attributes:
      lengths: (row, tokens with the whole input); a row may come more than once.
      shots: demonstrations before each.
      max_length: that they have to fit.
      key: of the config that says so.
    """

    lengths: list[tuple[int, int]]
    shots: int
    max_length: int
    key: str = "data.max_length"


def say_warnings(findings: Sequence[Mapping], file: str) -> None:
    """Print the first warnings of a report, one line each; `file` holds the others."""
    warnings = [finding for finding in findings if finding["severity"] == "warning"]
    for finding in warnings[:MAX_LINES]:
        say(f"warning: {finding['where']}: {finding['text']}")
    if len(warnings) > MAX_LINES:
        say(f"and {len(warnings) - MAX_LINES} more in {file}")


def rows(dataset: Dataset) -> list[Finding]:
    """What is wrong with rows in themselves: labels, empty inputs, duplicates, contradictions.

    Raises:
      UserError: no row has any text in its inputs.
    """
    return [
        *_without_label(dataset),
        *_empty(dataset),
        *_found(
            "duplicates",
            dataset,
            duplicates(dataset),
            "{n} of {of} rows {repeat} an earlier one, output included, and so {count} more than "
            "once; remove the copies",
        ),
        *_found(
            "contradictory_labels",
            dataset,
            contradictory(dataset),
            "{n} of {of} rows {have} the inputs of another row and a different label, so that no "
            "model can be right on both; keep one of each",
        ),
    ]


def demonstrations_among_items(dataset: Dataset, demos: Sequence[Example]) -> list[Finding]:
    """Test items that stand among the demonstrations before them."""
    text = (
        "{n} of {of} test items {are} also {demonstrations}, so that {their} prompts hold the "
        "answer and scores with demonstrations are too high; leave {them} out, or set data.demos "
        "to others"
    )
    found = overlap(dataset.task, dataset.rows, demos)
    return _items("demonstrations_among_items", dataset, found, text)


def demonstrations_in_training(dataset: Dataset, demos: Sequence[Example]) -> list[Finding]:
    """Training rows that stand among the demonstrations."""
    text = (
        "{n} of {of} training rows {are} also {demonstrations}: none is its own demonstration, but "
        "the model learns answers that it is also shown; remove {them}, or set data.demos to others"
    )
    found = overlap(dataset.task, dataset.rows, demos)
    return _found("demonstrations_in_training", dataset, found, text)


def test_items_in_training(test: Dataset, training: Dataset) -> list[Finding]:
    """Test items whose inputs stand in the training set."""
    text = (
        "{n} of {of} test items {stand} in {training}, so that scores after training on it tell "
        "what was memorized; remove them from one of the two"
    )
    found = overlap(test.task, test.rows, [training.rows[i] for i in training.usable])
    return _items("test_items_in_training", test, found, text, training=training.place)


def test_items_trained_on(test: Dataset, trained: Collection[str], model: str) -> list[Finding]:
    """Test items that a run was trained on; `trained` is what `trained_on.read` gives."""
    text = (
        "{model} was trained on {n} of {of} test items, so that its scores tell what it memorized; "
        "leave {them} out, or train again without {them}"
    )
    found = trained_on.among(test.task, test.rows, trained)
    return _items("test_items_trained_on", test, found, text, model=model)


def shortened(dataset: Dataset, prompts: Prompts) -> list[Finding]:
    """Inputs that lost their end to fit."""
    text = (
        "{n} of {of} inputs {at} {lose} {their} end to fit {key}={max_length}, so that the model "
        "does not see it; raise that{or_fewer}"
    )
    found = {i for i, length in prompts.lengths if length > prompts.max_length}
    return _prompts("shortened_inputs", "warning", dataset, found, prompts, text)


def answers_cut(dataset: Dataset, prompts: Prompts) -> list[Finding]:
    """Training examples whose answer would be cut if sequences lost their end, not their input."""
    text = (
        "{n} of {of} examples {at} would lose part of {their} answer if sequences were cut at "
        "data.max_length={max_length}, as is common; jft shortens the input instead, so nothing "
        "need be done"
    )
    # The last of the tokens is the end of sequence, no part of the answer.
    found = {i for i, length in prompts.lengths if length - 1 > prompts.max_length}
    return _prompts("answers_cut", "note", dataset, found, prompts, text)


def trainable(dataset: Dataset) -> list[int]:
    """Indices of the rows to train on: those with a label of the task.

    Raises:
      UserError: more than a tenth have none.
    """
    usable = dataset.usable
    total = len(dataset.rows)
    if total - len(usable) > MAX_UNLABELLED * total:
        task = dataset.task
        raise UserError(
            f"{dataset.source}: {total - len(usable)} of {total} outputs are no label of task "
            f"{task.name} ({_foreign_labels(dataset)}), which are {', '.join(task.labels)}; in "
            f"rows of your own, map them with data.labels, such as VALUE={task.labels[0]}"
        )
    return usable


def check_tokens(encoded: list[Encoded], vocab_size: int, max_positions: int, model: str) -> None:
    """See that a model can take the sequences; say so where they are longer than it was made for.

    Raises:
      UserError: a token id that it has no embedding for.
    """
    sequences = [sequence.tokens for each in encoded for sequence in each.sequences]
    largest, longest = max(int(ids.max()) for ids in sequences), max(map(len, sequences))
    if largest >= vocab_size:
        raise UserError(
            f"model.path={model}: its tokenizer gives the id {largest}, but it has embeddings for "
            f"{vocab_size} tokens; the tokenizer is another model's"
        )
    if longest > max_positions:
        say(
            f"note: sequences of up to {longest} tokens, but {model} was made for {max_positions}; "
            "a lower data.max_length, or eval.max_length, shortens them"
        )


def overlap(task: Task, rows: Sequence[Example], others: Sequence[Example]) -> list[int]:
    """Indices of `rows` whose inputs also stand in `others`, white space aside."""
    known = {inputs(task, row) for row in others}
    return [i for i, row in enumerate(rows) if inputs(task, row) in known]


def duplicates(dataset: Dataset) -> list[int]:
    """Indices of the rows that have the inputs and the output of an earlier one."""
    seen, found = set(), []
    for i in dataset.usable:
        row = dataset.rows[i]
        key = (*inputs(dataset.task, row), row["output"])
        if key in seen:
            found.append(i)
        seen.add(key)
    return found


def contradictory(dataset: Dataset) -> list[int]:
    """Indices of the rows whose inputs stand with different labels; none for texts."""
    if not dataset.task.labels:
        return []
    keys = {i: inputs(dataset.task, dataset.rows[i]) for i in dataset.usable}
    labels = defaultdict(set)
    for i, key in keys.items():
        labels[key].add(dataset.rows[i]["output"])
    return [i for i, key in keys.items() if len(labels[key]) > 1]


def empty(dataset: Dataset) -> list[int]:
    """Indices of the rows of which an input has no text."""
    return [i for i, row in enumerate(dataset.rows) if not all(inputs(dataset.task, row))]


def _without_label(dataset: Dataset) -> list[Finding]:
    text = (
        "{n} of {of} rows {have} no label of the task ({labels}) and {are} skipped; correct {them} "
        "in the file, or map {them} with data.labels"
    )
    left_out = sorted(set(range(len(dataset.rows))) - set(dataset.usable))
    return _found("labels_outside", dataset, left_out, text, labels=_foreign_labels(dataset))


def _empty(dataset: Dataset) -> list[Finding]:
    task, found = dataset.task, empty(dataset)
    fields = Counter(
        name for i in found for name in task.fields if not dataset.rows[i][name].strip()
    )
    blank = [name for name, count in fields.items() if count == len(dataset.rows)]
    if blank:
        raise UserError(
            f"{dataset.source}: {blank[0]!r} is empty in every row; say in data.fields which "
            f"column holds it, such as {blank[0]}=COLUMN"
        )
    text = (
        "{n} of {of} rows {have} nothing in {fields}, so that the answer has nothing to follow "
        "from; fill {them} in, or remove {them}"
    )
    return _found("empty_inputs", dataset, found, text, fields=" or ".join(fields))


def _foreign_labels(dataset: Dataset) -> str:
    """The most frequent outputs that are no label, with how often they stand there."""
    known = dataset.task.labels
    counts = Counter(row["output"] for row in dataset.rows if row["output"] not in known)
    shown = [f"{label[:40]!r}: {count}" for label, count in counts.most_common(5)]
    return ", ".join([*shown, "..."] if len(counts) > 5 else shown)


def _items(
    check: str, dataset: Dataset, found: list[int], text: str, **names: str
) -> list[Finding]:
    """Of the rows found, those that are scored."""
    usable = dataset.usable
    return _found(
        check, dataset, sorted(set(found) & set(usable)), text, among=len(usable), **names
    )


def _prompts(
    check: str, severity: str, dataset: Dataset, found: set[int], prompts: Prompts, text: str
) -> list[Finding]:
    plural = "" if prompts.shots == 1 else "s"
    return _found(
        check,
        dataset,
        sorted(found),
        text,
        severity,
        among=len({i for i, _ in prompts.lengths}),
        at=f"at {prompts.shots} shot{plural}",
        max_length=str(prompts.max_length),
        key=prompts.key,
        or_fewer=", or use fewer shots" if prompts.shots else "",
    )


def _found(
    check: str,
    dataset: Dataset,
    indices: list[int],
    text: str,
    severity: str = "warning",
    among: int = 0,
    **names: str,
) -> list[Finding]:
    """A finding if there are indices; the text's verbs and pronouns agree with their number."""
    if not indices:
        return []
    n, of = len(indices), among or len(dataset.rows)
    verbs = {verb: f"{verb}s" if n == 1 else verb for verb in VERBS}
    words = {word: single if n == 1 else word for word, single in SINGULAR.items()}
    sentence = text.format(n=n, of=of, **verbs, **words, **names)
    return [Finding(severity, check, dataset.place, n, of, indices[:MAX_INDICES], sentence)]
