"""Checks of examples, the same before training and before scoring; `token_checks` has more.

Each check returns one finding or none. A warning bears on what the results mean; a note is worth
knowing. What would make a run meaningless is an error instead.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jft.data import trained_on
from jft.data.rows.datasets import Dataset
from jft.errors import UserError
from jft.runtime.progress import say
from jft.tasks import FORM_TASKS, GENERATED, TASKS, Example, Task, same_text

# Indices of examples that a finding lists; warnings on the console.
MAX_INDICES, MAX_LINES = 20, 10
# Outputs that may be labels: so many at most, each so often at least, on average.
FEW_OUTPUTS, OFTEN = 10, 4
# A few labels outside the task's are noise; more, and the mapping of the labels is wrong.
MAX_UNLABELLED = 0.1


@dataclass(frozen=True, slots=True)
class DataFinding:
    """Something that a reader of the results should know of the data.

    Attributes:
      severity: `warning`, `note`, or `decision`: what was decided by a name alone.
      check: the name of the check.
      where: the dataset.
      count: the number of examples concerned.
      of: the number of examples looked at.
      indices: the first of those concerned, from 0.
      text: a sentence with the consequence and the remedy.
    """

    severity: str
    check: str
    where: str
    count: int
    of: int
    indices: list[int]
    text: str


def say_warnings(findings: Sequence[Mapping], file: str) -> None:
    """Print decisions and the first warnings of a report, a line each; `file` holds the others."""
    for finding in findings:
        if finding["severity"] == "decision":
            say(f"note: {finding['where']}: {finding['text']}")
    warnings = [finding for finding in findings if finding["severity"] == "warning"]
    for finding in warnings[:MAX_LINES]:
        say(f"warning: {finding['where']}: {finding['text']}")
    if len(warnings) > MAX_LINES:
        say(f"and {len(warnings) - MAX_LINES} more in {file}")


def check_examples(dataset: Dataset, limit: str = "data.examples") -> list[DataFinding]:
    """Check examples by themselves: labels, empty inputs, duplicates, contradictions.

    Args:
      dataset: the examples.
      limit: the config key that says how many are taken.

    Raises:
      UserError: no example has any text in its inputs.
    """
    return [
        *_read_as(dataset),
        *_without_label(dataset),
        *_labels_left_out(dataset, limit),
        *_few_outputs(dataset),
        *_empty(dataset),
        *finding(
            "duplicates",
            dataset,
            duplicates(dataset),
            "{n} of {of} rows [repeats|repeat] an earlier one, output included, and so "
            "[counts|count] more than once; remove the copies",
        ),
        *_contradictory(dataset),
    ]


def nested_labels(dataset: Dataset) -> list[DataFinding]:
    """Tell that labels are scored to their end, since one begins another: see `encode_labels`."""
    text = "a label begins another, so that all are scored with the end of sequence after them"
    return _decision("nested_labels", dataset, text)


def demonstrations_among_items(dataset: Dataset, demos: Sequence[Example]) -> list[DataFinding]:
    """Find test items that are also among the demonstrations in their prompts."""
    text = (
        "{n} of {of} test items [is also a demonstration|are also demonstrations], so that "
        "[its|their] prompts hold the answer and scores with demonstrations are too high; leave "
        "[it|them] out, or set data.demos to others"
    )
    found = overlap(dataset.task, dataset.examples, demos)
    return _found_items("demonstrations_among_items", dataset, found, text)


def demonstrations_in_training(dataset: Dataset, demos: Sequence[Example]) -> list[DataFinding]:
    """Find training examples that are also among the demonstrations."""
    text = (
        "{n} of {of} training rows [is also a demonstration|are also demonstrations]: none is its "
        "own demonstration, but the model learns answers that it is also shown; remove [it|them], "
        "or set data.demos to others"
    )
    found = overlap(dataset.task, dataset.examples, demos)
    return finding("demonstrations_in_training", dataset, found, text)


def demonstrations_alike(dataset: Dataset, demos: Sequence[Example]) -> list[DataFinding]:
    """Find that all demonstrations have one label, though there are enough for each label."""
    labels = {demo["output"] for demo in demos}
    if len(labels) != 1 or not 1 < len(dataset.task.labels) <= len(demos):
        return []
    text = (
        "all {n} demonstrations have the label {label}, which the model may then answer always; "
        "set data.demos to others"
    )
    shown = dataset._replace(examples=list(demos))
    return finding("demonstrations_alike", shown, [*range(len(demos))], text, label=labels.pop())


def check_shown(demos: Dataset) -> list[DataFinding]:
    """Check demonstrations by themselves.

    Raises:
      UserError: one has no label of the task, or none has any text in its inputs.
    """
    labelled(demos, most=0.0)
    return [*_contradictory(demos), *_empty(demos)]


def test_items_in_training(test: Dataset, training: Dataset) -> list[DataFinding]:
    """Find test items whose inputs are also in the training set."""
    text = (
        "{n} of {of} test items [stands|stand] in {training}, so that scores after training on it "
        "tell what was memorized; remove them from one of the two"
    )
    trained = [training.examples[i] for i in training.usable]
    found = overlap(test.task, test.examples, trained)
    return _found_items("test_items_in_training", test, found, text, training=training.place)


def test_items_trained_on(test: Dataset, trained: Collection[str], model: str) -> list[DataFinding]:
    """Find test items that a run was trained on, by the hashes of `trained_on.read_hashes`."""
    text = (
        "{model} was trained on {n} of {of} test items, so that its scores tell what it memorized; "
        "leave [it|them] out, or train again without [it|them]"
    )
    found = trained_on.among(test.task, test.examples, trained)
    return _found_items("test_items_trained_on", test, found, text, model=model)


def labelled(dataset: Dataset, most: float = MAX_UNLABELLED) -> list[int]:
    """Find the indices of the examples to train on or to score: those with a label of the task.

    Raises:
      UserError: more than a share of `most` have none.
    """
    usable = dataset.usable
    total = len(dataset.examples)
    if total - len(usable) > most * total:
        task = dataset.task
        alike = {same_text(label): label for label in task.labels}
        others = {example["output"] for example in dataset.examples} - {*task.labels}
        value = next((output for output in sorted(others) if same_text(output) in alike), "VALUE")
        label = alike.get(same_text(value), task.labels[0])
        remedy = f"in rows of your own, map them with data.labels, such as {value}={label}"
        if value != label == f" {value}":
            remedy = f"take the space before {value} out of data.labels"
        raise UserError(
            f"{dataset.source}: {total - len(usable)} of {total} outputs are no label of task "
            f"{task.name} ({_foreign_labels(dataset)}), which are {', '.join(task.labels)}; "
            f"{remedy}"
        )
    return usable


def overlap(task: Task, examples: Sequence[Example], others: Sequence[Example]) -> list[int]:
    """Find the indices of the examples whose inputs are also among `others`."""
    known = {task.inputs(example) for example in others}
    return [i for i, example in enumerate(examples) if task.inputs(example) in known]


def duplicates(dataset: Dataset) -> list[int]:
    """Find the indices of the examples that have the inputs and the output of an earlier one."""
    seen, found = set(), []
    for i in dataset.usable:
        example = dataset.examples[i]
        text = json.dumps([*dataset.task.inputs(example), example["output"]])
        key = hashlib.sha256(text.encode()).digest()  # of many rows the texts would fill memory
        if key in seen:
            found.append(i)
        seen.add(key)
    return found


def _contradictory(dataset: Dataset) -> list[DataFinding]:
    """Find inputs with several labels; outputs without labels cannot contradict each other."""
    if not dataset.task.labels:
        return []
    keys = {i: dataset.task.inputs(dataset.examples[i]) for i in dataset.usable}
    labels = defaultdict(set)
    for i, key in keys.items():
        labels[key].add(dataset.examples[i]["output"])
    several = [i for i, key in keys.items() if len(labels[key]) > 1]
    text = (
        "{n} of {of} rows [has|have] the inputs of another row and a different label, so that no "
        "model can be right on both; keep one of each"
    )
    return finding("contradictory_labels", dataset, several, text)


def _read_as(dataset: Dataset) -> list[DataFinding]:
    """Tell that a public name decided what columns and labels mean."""
    if not dataset.read_as:
        return []
    text = (
        f"read as the public dataset {dataset.read_as}; set data.fields and data.labels if that is "
        "wrong"
    )
    return _decision("read_as", dataset, text)


def _decision(check: str, dataset: Dataset, text: str) -> list[DataFinding]:
    """Make a finding that concerns all examples."""
    every = len(dataset.examples)
    return [DataFinding("decision", check, dataset.place, every, every, [], text)]


def _without_label(dataset: Dataset) -> list[DataFinding]:
    text = (
        "{n} of {of} rows [has|have] no label of the task ({labels}) and [is|are] skipped; correct "
        "[it|them] in the file, or map [it|them] with data.labels"
    )
    left_out = sorted(set(range(len(dataset.examples))) - set(dataset.usable))
    return finding("labels_outside", dataset, left_out, text, labels=_foreign_labels(dataset))


def _labels_left_out(dataset: Dataset, limit: str) -> list[DataFinding]:
    """Find that the rows taken have not all the labels that there are."""
    labels, usable = dataset.task.labels, dataset.usable
    taken = {dataset.examples[i]["output"] for i in usable}
    rest = {example["output"] for example in dataset.left_out}
    missing = [label for label in labels if label not in taken]
    if names := [label for label in missing if label in rest]:
        text = (
            "none of the {n} rows that {limit} takes, the first of the file, has the label "
            "{names}, which rows after them have; shuffle the file, or take more"
        )
    elif len(labels) > 1 and len(taken) == 1 and len(usable) > 1:
        names = [*taken]
        text = "all {n} rows have the label {names}; add rows with the others"
    elif (names := missing) and dataset.task.name not in TASKS:  # misspelt, perhaps
        text = "none of {n} rows has the label {names}; add some, or take it out of data.labels"
    else:
        return []
    shown = " or ".join(names)
    return finding("labels_left_out", dataset, usable, text, limit=limit, names=shown)


def _few_outputs(dataset: Dataset) -> list[DataFinding]:
    """Tell that outputs of a task of the user's own which look like labels are generated."""
    outputs = sorted({row["output"] for row in dataset.examples})
    few = 1 < len(outputs) <= min(FEW_OUTPUTS, len(dataset.examples) // OFTEN)
    generated = dataset.task.kind in GENERATED
    if not generated or dataset.task.name in (TASKS | FORM_TASKS) or not few:
        return []
    shown = ",".join(output[:40].replace(",", "\\,").replace("=", "\\=") for output in outputs)
    text = (
        f"outputs are generated as text, since data.labels is empty; if labels, set it to {shown}"
    )
    return _decision("few_outputs", dataset, text)


def _empty(dataset: Dataset) -> list[DataFinding]:
    task = dataset.task
    found = [i for i, each in enumerate(dataset.examples) if not all(task.inputs(each))]
    fields = Counter(
        name for i in found for name in task.fields if not same_text(dataset.examples[i][name])
    )
    blank = [name for name, count in fields.items() if count == len(dataset.examples)]
    if blank:
        raise UserError(
            f"{dataset.source}: {blank[0]!r} is empty in every row; say in data.fields which "
            f"column holds it, such as {blank[0]}=COLUMN"
        )
    text = (
        "{n} of {of} rows [has|have] nothing in {fields}, so that the answer has nothing to follow "
        "from; fill [it|them] in, or remove [it|them]"
    )
    return finding("empty_inputs", dataset, found, text, fields=" or ".join(fields))


def _foreign_labels(dataset: Dataset) -> str:
    """List the most frequent outputs that are no label, with their counts."""
    known, outputs = dataset.task.labels, [example["output"] for example in dataset.examples]
    counts = Counter(output for output in outputs if output not in known)
    shown = [f"{label[:40]!r}: {count}" for label, count in counts.most_common(5)]
    return ", ".join([*shown, "..."] if len(counts) > 5 else shown)


def _found_items(
    check: str, dataset: Dataset, found: list[int], text: str, **names: str
) -> list[DataFinding]:
    """Make a finding of those of the examples found that are scored."""
    usable = dataset.usable
    return finding(
        check, dataset, sorted(set(found) & set(usable)), text, among=len(usable), **names
    )


def finding(
    check: str,
    dataset: Dataset,
    indices: list[int],
    text: str,
    severity: str = "warning",
    among: int = 0,
    **names: str,
) -> list[DataFinding]:
    """Make a finding of the examples at some indices; none of none.

    Args:
      check: its name.
      dataset: where the indices point.
      indices: of the examples found.
      text: `{name}` stands for a value of `names`, `{n}` for the number found and `{of}` for that
        looked at; `[is|are]` for the first word where one is found, for the second where several.
      severity: `warning` or `note`.
      among: the number looked at; 0: all examples.
      **names: for the text.
    """
    if not indices:
        return []
    n, of = len(indices), among or len(dataset.examples)
    sentence = re.sub(r"\[(.*?)\|(.*?)\]", lambda words: words[1 if n == 1 else 2], text)
    sentence = sentence.format(n=n, of=of, **names)
    return [DataFinding(severity, check, dataset.place, n, of, indices[:MAX_INDICES], sentence)]
