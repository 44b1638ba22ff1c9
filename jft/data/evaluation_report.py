"""`data_report.json` of an evaluation: its data in numbers, with findings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict

from jft import config as config_lib
from jft.data import checks, length_checks, report_numbers, token_checks
from jft.data.checks import DataFinding
from jft.data.eval_batches import PackedCells
from jft.data.eval_cells import EncodedCell, max_length
from jft.data.length_checks import LengthLimit, PromptLength
from jft.data.rows.datasets import suite
from jft.data.token_checks import SpellingEncoder
from jft.tasks import RETENTION_TASKS


def evaluation_report(
    model: str,
    cells: Sequence[EncodedCell],
    packed: Sequence[PackedCells],
    config: config_lib.Config,
    trained: Collection[str] | None,
    tokenizer: SpellingEncoder,
    decisions: Sequence[DataFinding] = (),
) -> dict:
    """Report findings of a grid, its datasets and its cells in numbers, ready for JSON.

    Args:
      model: its name in results.
      cells: the whole grid.
      packed: its batches.
      config: of the evaluation.
      trained: the hashes of what the model was trained on, from `trained_on.read_hashes`.
      tokenizer: the model's.
      decisions: from `eval_grid.tell_relations`.

    Raises:
      UserError: examples that make the scores meaningless.
    """
    of_dataset: dict[tuple[str, str], list[EncodedCell]] = {}
    for each in cells:
        dataset = each.cell.dataset
        if dataset.task.name not in RETENTION_TASKS:
            of_dataset.setdefault((dataset.task.name, dataset.name), []).append(each)
    parts = [
        _report_dataset(model, group, config, trained or (), tokenizer)
        for group in of_dataset.values()
    ]
    found = [*decisions, *(finding for findings, _ in parts for finding in findings)]
    return {
        "model": model,
        # Of datasets that share demonstrations or a template each is told once.
        "findings": [asdict(f) for i, f in enumerate(found) if f not in found[:i]],
        **report_numbers.packing(packed),
        "datasets": [numbers for _, numbers in parts],
        "cells": [_report_cell(cell) for cell in cells],
    }


def _report_dataset(
    model: str,
    cells: list[EncodedCell],
    config: config_lib.Config,
    trained: Collection[str],
    tokenizer: SpellingEncoder,
) -> tuple[list[DataFinding], dict]:
    """Report findings of the cells of one dataset, each once, and its numbers."""
    dataset = cells[0].cell.dataset.first(config.eval.limit)
    demos = list({id(demo): demo for each in cells for demo in each.cell.demos}.values())
    worst = max(cells, key=lambda cell: sum(each.shortened for each in cell.encoded))
    fewest = max(cells, key=lambda cell: len(cell.unfit))
    key, longest = max_length(config)
    labels = [cell.encoded[0].sequences[0] for cell in cells if dataset.task.labels]
    to_end = any(label.tokens[-1] == tokenizer.eos_id for label in labels)
    findings = [
        *(checks.nested_labels(dataset) if to_end else ()),
        *checks.check_examples(dataset, "eval.limit"),
        *checks.demonstrations_among_items(dataset, demos),
        *checks.demonstrations_alike(dataset, demos),
        *checks.test_items_trained_on(dataset, trained, model),
        *report_numbers.check_tokens(dataset, demos, tokenizer, cells[0].cell.chat),
        *_check_templates(cells, config, tokenizer),
        *token_checks.missing_values(dataset),
        *token_checks.unknown_tokens(
            dataset, zip(worst.indices, worst.encoded, strict=True), tokenizer
        ),
        *token_checks.unreachable_outputs(
            dataset, tokenizer, config.eval.max_new_tokens, cells[0].cell.chat
        ),
        *length_checks.unfit(dataset, fewest.unfit, LengthLimit(fewest.cell.shots, longest, key)),
        *length_checks.shortened(
            dataset, _lengths(worst), LengthLimit(worst.cell.shots, longest, key)
        ),
    ]
    return findings, {
        "task": dataset.task.name,
        "dataset": dataset.name,
        "file": dataset.source,
        **report_numbers.count_examples(dataset, findings),
        "demos_among_items": report_numbers.number_found(findings, "demonstrations_among_items"),
        "items_trained_on": report_numbers.number_found(findings, "test_items_trained_on"),
        "shortened_inputs": report_numbers.number_found(findings, "shortened_inputs"),
        "lengths": report_numbers.summary(
            [encoded.length for cell in cells for encoded in cell.encoded]
        ),
    }


def _lengths(cell: EncodedCell) -> list[PromptLength]:
    pairs = zip(cell.indices, cell.encoded, strict=True)
    return [PromptLength(i, encoded.whole, encoded.length) for i, encoded in pairs]


def _check_templates(
    cells: list[EncodedCell], config: config_lib.Config, tokenizer: SpellingEncoder
) -> list[DataFinding]:
    """Look at every template once, with the most shots that it is used with."""
    by_shots = sorted((each.cell for each in cells), key=lambda cell: cell.shots)
    of_prompt = {cell.prompt: cell for cell in by_shots}
    source = suite(config.data)
    return [
        finding
        for prompt, cell in of_prompt.items()
        for finding in report_numbers.check_template(
            cell.template, prompt, cell.shots, source, tokenizer, cell.dataset.task, cell.chat
        )
    ]


def _report_cell(encoded: EncodedCell) -> dict:
    cell, counts = encoded.cell, encoded.counts
    return {
        "task": cell.dataset.task.name,
        "dataset": cell.dataset.name,
        "shots": cell.shots,
        "prompt": cell.prompt,
        "draw": cell.draw,
        "items": len(encoded.indices),
        "shortened_inputs": sum(each.shortened for each in encoded.encoded),
        "lengths": report_numbers.summary([each.length for each in encoded.encoded]),
        **report_numbers.sharing(counts),
    }
