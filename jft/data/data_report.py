"""`data_report.json`: the data of a training run or of an evaluation in numbers, with findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict

import numpy as np

from jft import config as config_lib
from jft.data import checks, prefix_tree
from jft.data.checks import DataFinding, PromptLengths
from jft.data.datasets import Dataset, Suite
from jft.data.eval_batches import PackedCell, max_length
from jft.data.packed import PackedRows
from jft.data.train_batches import Batches
from jft.errors import UserError
from jft.runtime import workdir as workdir_lib
from jft.tasks import Example


def training_report(batches: Batches, source: Suite, data: config_lib.Data) -> dict:
    """Report findings, examples, lengths and packing of a training run, ready for JSON.

    Raises:
      UserError: examples that make the run meaningless.
    """
    dataset, tests = batches.dataset, _test_sets(source)
    demos = source.demos(dataset.task, data.demos or dataset.name, data.shots)
    if data.demo_mode == "fixed":
        demos = demos[: data.shots]
    items = _items(batches)
    sequences = [batches.encoded[i].sequences[0] for i in items]
    lengths = [(batches.examples[i], batches.encoded[i].whole) for i in items]
    prompts = PromptLengths(lengths, data.shots, data.max_length)
    findings = _check_training(dataset, tests, demos, prompts)
    return {
        "file": dataset.source,
        "sha256": batches.sha256(),
        # The same in whatever order the run takes the examples, with whatever demonstrations.
        "rows_sha256": workdir_lib.sha256(
            [source.template(dataset.task, data.prompt), dataset.examples]
        ),
        "findings": [asdict(finding) for finding in findings],
        **_count_examples(dataset),
        "rows_trained_on": len(trained_examples(batches)),
        "lengths": _summary([len(sequence.tokens) for sequence in sequences]),
        "target_lengths": _summary([len(s.tokens) - s.start for s in sequences]),
        "shortened_inputs": _count(findings, "shortened_inputs"),
        "answers_cut": _count(findings, "answers_cut"),
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
) -> dict:
    """Report findings of a grid, its datasets and its cells in numbers, ready for JSON.

    Args:
      model: its name in results.
      cells: the whole grid.
      config: of the evaluation.
      trained: the hashes of what the model was trained on, from `trained_on.read_hashes`.

    Raises:
      UserError: examples that make the scores meaningless.
    """
    of_dataset: dict[tuple[str, str], list[PackedCell]] = {}
    for packed in cells:
        dataset = packed.cell.dataset
        of_dataset.setdefault((dataset.task.name, dataset.name), []).append(packed)
    parts = [_report_dataset(model, group, config, trained or ()) for group in of_dataset.values()]
    return {
        "model": model,
        "findings": [asdict(finding) for findings, _ in parts for finding in findings],
        "datasets": [numbers for _, numbers in parts],
        "cells": [_report_cell(packed) for packed in cells],
    }


def _check_training(
    dataset: Dataset, tests: list[Dataset], demos: list[Example], prompts: PromptLengths
) -> list[DataFinding]:
    return [
        *checks.check_examples(dataset),
        *checks.demonstrations_in_training(dataset, demos),
        *(finding for test in tests for finding in checks.test_items_in_training(test, dataset)),
        *checks.shortened(dataset, prompts),
        *checks.answers_cut(dataset, prompts),
    ]


def _report_dataset(
    model: str, cells: list[PackedCell], config: config_lib.Config, trained: Collection[str]
) -> tuple[list[DataFinding], dict]:
    """Report findings of the cells of one dataset, each once, and its numbers."""
    dataset = cells[0].cell.dataset.first(config.eval.limit)
    demos = [demo for packed in cells for demo in packed.cell.demos]
    worst = max(cells, key=lambda packed: sum(each.shortened for each in packed.encoded))
    lengths = [(i, e.whole) for i, e in zip(worst.indices, worst.encoded, strict=True)]
    key, longest = max_length(config)
    prompts = PromptLengths(lengths, worst.cell.shots, longest, key)
    findings = [
        *checks.check_examples(dataset),
        *checks.demonstrations_among_items(dataset, demos),
        *checks.test_items_trained_on(dataset, trained, model),
        *checks.shortened(dataset, prompts),
    ]
    return findings, {
        "task": dataset.task.name,
        "dataset": dataset.name,
        "file": dataset.source,
        **_count_examples(dataset),
        "demos_among_items": _count(findings, "demonstrations_among_items"),
        "items_trained_on": _count(findings, "test_items_trained_on"),
        "shortened_inputs": _count(findings, "shortened_inputs"),
        "lengths": _summary([encoded.length for packed in cells for encoded in packed.encoded]),
    }


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


def _count_examples(dataset: Dataset) -> dict:
    usable = dataset.usable
    labels = Counter(dataset.examples[i]["output"] for i in usable) if dataset.task.labels else {}
    return {
        "rows": len(dataset.examples),
        "labels": dict(labels),
        "skipped": len(dataset.examples) - len(usable),
        "duplicates": len(checks.duplicates(dataset)),
        "contradictory": len(checks.contradictory(dataset)),
        "empty_inputs": len(checks.empty(dataset)),
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
