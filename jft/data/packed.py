"""Packed rows: the sequences of items in rows of batches, and results by sequence again.

Training, evaluation and probes all get their batches here. An item is a request; its sequences are
its prompt with each of its answers.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import jax
import numpy as np

from jft.batch import Array, Batch, Shape
from jft.data import packing, prefix_tree
from jft.data.packing import Budget
from jft.data.prefix_tree import TokenSequence
from jft.data.prompting.prompts import Encoded

T = TypeVar("T")

# A sequence, as its item and its number among the sequences of the item.
SequenceId = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Sequences of items, packed into rows of one shape.

    Two items with the prompts `a b` and `a c`, and the labels x and y for each:

        sequences of item 0    a b x    a b y
        sequences of item 1    a c x    a c y
        tokens of the row      a b x y c x y
        rows                   [[(0, 0), (0, 1), (1, 0), (1, 1)]]

    Attributes:
      encoded: the sequences of each item; rows need not hold all items.
      rows: the (item, sequence) pairs of each row, in the order of their tokens.
      shape: the shape of a batch of these rows.
    """

    encoded: Sequence[Encoded]
    rows: list[list[SequenceId]]
    shape: Shape

    @property
    def sequences(self) -> list[list[TokenSequence]]:
        """The sequences of each row, sorted as `prefix_tree.build` takes them."""
        return [[self.encoded[i].packed[j] for i, j in row] for row in self.rows]

    def entries(self, row: Sequence[SequenceId]) -> list[range]:
        """Find the loss entries of each sequence of a row."""
        counts = [prefix_tree.num_entries([self.encoded[i].packed[j]]) for i, j in row]
        ends = itertools.accumulate(counts)
        return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]

    @property
    def num_batches(self) -> int:
        """The number of batches, or micro-batches, that hold any row."""
        return math.ceil(len(self.rows) / self.shape.rows)

    def batches(self) -> Iterator[tuple[Batch, list[list[SequenceId]]]]:
        """Build the batches one after the other, each with its rows; the last may have padding."""
        sequences, size = self.sequences, self.shape.rows
        for start in range(0, len(self.rows), size):
            part = slice(start, start + size)
            yield _build(sequences[part], size, self.shape), self.rows[part]

    def micro_batches(self, shard: int = 0, shards: int = 1) -> Batch:
        """Build all rows as one batch of micro-batches, each array [A, B, ...].

        Micro-batches without loss entries come last; the training step leaves them out.

        Args:
          shard: the part of every micro-batch to build.
          shards: the number of parts, each with the same number of rows.
        """
        shape, share = self.shape, self.shape.rows // shards
        padded = [*self.sequences, *([[]] * (shape.micro_batches * shape.rows - len(self.rows)))]
        starts = range(shard * share, len(padded), shape.rows)
        mine = [sequences for start in starts for sequences in padded[start : start + share]]
        flat = _build(mine, len(mine), shape)
        return jax.tree.map(lambda x: x.reshape(len(starts), share, *x.shape[1:]), flat)


def pack_items(
    encoded: Sequence[Encoded], steps: Iterable[Sequence[int]], budget: Budget
) -> list[PackedRows]:
    """Pack all sequences of the items of each step; few of the shapes are distinct.

    A sequence of demonstrations that several items of a step have is there once, so that what a
    step learns does not depend on how its items are packed.

    Raises:
      ValueError: a sequence is longer than `budget.row_length`.
    """
    pairs: list[list[SequenceId]] = []
    sequences: list[list[TokenSequence]] = []
    for items in steps:
        found = _distinct(encoded, items)
        pairs.append([key for key, _ in found])
        sequences.append([sequence for _, sequence in found])
    packed = packing.pack_steps(sequences, budget)
    return [
        PackedRows(encoded, [[of_step[place] for place in row] for row in rows], shape)
        for of_step, rows, shape in zip(pairs, packed.rows, packed.shapes, strict=True)
    ]


def _distinct(
    encoded: Sequence[Encoded], items: Sequence[int]
) -> list[tuple[SequenceId, TokenSequence]]:
    """List the sequences of items, as often as these are there; of demonstrations once each."""
    found: list[tuple[SequenceId, TokenSequence]] = []
    known: set[tuple[bytes, int]] = set()
    for i in items:
        each = encoded[i]
        own = len(each.packed) - len(each.shown)
        for j, sequence in enumerate(each.packed):
            content = (sequence.tokens.tobytes(), sequence.start) if j >= own else None
            if content not in known:
                found.append(((i, j), sequence))
            if content:
                known.add(content)
    return found


def count_batches(packed: Iterable[PackedRows]) -> Counter[Shape]:
    """Count the batches, or micro-batches, of each shape that hold any row."""
    found: Counter[Shape] = Counter()
    for each in packed:
        found[each.shape] += each.num_batches
    return found


def in_order(found: Iterable[tuple[int, T]]) -> list[T]:
    """Collect values of items, which come in any order."""
    return [value for _, value in sorted(found, key=lambda pair: pair[0])]


def sum_by_sequence(
    batch: Batch, values_BM: Array, rows: Sequence[Sequence[SequenceId]]
) -> Iterator[tuple[SequenceId, float]]:
    """Sum the weighted values of the loss entries of each sequence, in float64.

    Log-probabilities of target tokens become log-probabilities of answers.

    Args:
      batch: built from `rows`.
      values_BM: one value for each loss entry.
      rows: as `PackedRows.batches` gives them.
    """
    weighted_BM = np.asarray(values_BM, np.float64) * batch.loss_weight_BM
    for b, row in enumerate(rows):
        # Padding counts as the first sequence of its row, with weight 0.
        sums = np.bincount(batch.loss_sequence_BM[b], weighted_BM[b], minlength=len(row))
        yield from zip(row, sums, strict=True)


def _build(rows: Sequence[Sequence[TokenSequence]], num_rows: int, shape: Shape) -> Batch:
    return prefix_tree.build(
        rows,
        num_rows,
        row_length=shape.row_length,
        num_entries=shape.num_entries,
        num_key_blocks=shape.num_key_blocks,
        num_prefix_blocks=shape.num_prefix_blocks,
        window_blocks=shape.window_blocks,
    )
