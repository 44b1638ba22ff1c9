"""The checks over a whole data root: every training set and test set of every task."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from jft.data import checks, settings
from jft.data.checks import Finding, Prompts
from jft.data.prompts import Encoder, Item, Prompter
from jft.data.sources import Dataset, Row, Suite, read
from jft.errors import UserError

# Numbers of demonstrations by task; a task that is missing has none.
Shots = Mapping[str, Sequence[int]]


def check_suite(
    source: Suite,
    tokenizer: Encoder | None = None,
    train_shots: Shots | None = None,
    test_shots: Shots | None = None,
    longest_prompt: int = 0,
) -> list[Finding]:
    """Every finding of a suite, once.

    Args:
      source: the suite; its sets and its demonstrations are checked whole.
      tokenizer: to measure lengths with; without one they are not looked at.
      train_shots: demonstrations with which training examples are measured.
      test_shots: the same for test items.
      longest_prompt: of test items, in tokens; 0: as `data.max_length`.

    Raises:
      UserError: a file that cannot be used.
    """
    findings = []
    for task in source.tasks.values():
        train, test = ([read(p, task) for p in source.files(task, k)] for k in ("train", "test"))
        for dataset in train:
            checks.trainable(dataset)
            findings += checks.rows(dataset)
            findings += checks.demonstrations_in_training(dataset, _demos(source, dataset))
        for dataset in test:
            findings += checks.rows(dataset)
            findings += checks.demonstrations_among_items(dataset, _demos(source, dataset))
            for training in train:
                findings += checks.test_items_in_training(dataset, training)
        if tokenizer:
            for sets, shots in ((train, train_shots or {}), (test, test_shots or {})):
                most = (sets is test and longest_prompt) or source.data.max_length
                for dataset, k in itertools.product(sets, shots.get(task.name, ())):
                    findings += _lengths(source, dataset, k, tokenizer, sets is train, most)
    return findings


def _lengths(
    source: Suite, dataset: Dataset, shots: int, tokenizer: Encoder, training: bool, most: int
) -> list[Finding]:
    """What is too long, or that the set cannot be used with so many demonstrations."""
    task, data, usable = dataset.task, source.data, dataset.usable
    try:
        name = _demos_name(source, dataset)
        setting = settings.setting(source, dataset, shots, data.prompt, demos=name)
        prompter = Prompter(tokenizer, task, setting.template, most, eos=training)
        answers = [
            (dataset.rows[i]["output"],) if training else task.labels or ("",) for i in usable
        ]
        measured = prompter.measure(
            [
                Item(dataset.rows[i], setting.demos, each, dataset.where(i))
                for i, each in zip(usable, answers, strict=True)
            ]
        )
    except UserError as error:
        n, text = len(dataset.rows), f"it cannot be used at {shots} shots: {error}"
        return [Finding("warning", "unusable", dataset.place, n, n, [], text)]
    key = "data.max_length" if training else "eval.max_length"
    prompts = Prompts(list(zip(usable, measured, strict=True)), shots, most, key)
    cut = checks.answers_cut(dataset, prompts) if training else []
    return [*checks.shortened(dataset, prompts), *cut]


def _demos(source: Suite, dataset: Dataset) -> list[Row]:
    """The demonstrations that may stand before a set; none where the suite has none for it."""
    found = source.demo_set(dataset.task, _demos_name(source, dataset))
    return found.rows if found else []


def _demos_name(source: Suite, dataset: Dataset) -> str:
    asked = source.data.demos if dataset.task == source.task else ""
    return asked or dataset.name
