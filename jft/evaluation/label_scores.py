"""Label scoring: each label's log-probability after the prompt; the highest is the prediction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jft.data.eval_batches import PackedCell
from jft.data.packed import sum_by_sequence
from jft.evaluation.compiled import CompiledModel


def score(model: CompiledModel, cell: PackedCell, advance: Callable[[int], None]) -> np.ndarray:
    """Compute the log-probabilities of labels, [items, labels] in float64.

    A label's score is the sum over its tokens. The next batch is built and sent while the device
    works on the one before.

    Args:
      model: computes the log-probabilities of tokens.
      cell: of a task with labels.
      advance: called with the number of items finished since the last call.
    """
    labels = len(cell.encoded[0].sequences)
    scores = np.zeros((len(cell.encoded), labels))
    left = np.full(len(cell.encoded), labels)

    def collect(logprobs_BM, batch, rows) -> None:
        finished = 0
        for (item, label), value in sum_by_sequence(batch, logprobs_BM, rows):
            scores[item, label] = value
            left[item] -= 1
            finished += left[item] == 0
        advance(int(finished))

    pending = None
    for batch, rows in cell.batches():
        started = (model.token_logprobs(batch), batch, rows)
        if pending:
            collect(*pending)
        pending = started
    if pending:
        collect(*pending)
    return scores
