"""Which rows the sequences of each step go into, in a few shapes that leave little padding.

A device takes a step as one long row where it can: attention costs the same there, prefixes are
shared at best, and a row is as long as its sequences. Shapes are few, since each is compiled.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence as Seq
from typing import NamedTuple

import numpy as np

from jft.batch import BLOCK, Shape
from jft.data import key_blocks, prefix_tree
from jft.data.prefix_tree import Sequence

# Compiling a shape takes as long as computing so many tokens, at least.
SHAPE_TOKENS = 2048
# The share of all tokens that one more shape must spare, and the most shapes of a run.
SHAPE_SHARE = 0.005
MAX_SHAPES = 8
# What a micro-batch costs besides its tokens, in tokens: adding up the gradients.
MICRO_BATCH_OVERHEAD = 32
# Steps of several rows that the choice of lengths looks at.
SAMPLE_STEPS = 64


class Plan(NamedTuple):
    """The rows of every step, as the places of their sequences in the step, and their shapes.

    Few shapes are distinct.
    """

    rows: list[list[list[int]]]
    shapes: list[Shape]


class Budget(NamedTuple):
    """What a micro-batch may hold.

    Attributes:
      shards: devices that share its rows.
      tokens: the most that a device takes at once; at least one row.
      row_length: of every row, rounded up to blocks; 0: chosen.
    """

    shards: int
    tokens: int
    row_length: int = 0


def plan(steps: Seq[Seq[Sequence]], budget: Budget) -> Plan:
    """Pack the sequences of each step.

    Raises:
      ValueError: a sequence longer than `budget.row_length`.
    """
    trees = [_Tree(sequences) for sequences in steps]
    lengths = [_blocks(budget.row_length)] if budget.row_length else _lengths(trees, budget)
    packed = [_pack(tree, lengths, budget) for tree in trees]
    steps_of: dict[int, list[tuple[_Tree, list[list[int]]]]] = {}
    for tree, (length, rows) in zip(trees, packed, strict=True):
        steps_of.setdefault(length, []).append((tree, rows))
    shapes = {length: _shape(its_steps, length, budget) for length, its_steps in steps_of.items()}
    return Plan([rows for _, rows in packed], [shapes[length] for length, _ in packed])


class _Tree:
    """The sequences of a step, sorted, and the tokens of the one tree that would hold them all."""

    def __init__(self, sequences: Seq[Sequence]):
        self.sequences = sequences
        self.order = prefix_tree.order(sequences)
        self.tokens = prefix_tree.row_tokens([sequences[i] for i in self.order])
        self.longest = prefix_tree.longest(sequences)

    def rows(self, length: int) -> list[list[int]]:
        """Rows of so many tokens."""
        if self.tokens <= length:
            return [self.order]
        ways = prefix_tree.pack(self.sequences, length), self._rows_by_length(length)
        return min(ways, key=len)

    def _rows_by_length(self, length: int) -> list[list[int]]:
        """First fit, the longest first: fuller rows where no more is shared than by all."""
        place = {i: at for at, i in enumerate(self.order)}
        first, last = (self.sequences[i].tokens for i in (self.order[0], self.order[-1]))
        shared = prefix_tree.shared_length(first, last)
        rows: list[list[int]] = []
        room: list[int] = []
        for i in sorted(self.order, key=lambda i: -len(self.sequences[i].tokens)):
            own = len(self.sequences[i].tokens) - shared
            at = next((r for r, left in enumerate(room) if left >= own), len(rows))
            if at == len(rows):
                rows.append([])
                room.append(length - shared)
            rows[at].append(i)
            room[at] -= own
        return [sorted(row, key=place.__getitem__) for row in rows]

    def shortest(self, rows: int, most: int) -> int | None:
        """The least length at which so many rows hold it, None where even `most` does not do."""
        low, high = max(self.longest, math.ceil(self.tokens / rows)), most
        low, high = math.ceil(low / BLOCK), high // BLOCK
        if low > high or len(self.rows(high * BLOCK)) > rows:
            return None
        while low < high:
            middle = (low + high) // 2
            if len(self.rows(middle * BLOCK)) <= rows:
                high = middle
            else:
                low = middle + 1
        return high * BLOCK


def _lengths(trees: list[_Tree], budget: Budget) -> list[int]:
    """A few row lengths that leave little padding."""
    most = max(_blocks(max(tree.longest for tree in trees)), budget.tokens // BLOCK * BLOCK)
    wanted: Counter[int] = Counter()
    several = []
    for tree in trees:
        if budget.shards == 1 and tree.tokens <= most:
            wanted[_blocks(tree.tokens)] += 1
        else:
            several.append(tree)
    sample = several[:: max(1, len(several) // SAMPLE_STEPS)]
    for tree in sample:
        length, rows = _best(tree, most, budget.shards)
        wanted[length] += rows * math.ceil(len(several) / len(sample))
    longest = _blocks(max(tree.longest for tree in trees))
    if max(wanted) < longest:
        wanted[longest] += 1
    return _few(wanted)


def _best(tree: _Tree, most: int, shards: int) -> tuple[int, int]:
    """The length, and the rows, at which a tree of several rows computes least."""
    least = math.ceil(tree.tokens / most / shards)
    options = []
    for turns in range(least, 2 * least + 2):
        length = tree.shortest(turns * shards, most)
        if length:
            cost = turns * (shards * length + MICRO_BATCH_OVERHEAD)
            options.append((cost, length, turns * shards))
        if len(options) == 3:
            break
    if not options:  # long sequences that hardly share a row
        options = [(0, most, len(tree.rows(most)))]
    return min(options)[1:]


def _few(wanted: Counter[int]) -> list[int]:
    """The lengths to round up to: one more only where it spares enough."""
    lengths = sorted(wanted)
    tokens = sum(length * count for length, count in wanted.items())
    worth = max(SHAPE_TOKENS, SHAPE_SHARE * tokens)

    def padding(first: int, last: int) -> int:
        return sum(wanted[n] * (lengths[last] - n) for n in lengths[first : last + 1])

    # best[j]: the padding of lengths 0..j in so many shapes, and the shapes.
    best = [(padding(0, j), [lengths[j]]) for j in range(len(lengths))]
    found = best[-1]
    for _ in range(1, MAX_SHAPES):
        best = [
            min(
                [best[j]]
                + [(best[i][0] + padding(i + 1, j), [*best[i][1], lengths[j]]) for i in range(j)]
            )
            for j in range(len(lengths))
        ]
        if found[0] - best[-1][0] < worth:
            break
        found = best[-1]
    return found[1]


def _pack(tree: _Tree, lengths: list[int], budget: Budget) -> tuple[int, list[list[int]]]:
    """The length, of those there are, at which a step computes least, and its rows."""

    def cost(length: int, rows: int) -> int:
        at_once = budget.shards * _rows_at_once(length, budget)
        least = math.ceil(rows / at_once)
        return least * (at_once * length + MICRO_BATCH_OVERHEAD)

    options: list[tuple[int, int, list[list[int]]]] = []
    by_bound = sorted(
        (cost(n, math.ceil(tree.tokens / n)), n) for n in lengths if n >= tree.longest
    )
    if not by_bound:
        raise ValueError(f"a sequence of {tree.longest} tokens in rows of {max(lengths)}")
    for bound, length in by_bound:
        if options and bound >= min(options)[0]:
            break
        rows = tree.rows(length)
        options.append((cost(length, len(rows)), length, rows))
    return min(options, key=lambda option: option[:2])[1:]


def _rows_at_once(length: int, budget: Budget) -> int:
    return 1 if not budget.row_length else max(1, budget.tokens // length)


def _shape(steps: list[tuple[_Tree, list[list[int]]]], length: int, budget: Budget) -> Shape:
    """The shape that holds these steps."""
    counts = Counter(len(rows) for _, rows in steps)
    most = min(_rows_at_once(length, budget), math.ceil(max(counts) / budget.shards))

    def cost(size: int) -> int:
        each = size * length + MICRO_BATCH_OVERHEAD
        return sum(math.ceil(rows / size) * each * n for rows, n in counts.items())

    size = min((budget.shards * n for n in range(1, most + 1)), key=cost)
    rows = [[tree.sequences[i] for i in row] for tree, rows in steps for row in rows]
    widths_Q = np.zeros(math.ceil(length / BLOCK) + 1, np.int32)
    for row in rows:
        row_Q = key_blocks.widths(prefix_tree.visible_until(row))
        widths_Q[: len(row_Q)] = np.maximum(widths_Q[: len(row_Q)], row_Q)
    blocks = key_blocks.best(widths_Q)
    return Shape(
        micro_batches=math.ceil(max(counts) / size),
        rows=size,
        row_length=length,
        num_entries=max(map(prefix_tree.entries, rows)),
        num_key_blocks=blocks.width,
        num_trunk_blocks=blocks.trunk,
    )


def _blocks(tokens: int) -> int:
    return math.ceil(tokens / BLOCK) * BLOCK
