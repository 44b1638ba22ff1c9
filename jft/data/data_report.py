"""`data_report.json`: the data of a training run or of an evaluation in numbers, with findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict

import numpy as np

from jft import config as config_lib
from jft.data import checks, length_checks, prefix_tree, token_checks
from jft.data.checks import DataFinding
from jft.data.datasets import Dataset, Suite, suite
from jft.data.eval_batches import PackedCell, max_length
from jft.data.length_checks import LengthLimit, PromptLength
from jft.data.packed import PackedRows
from jft.data.token_checks import SpellingEncoder
from jft.data.train_batches import Batches, examples_of, steps_left_out
from jft.errors import UserError
from jft.runtime import workdir as workdir_lib
from jft.tasks import RETENTION_TASKS, Example, Task


def training_report(
    batches: Batches, source: Suite, config: config_lib.Config, tokenizer: SpellingEncoder
) -> dict:
    """Report findings, examples, lengths and packing of a training run, ready for JSON.

    Raises:
      UserError: examples that make the run meaningless.
    """
    dataset, data = batches.dataset, config.data
    demos = source.demos(dataset.task, data.demos or dataset.name, data.shots)
    if data.demo_mode == "fixed":
        demos = demos[: data.shots]
    items = _items(batches)
    sequences = [batches.encoded[i].sequences[0] for i in items]
    template = source.template(dataset.task, data.prompt)
    findings = [
        *checks.check_examples(dataset),
        *checks.demonstrations_in_training(dataset, demos),
        *checks.demonstrations_alike(dataset, demos),
        *(
            each
            for test in _test_sets(source)
            for each in checks.test_items_in_training(test, dataset)
        ),
        *_check_tokens(dataset, demos, tokenizer),
        *_check_template(template, data.prompt, data.shots, source, tokenizer, dataset.task),
        *token_checks.trained_blank_lines(dataset),
        *token_checks.missing_values(dataset),
        *token_checks.unknown_tokens(
            dataset, {batches.examples[i]: batches.encoded[i] for i in items}, tokenizer
        ),
        *token_checks.merged_answers(
            dataset, [(batches.examples[i], batches.encoded[i].merged) for i in items]
        ),
        *_check_training_lengths(batches, items, data),
        *_check_steps(batches, config.train),
    ]
    return {
        "file": dataset.source,
        "dataset": dataset.name,
        "sha256": batches.sha256(),
        # The same in whatever order the run takes the examples, with whatever demonstrations.
        "rows_sha256": workdir_lib.sha256([template, dataset.examples]),
        "findings": [asdict(finding) for finding in findings],
        **_count_examples(dataset, findings),
        "rows_trained_on": len(trained_examples(batches)),
        "lengths": _summary([len(sequence.tokens) for sequence in sequences]),
        "target_lengths": _summary([len(s.tokens) - s.start for s in sequences]),
        "shortened_inputs": _count(findings, "shortened_inputs"),
        "answers_cut": _count(findings, "answers_cut"),
        "too_long": len(batches.unfit),
        "steps": batches.steps,
        "rows_per_step": sum(len(step.rows) for step in batches.packed) / batches.steps,
        **_packing(batches.packed),
    }


def trained_examples(batches: Batches) -> list[Example]:
    """List the distinct examples that a run is trained on."""
    indices = {batches.examples[i] for i in _items(batches)}
    return [batches.dataset.examples[i] for i in sorted(indices)]


def _items(batches: Batches) -> list[int]:
    """List the items that are in some row, which those that a new draw replaced are not."""
    return sorted({i for step in batches.packed for row in step.rows for i, _ in row})


def evaluation_report(
    model: str,
    cells: Sequence[PackedCell],
    config: config_lib.Config,
    trained: Collection[str] | None,
    tokenizer: SpellingEncoder,
    decisions: Sequence[DataFinding] = (),
) -> dict:
    """Report findings of a grid, its datasets and its cells in numbers, ready for JSON.

    Args:
      model: its name in results.
      cells: the whole grid.
      config: of the evaluation.
      trained: the hashes of what the model was trained on, from `trained_on.read_hashes`.
      tokenizer: the model's.
      decisions: from `eval_grid.tell_relations`.

    Raises:
      UserError: examples that make the scores meaningless.
    """
    of_dataset: dict[tuple[str, str], list[PackedCell]] = {}
    for packed in cells:
        dataset = packed.cell.dataset
        if dataset.task.name not in RETENTION_TASKS:
            of_dataset.setdefault((dataset.task.name, dataset.name), []).append(packed)
    parts = [
        _report_dataset(model, group, config, trained or (), tokenizer)
        for group in of_dataset.values()
    ]
    found = [*decisions, *(finding for findings, _ in parts for finding in findings)]
    return {
        "model": model,
        # Of datasets that share demonstrations or a template each is told once.
        "findings": [asdict(f) for i, f in enumerate(found) if f not in found[:i]],
        "datasets": [numbers for _, numbers in parts],
        "cells": [_report_cell(packed) for packed in cells],
    }


def _check_training_lengths(
    batches: Batches, items: list[int], data: config_lib.Data
) -> list[DataFinding]:
    dataset, limit = batches.dataset, LengthLimit(data.shots, data.max_length)
    lengths = [
        PromptLength(batches.examples[i], batches.encoded[i].whole, batches.encoded[i].length)
        for i in items
    ]
    return [
        *length_checks.unfit(dataset, batches.unfit, limit),
        *length_checks.shortened(dataset, lengths, limit),
        *length_checks.answers_cut(dataset, lengths, limit),
    ]


def _check_steps(batches: Batches, train: config_lib.Train) -> list[DataFinding]:
    if train.steps:
        return []
    usable = len(batches.dataset.usable) - len(batches.unfit)
    asked = examples_of(train.epochs, usable)
    return steps_left_out(batches.dataset, asked, batches.steps, train.batch_size)


def _check_tokens(
    dataset: Dataset, demos: Sequence[Example], tokenizer: SpellingEncoder
) -> list[DataFinding]:
    """Look for special tokens in examples, and for all defects in demonstrations."""
    where = f"demonstrations of {dataset.name}"
    shown = dataset._replace(source=where, own=True, examples=list(demos), left_out=[])
    return [
        *token_checks.special_tokens(dataset, tokenizer),
        *token_checks.special_tokens(shown, tokenizer),
        *(checks.check_shown(shown) if demos else ()),
        *token_checks.trained_blank_lines(shown),
    ]


def _report_dataset(
    model: str,
    cells: list[PackedCell],
    config: config_lib.Config,
    trained: Collection[str],
    tokenizer: SpellingEncoder,
) -> tuple[list[DataFinding], dict]:
    """Report findings of the cells of one dataset, each once, and its numbers."""
    dataset = cells[0].cell.dataset.first(config.eval.limit)
    demos = list({id(demo): demo for packed in cells for demo in packed.cell.demos}.values())
    worst = max(cells, key=lambda packed: sum(each.shortened for each in packed.encoded))
    fewest = max(cells, key=lambda packed: len(packed.unfit))
    key, longest = max_length(config)
    labels = [packed.encoded[0].sequences[0] for packed in cells if dataset.task.labels]
    to_end = any(label.tokens[-1] == tokenizer.eos_id for label in labels)
    findings = [
        *(checks.nested_labels(dataset) if to_end else ()),
        *checks.check_examples(dataset, "eval.limit"),
        *checks.demonstrations_among_items(dataset, demos),
        *checks.demonstrations_alike(dataset, demos),
        *checks.test_items_trained_on(dataset, trained, model),
        *_check_tokens(dataset, demos, tokenizer),
        *_check_templates(cells, config, tokenizer),
        *token_checks.missing_values(dataset),
        *token_checks.unknown_tokens(
            dataset, dict(zip(worst.indices, worst.encoded, strict=True)), tokenizer
        ),
        *token_checks.unreachable_outputs(dataset, tokenizer, config.eval.max_new_tokens),
        *length_checks.unfit(dataset, fewest.unfit, LengthLimit(fewest.cell.shots, longest, key)),
        *length_checks.shortened(
            dataset, _lengths(worst), LengthLimit(worst.cell.shots, longest, key)
        ),
    ]
    return findings, {
        "task": dataset.task.name,
        "dataset": dataset.name,
        "file": dataset.source,
        **_count_examples(dataset, findings),
        "demos_among_items": _count(findings, "demonstrations_among_items"),
        "items_trained_on": _count(findings, "test_items_trained_on"),
        "shortened_inputs": _count(findings, "shortened_inputs"),
        "lengths": _summary([encoded.length for packed in cells for encoded in packed.encoded]),
    }


def _lengths(packed: PackedCell) -> list[PromptLength]:
    pairs = zip(packed.indices, packed.encoded, strict=True)
    return [PromptLength(i, encoded.whole, encoded.length) for i, encoded in pairs]


def _check_templates(
    cells: list[PackedCell], config: config_lib.Config, tokenizer: SpellingEncoder
) -> list[DataFinding]:
    """Look at every template once, with the most shots that it is used with."""
    by_shots = sorted((packed.cell for packed in cells), key=lambda cell: cell.shots)
    of_prompt = {cell.prompt: cell for cell in by_shots}
    source = suite(config.data)
    return [
        finding
        for prompt, cell in of_prompt.items()
        for finding in _check_template(
            cell.template, prompt, cell.shots, source, tokenizer, cell.dataset.task
        )
    ]


def _check_template(
    text: str, prompt: int, shots: int, source: Suite, tokenizer: SpellingEncoder, task: Task
) -> list[DataFinding]:
    where = "data.template" if source.data.template else f"prompt_map.json prompt {prompt}"
    setting = source.data.answer_tokens
    return [
        *token_checks.template(text, where, shots, tokenizer),
        *token_checks.answers_apart(setting, tokenizer, task, text, where),
    ]


def _report_cell(packed: PackedCell) -> dict:
    cell = packed.cell
    return {
        "task": cell.dataset.task.name,
        "dataset": cell.dataset.name,
        "shots": cell.shots,
        "prompt": cell.prompt,
        "draw": cell.draw,
        "items": len(packed.indices),
        "shortened_inputs": sum(encoded.shortened for encoded in packed.encoded),
        "lengths": _summary([encoded.length for encoded in packed.encoded]),
        **_packing([packed]),
    }


def _count_examples(dataset: Dataset, findings: list[DataFinding]) -> dict:
    usable, own = dataset.usable, [each for each in findings if each.where == dataset.place]
    labels = Counter(dataset.examples[i]["output"] for i in usable) if dataset.task.labels else {}
    return {
        "rows": len(dataset.examples),
        "labels": dict(labels),
        "skipped": len(dataset.examples) - len(usable),
        "duplicates": _count(own, "duplicates"),
        "contradictory": _count(own, "contradictory_labels"),
        "empty_inputs": _count(own, "empty_inputs"),
    }


def _packing(packed: Sequence[PackedRows]) -> dict:
    """Report how full packed rows are, and what they would hold if nothing were shared."""
    rows = [sequences for each in packed for sequences in each.sequences]
    counts = prefix_tree.count(rows)
    size = sum(each.num_batches * each.shape.rows * each.shape.row_length for each in packed)
    return {
        "packed_rows": len(rows),
        "row_length": max(each.shape.row_length for each in packed),
        **counts._asdict(),
        "packing_efficiency": counts.row_tokens / size,
        "sharing_ratio": counts.sequence_tokens / counts.row_tokens,
        "target_share": counts.target_tokens / counts.row_tokens,
    }


def _count(findings: list[DataFinding], check: str) -> int:
    return sum(finding.count for finding in findings if finding.check == check)


def _test_sets(source: Suite) -> list[Dataset]:
    found = []
    for name in source.test_names(source.task):
        try:
            found.append(source.test_set(name))
        except UserError:
            continue  # the evaluation reports a broken test set; training does not need it
    return found


def _summary(values: list[int]) -> dict[str, float]:
    return {
        "min": int(np.min(values)),
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        "max": int(np.max(values)),
    }
