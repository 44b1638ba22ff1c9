"""`data_report.json` of a training run: its data in numbers, with findings."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import numpy as np

from jft import config as config_lib
from jft.data import checks, length_checks, report_numbers, token_checks
from jft.data.checks import DataFinding
from jft.data.length_checks import LengthLimit, PromptLength
from jft.data.prompting.prompter import is_chat
from jft.data.rows.datasets import Dataset, Suite
from jft.data.token_checks import SpellingEncoder
from jft.data.train_batches import Batches, examples_of, steps_left_out
from jft.errors import UserError
from jft.runtime import workdir as workdir_lib
from jft.tasks import Example, Task


def training_report(
    batches: Batches, source: Suite, config: config_lib.Config, tokenizer: SpellingEncoder
) -> dict:
    """Report findings, examples, lengths and packing of a training run, ready for JSON.

    Raises:
      UserError: examples that make the run meaningless.
    """
    used, data = _used(batches), config.data
    of_sets = [
        _check_set(batches, number, used[number], source, data, tokenizer)
        for number in range(len(batches.sets))
    ]
    found = [finding for findings, _ in of_sets for finding in findings]
    findings = [f for i, f in enumerate(found) if f not in found[:i]]
    findings += _check_steps(batches, config.train)
    counts = [numbers for _, numbers in of_sets]
    sequences = (s for items in used for i in items for s in batches.encoded[i].sequences)
    lengths = np.array([(len(s.tokens), len(s.tokens) - s.start) for s in sequences])
    first = batches.sets[0]
    return {
        "file": ", ".join(dataset.source for dataset in batches.datasets),
        "dataset": " + ".join(dataset.name for dataset in batches.datasets),
        "task": " + ".join(dict.fromkeys(d.task.name for d in batches.datasets)),
        "sha256": batches.sha256(),
        # The same in whatever order the run takes the examples, with whatever demonstrations.
        "rows_sha256": workdir_lib.sha256(
            [first.template, first.dataset.examples]
            if len(batches.sets) == 1
            else [[each.template, each.dataset.examples] for each in batches.sets]
        ),
        "findings": [asdict(finding) for finding in findings],
        **_sum_counts(counts),
        "sets": counts,
        "lengths": report_numbers.summary(lengths[:, 0]),
        "target_lengths": report_numbers.summary(lengths[:, 1]),
        "too_long": len(batches.unfit),
        "steps": batches.steps,
        "rows_per_step": sum(len(step.rows) for step in batches.packed) / batches.steps,
        **report_numbers.packing(batches.packed),
    }


def _check_set(
    batches: Batches,
    number: int,
    items: list[int],
    source: Suite,
    data: config_lib.Data,
    tokenizer: SpellingEncoder,
) -> tuple[list[DataFinding], dict]:
    """Report findings of a training set, and its numbers; `items` are those of the run."""
    dataset, template, demos, *_ = batches.sets[number]
    shown = demos[: data.shots] if data.demo_mode == "fixed" else demos
    chat, index = is_chat(data.chat, dataset.task), {i: batches.examples[i][1] for i in items}
    findings = [
        *checks.check_examples(dataset),
        *checks.demonstrations_in_training(dataset, shown),
        *checks.demonstrations_alike(dataset, shown),
        *(
            each
            for test in _test_sets(source, dataset.task)
            for each in checks.test_items_in_training(test, dataset)
        ),
        *report_numbers.check_tokens(dataset, shown, tokenizer, chat),
        *report_numbers.check_template(
            template, data.prompt, data.shots, source, tokenizer, dataset.task, chat
        ),
        *(() if chat else token_checks.trained_blank_lines(dataset)),
        *token_checks.missing_values(dataset),
        *token_checks.unknown_tokens(
            dataset, ((index[i], batches.encoded[i]) for i in items), tokenizer
        ),
        *(token_checks.prompts_unlike_turns if chat else token_checks.merged_answers)(
            dataset, [(index[i], batches.encoded[i].merged) for i in items]
        ),
        *_check_training_lengths(batches, number, items, data),
    ]
    return findings, {
        "task": dataset.task.name,
        "dataset": dataset.name,
        "file": dataset.source,
        "share": batches.shares[number],
        "examples": sum(batches.examples_by_set(step)[number] for step in range(batches.steps)),
        **report_numbers.count_examples(dataset, findings),
        "rows_trained_on": len(set(index.values())),
        "held_out": len(batches.held_out[number]),
        "shortened_inputs": report_numbers.number_found(findings, "shortened_inputs"),
        "answers_cut": report_numbers.number_found(findings, "answers_cut"),
    }


def _sum_counts(sets: list[dict]) -> dict:
    """Add up the numbers of all sets."""
    labels: Counter[str] = Counter()
    for each in sets:
        labels.update(each["labels"])
    names = (
        *("rows", "rows_trained_on", "skipped", "duplicates", "contradictory", "empty_inputs"),
        *("shortened_inputs", "answers_cut", "held_out"),
    )
    return {"labels": dict(labels)} | {name: sum(each[name] for each in sets) for name in names}


def trained_examples(batches: Batches) -> list[tuple[Task, list[Example]]]:
    """List the distinct examples that a run is trained on, by set, each with its task."""
    found = []
    for dataset, items in zip(batches.datasets, _used(batches), strict=True):
        indices = sorted({batches.examples[i][1] for i in items})
        found.append((dataset.task, [dataset.examples[i] for i in indices]))
    return found


def _used(batches: Batches) -> list[list[int]]:
    """List the items of each set that are in some row, which those drawn anew are not."""
    found: list[list[int]] = [[] for _ in batches.sets]
    for i in sorted({i for step in batches.packed for row in step.rows for i, _ in row}):
        found[batches.examples[i][0]].append(i)
    return found


def _check_training_lengths(
    batches: Batches, number: int, items: list[int], data: config_lib.Data
) -> list[DataFinding]:
    dataset, limit = batches.datasets[number], LengthLimit(data.shots, data.max_length)
    lengths = [
        PromptLength(batches.examples[i][1], batches.encoded[i].whole, batches.encoded[i].length)
        for i in items
    ]
    return [
        *length_checks.unfit(dataset, [i for n, i in batches.unfit if n == number], limit),
        *length_checks.shortened(dataset, lengths, limit),
        *length_checks.answers_cut(dataset, lengths, limit),
    ]


def _check_steps(batches: Batches, train: config_lib.Train) -> list[DataFinding]:
    if train.steps:
        return []
    held_out = sum(len(each) for each in batches.held_out)
    usable = sum(len(d.usable) for d in batches.datasets) - len(batches.unfit) - held_out
    asked = examples_of(train.epochs, usable)
    where = ", ".join(dataset.place for dataset in batches.datasets)
    return steps_left_out(where, asked, batches.steps, train.batch_size)


def _test_sets(source: Suite, task: Task) -> list[Dataset]:
    found = []
    for name in source.test_names(task):
        try:
            found.append(source.test_set(name))
        except UserError:
            continue  # the evaluation reports a broken test set; training does not need it
    return found
