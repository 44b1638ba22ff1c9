"""Numbers and checks that reports of trainings and of evaluations have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from jft.data import checks, prefix_tree, token_checks
from jft.data.checks import DataFinding
from jft.data.packed import PackedRows
from jft.data.rows.datasets import Dataset, Suite
from jft.data.token_checks import SpellingEncoder
from jft.tasks import Example, Task


def check_tokens(
    dataset: Dataset, demos: Sequence[Example], tokenizer: SpellingEncoder, chat: bool
) -> list[DataFinding]:
    """Look for special tokens in examples, and for all defects in demonstrations."""
    where = f"demonstrations of {dataset.name}"
    shown = dataset._replace(source=where, own=True, examples=list(demos), left_out=[])
    return [
        *token_checks.special_tokens(dataset, tokenizer),
        *token_checks.special_tokens(shown, tokenizer),
        *(checks.check_shown(shown) if demos else ()),
        *(() if chat else token_checks.trained_blank_lines(shown)),
    ]


def check_template(
    text: str,
    prompt: int,
    shots: int,
    source: Suite,
    tokenizer: SpellingEncoder,
    task: Task,
    chat: bool,
) -> list[DataFinding]:
    """Look at a template, and at where its prompts and their answers meet in plain text.

    Args:
      text: the template.
      prompt: its index.
      shots: the most demonstrations that it is used with.
      source: of the config.
      tokenizer: the model's.
      task: of its prompts.
      chat: whether these go through the model's chat template.
    """
    if chat:
        return []
    where = "data.template" if source.data.template else f"prompt_map.json prompt {prompt}"
    setting = source.data.answer_tokens
    return [
        *token_checks.template(text, where, shots, tokenizer),
        *token_checks.answers_apart(setting, tokenizer, task, text, where),
    ]


def count_examples(dataset: Dataset, findings: list[DataFinding]) -> dict:
    """Count the rows of a dataset, by label, and those that findings are about."""
    usable, own = dataset.usable, [each for each in findings if each.where == dataset.place]
    labels = Counter(dataset.examples[i]["output"] for i in usable) if dataset.task.labels else {}
    return {
        "rows": len(dataset.examples),
        "labels": dict(labels),
        "skipped": len(dataset.examples) - len(usable),
        "duplicates": number_found(own, "duplicates"),
        "contradictory": number_found(own, "contradictory_labels"),
        "empty_inputs": number_found(own, "empty_inputs"),
    }


def packing(packed: Sequence[PackedRows]) -> dict:
    """Report how full packed rows are, and what they would hold if nothing were shared."""
    counts = prefix_tree.count(row for each in packed for row in each.sequences)
    size = sum(each.num_batches * each.shape.rows * each.shape.row_length for each in packed)
    return {
        "packed_rows": sum(len(each.rows) for each in packed),
        "row_length": max(each.shape.row_length for each in packed),
        "packing_efficiency": counts.row_tokens / size,
        **sharing(counts),
    }


def sharing(counts: prefix_tree.Counts) -> dict:
    """Report the tokens of some sequences, and how many of them are shared, or targets."""
    return {
        **counts._asdict(),
        "sharing_ratio": counts.sequence_tokens / counts.row_tokens,
        "target_share": counts.target_tokens / counts.row_tokens,
    }


def number_found(findings: list[DataFinding], check: str) -> int:
    """Count the rows that a check found."""
    return sum(finding.count for finding in findings if finding.check == check)


def summary(values: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Summarize numbers by their least, median, 95th percentile and largest."""
    return {
        "min": int(np.min(values)),
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        "max": int(np.max(values)),
    }
