"""`data_report.json`: the data of a training run or of an evaluation in numbers, with findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from jft import config as config_lib
from jft.batch import Shape
from jft.data import checks, prefix_tree
from jft.data.checks import DataFinding, PromptLengths
from jft.data.datasets import Dataset, Suite
from jft.data.eval_batches import PackedCell, max_length
from jft.data.train_batches import Batches
from jft.errors import UserError
from jft.runtime import workdir as workdir_lib
from jft.tasks import Example


def training(batches: Batches, source: Suite, data: config_lib.Data) -> dict:
    """Findings, rows, lengths and packing of a training run, ready for JSON.

    Raises:
      UserError: rows that make the run meaningless.
    """
    dataset, tests = batches.dataset, _tests(source)
    demos = source.demos(dataset.task, data.demos or dataset.name, data.shots)
    if data.demo_mode == "fixed":
        demos = demos[: data.shots]
    used = _used(batches)
    lengths = [(batches.examples[i], batches.encoded[i].whole) for i in used]
    sequences = [batches.encoded[i].sequences[0] for i in used]
    prompts = PromptLengths(lengths, data.shots, data.max_length)
    findings = _of_training(dataset, tests, demos, prompts)
    return {
        "file": dataset.source,
        "sha256": batches.sha256(),
        # Of what is trained on, in whatever order and after whatever demonstrations.
        "rows_sha256": workdir_lib.sha256(
            [source.template(dataset.task, data.prompt), dataset.examples]
        ),
        "findings": [asdict(finding) for finding in findings],
        **_rows(dataset),
        "rows_trained_on": len(trained_rows(batches)),
        "lengths": _summary([len(sequence.tokens) for sequence in sequences]),
        "target_lengths": _summary([len(s.tokens) - s.start for s in sequences]),
        "shortened_inputs": _count(findings, "shortened_inputs"),
        "answers_cut": _count(findings, "answers_cut"),
        "steps": batches.steps,
        "rows_per_step": sum(map(len, batches.rows)) / batches.steps,
        **_packing(
            [row for step in range(batches.steps) for row in batches.packed(step)],
            batches.micro_batches,
        ),
    }


def trained_rows(batches: Batches) -> list[Example]:
    """The distinct rows that a run is trained on."""
    return [
        batches.dataset.examples[i] for i in sorted({batches.examples[i] for i in _used(batches)})
    ]


def _used(batches: Batches) -> list[int]:
    return sorted({i for step in batches.rows for row in step for i in row})


def evaluation(
    model: str,
    cells: Sequence[PackedCell],
    config: config_lib.Config,
    trained: Collection[str] | None,
) -> dict:
    """Findings of a grid, its datasets and its cells in numbers, ready for JSON.

    Args:
      model: as results call it.
      cells: the whole grid.
      config: of the evaluation.
      trained: what `trained_on.read_hashes` gives for the model.

    Raises:
      UserError: rows that make the scores meaningless.
    """
    groups: dict[tuple[str, str], list[PackedCell]] = {}
    for cell in cells:
        dataset = cell.setting.dataset
        groups.setdefault((dataset.task.name, dataset.name), []).append(cell)
    parts = [_of_dataset(model, group, config, trained or ()) for group in groups.values()]
    return {
        "model": model,
        "findings": [asdict(finding) for findings, _ in parts for finding in findings],
        "datasets": [numbers for _, numbers in parts],
        "cells": [_of_cell(cell) for cell in cells],
    }


def _of_training(
    dataset: Dataset, tests: list[Dataset], demos: list[Example], prompts: PromptLengths
) -> list[DataFinding]:
    return [
        *checks.check_examples(dataset),
        *checks.demonstrations_in_training(dataset, demos),
        *(finding for test in tests for finding in checks.test_items_in_training(test, dataset)),
        *checks.shortened(dataset, prompts),
        *checks.answers_cut(dataset, prompts),
    ]


def _of_dataset(
    model: str, cells: list[PackedCell], config: config_lib.Config, trained: Collection[str]
) -> tuple[list[DataFinding], dict]:
    """The findings of the cells of one dataset, each once, and its numbers."""
    dataset = cells[0].setting.dataset.first(config.eval.limit)
    demos = [demo for cell in cells for demo in cell.setting.demos]
    worst = max(cells, key=lambda cell: sum(each.shortened for each in cell.encoded))
    lengths = [(i, e.whole) for i, e in zip(worst.indices, worst.encoded, strict=True)]
    key, longest = max_length(config)
    prompts = PromptLengths(lengths, worst.setting.shots, longest, key)
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
        **_rows(dataset),
        "demos_among_items": _count(findings, "demonstrations_among_items"),
        "items_trained_on": _count(findings, "test_items_trained_on"),
        "shortened_inputs": _count(findings, "shortened_inputs"),
        "lengths": _summary([encoded.length for cell in cells for encoded in cell.encoded]),
    }


def _of_cell(cell: PackedCell) -> dict:
    setting = cell.setting
    return {
        "task": setting.dataset.task.name,
        "dataset": setting.dataset.name,
        "shots": setting.shots,
        "prompt": setting.prompt,
        "draw": setting.draw,
        "items": len(cell.indices),
        "shortened_inputs": sum(encoded.shortened for encoded in cell.encoded),
        "lengths": _summary([encoded.length for encoded in cell.encoded]),
        **_packing(cell.packed, cell.micro_batches),
    }


def _rows(dataset: Dataset) -> dict:
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


def _packing(
    rows: list[list[prefix_tree.TokenSequence]], micro_batches: Mapping[Shape, int]
) -> dict:
    """How full the packed rows are, and what they would hold if nothing were shared."""
    counts = prefix_tree.count(rows)
    slots = sum(n * shape.rows * shape.row_length for shape, n in micro_batches.items())
    return {
        "packed_rows": len(rows),
        "row_length": max(shape.row_length for shape in micro_batches),
        **counts._asdict(),
        "packing_efficiency": counts.row_tokens / slots,
        "sharing_ratio": counts.sequence_tokens / counts.row_tokens,
        "target_share": counts.target_tokens / counts.row_tokens,
    }


def _count(findings: list[DataFinding], check: str) -> int:
    return sum(finding.count for finding in findings if finding.check == check)


def _tests(source: Suite) -> list[Dataset]:
    found = []
    for name in source.tests(source.task):
        try:
            found.append(source.test(name))
        except UserError:
            continue  # a broken test set is the evaluation's to report, not a reason not to train
    return found


def _summary(values: list[int]) -> dict[str, float]:
    return {
        "min": int(np.min(values)),
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        "max": int(np.max(values)),
    }
