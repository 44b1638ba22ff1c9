"""Label scoring: each label's log-probability after the prompt; the highest is the prediction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jft.data.eval_batches import PackedCell
from jft.evaluation.compiled import CompiledModel


def score(model: CompiledModel, items: PackedCell, advance: Callable[[int], None]) -> np.ndarray:
    """The labels' log-probabilities, [items, labels] in float64.

    A label's score is the sum over its tokens. The next batch is built and sent while the device
    works on the one before.

    Args:
      model: what scores.
      items: of one cell.
      advance: called with the number of items finished since.
    """
    labels = len(items.encoded[0].sequences)
    scores = np.zeros((len(items.encoded), labels))
    left = np.full(len(items.encoded), labels)

    def collect(logprobs, batch, slots) -> None:
        values_BM = np.asarray(logprobs, np.float64) * batch.loss_weight_BM
        finished = 0
        for b, row in enumerate(slots):
            sums = np.bincount(batch.loss_sequence_BM[b], values_BM[b], minlength=len(row))
            for (item, label), value in zip(row, sums, strict=True):
                scores[item, label] = value
                left[item] -= 1
                finished += left[item] == 0
        advance(int(finished))

    pending = None
    for batch, slots in items.batches():
        under_way = (model.token_logprobs(batch), batch, slots)
        if pending:
            collect(*pending)
        pending = under_way
    if pending:
        collect(*pending)
    return scores
