"""Mixtures: how many examples of which training set each step holds, and in which order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jft.errors import UserError

# A training set, by its number in `data.train`, and an example of it, by its index.
ExampleId = tuple[int, int]


def shares(weights: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """Compute the share that each set has of all examples that are trained on.

    Args:
      weights: of `data.weights`; none: a set counts as often as it has examples.
      sizes: the number of examples of each set.

    Raises:
      UserError: not as many weights as sets, or no weight above 0.
    """
    if weights and len(weights) != len(sizes):
        raise UserError(
            f"data.weights={','.join(f'{w:g}' for w in weights)}: {len(weights)} weights for the "
            f"{len(sizes)} sets of data.train; give one for each, or none"
        )
    if weights and not min(weights) > 0:
        raise UserError("data.weights: every weight must be above 0; leave out a set without one")
    given = list(weights) or list(map(float, sizes))
    return [each / sum(given) for each in given]


def order(
    sizes: Sequence[int], of_all: Sequence[float], steps: int, size: int, seed: int, shuffle: bool
) -> list[list[ExampleId]]:
    """Choose the examples of every step.

    Each set is gone through epoch after epoch, each in an order of its own, and has its share of
    every stretch of the run, up to one example.

    Args:
      sizes: the number of examples of each set.
      of_all: the share of each.
      steps: of the run.
      size: examples of a step.
      seed: of the order.
      shuffle: whether an epoch has an order of its own, not that of the set.

    Returns:
      For each step the examples, those of a set together.
    """
    counts = _counts(of_all, steps, size)
    total = counts.sum(axis=0)
    # The first set keeps the order that it has alone.
    streams = [
        _stream(n, int(needed), [seed, 0], [number] * (number > 0), shuffle)
        for number, (n, needed) in enumerate(zip(sizes, total, strict=True))
    ]
    ends = counts.cumsum(axis=0)
    return [
        [
            (number, int(place))
            for number, stream in enumerate(streams)
            for place in stream[last[number] - taken[number] : last[number]]
        ]
        for taken, last in zip(counts, ends, strict=True)
    ]


def _counts(of_all: Sequence[float], steps: int, size: int) -> np.ndarray:
    """Count the examples of each set in each step, [steps, sets].

    Each example is of the set that is farthest behind its share, the first of several.
    """
    if len(of_all) == 1:
        return np.full((steps, 1), size)
    counts, owed = np.zeros((steps, len(of_all)), int), [0.0] * len(of_all)
    for step in range(steps):
        for _ in range(size):
            owed = [due + share for due, share in zip(owed, of_all, strict=True)]
            # Sums of shares are not exact: a difference of rounding is none.
            most = max(owed) - 1e-9
            number = next(i for i, due in enumerate(owed) if due >= most)
            owed[number] -= 1
            counts[step, number] += 1
    return counts


def _stream(
    size: int, needed: int, seed: Sequence[int], number: Sequence[int], shuffle: bool
) -> np.ndarray:
    """Return the places of a set's examples, as many as needed, epoch after epoch."""
    epochs = math.ceil(needed / size)
    each = [
        np.random.default_rng([*seed, epoch, *number]).permutation(size)
        if shuffle
        else np.arange(size)
        for epoch in range(epochs)
    ]
    return np.concatenate([np.zeros(0, int), *each])[:needed]
