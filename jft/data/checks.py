"""What is in the training data, and what should not be: the data report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from jft.data.batches import Batches
from jft.data.prompts import Encoded
from jft.data.sources import Dataset, Row, Suite
from jft.errors import UserError
from jft.progress import say
from jft.tasks import Task


def data_report(batches: Batches, source: Suite, demos: list[Row]) -> dict:
    """Rows, lengths, labels, leaks and packing of a training run, ready for JSON."""
    dataset = batches.dataset
    sequences = [encoded.sequences[0] for encoded in batches.encoded]
    used = np.array([batches.step_tokens(step) for step in range(batches.steps)])
    rows = sum(len(plan.rows) for plan in batches.plans)
    apart = sum(len(sequences[i].tokens) for p in batches.plans for row in p.rows for i in row)
    return {
        "file": dataset.source,
        "sha256": batches.sha256(),
        "rows": len(dataset.rows),
        "rows_trained_on": len(
            {batches.examples[i] for p in batches.plans for r in p.rows for i in r}
        ),
        "labels": dict(Counter(row["output"] for row in dataset.rows))
        if dataset.task.labels
        else {},
        "lengths": _summary([len(sequence.tokens) for sequence in sequences]),
        "target_lengths": _summary([len(s.tokens) - s.start for s in sequences]),
        "shortened_inputs": sum(encoded.shortened for encoded in batches.encoded),
        "duplicates": len(dataset.rows) - len({_key(dataset.task, row) for row in dataset.rows}),
        "demonstrations_in_training": overlap(dataset.task, demos, dataset.rows),
        "test_rows_in_training": {
            Path(test.source).stem: overlap(dataset.task, test.rows, dataset.rows)
            for test in _tests(source)
        },
        "steps": batches.steps,
        "rows_per_step": rows / batches.steps,
        "row_length": batches.row_length,
        "packing_efficiency": float(used[:, 1].sum() / (rows * batches.row_length)),
        "sharing_ratio": float(apart / used[:, 1].sum()),
        "target_share": float(used[:, 0].sum() / used[:, 1].sum()),
    }


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
            "data.max_length shortens them"
        )


def overlap(task: Task, rows: list[Row], others: list[Row]) -> list[int]:
    """Indices of `rows` whose inputs also stand in `others`."""
    known = {_key(task, row) for row in others}
    return [i for i, row in enumerate(rows) if _key(task, row) in known]


def _key(task: Task, row: Row) -> tuple[str, ...]:
    return tuple(row[name].strip() for name in task.fields)


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
        "total": int(np.sum(values)),
    }
