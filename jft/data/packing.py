"""Packing a run: the rows that the sequences of each step go into, in few shapes.

A device takes a step as one long row where it can: attention costs the same there, every prefix is
shared, and a row is as long as its sequences. Shapes are few, since each has to be compiled.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jft.batch import BLOCK, PackingRules, Shape
from jft.data import key_blocks, prefix_tree, rounding
from jft.data.prefix_tree import TokenSequence

# Tokens that could be computed in the time that compiling one more shape takes, where the model is
# not known.
SHAPE_TOKENS = 2048
# Share of all tokens that one more shape has to save, and the largest number of shapes of a run.
SHAPE_SHARE = 0.005
MAX_SHAPES = 8
# Share of a run's tokens that a compilation is worth, beyond which sizes are rounded up by much.
COARSE_SHARE = 1 / 8
# Cost of a micro-batch besides its tokens, in tokens: adding its gradients to the others.
MICRO_BATCH_OVERHEAD = 32
# Steps with several rows that are looked at to choose row lengths.
SAMPLE_STEPS = 64


class PackedSteps(NamedTuple):
    """The rows of every step, as places of its sequences in the step, and their shapes.

    Few of the shapes are distinct.
    """

    rows: list[list[list[int]]]
    shapes: list[Shape]


class Budget(NamedTuple):
    """Limits of a micro-batch.

    Attributes:
      shards: devices that share its rows.
      tokens: the most that a device takes at once; at least one row.
      row_length: of every row, rounded up to blocks; 0: chosen from the lengths.
      packing_rules: those of the model; None: not known.
    """

    shards: int
    tokens: int
    row_length: int = 0
    packing_rules: PackingRules | None = None

    @property
    def shape_tokens(self) -> int:
        """The least number of tokens that one more shape has to save."""
        known = self.packing_rules.shape_tokens if self.packing_rules else 0
        return known or SHAPE_TOKENS

    def is_coarse(self, tokens: int) -> bool:
        """Check whether sizes are rounded up by much in a run of so many tokens.

        A compilation takes so long then that other runs had better find its program in the cache.
        """
        known = self.packing_rules.shape_tokens if self.packing_rules else 0
        return known > COARSE_SHARE * tokens

    def is_long(self, sequence: TokenSequence) -> bool:
        """Check whether a sequence has other rotary embeddings than shorter ones."""
        after = self.packing_rules.long_after if self.packing_rules else 0
        return bool(after) and len(sequence.tokens) > after

    def are_mixed(self, sequences: Sequence[TokenSequence]) -> bool:
        """Check whether there are sequences that must not share a row."""
        return len({self.is_long(sequence) for sequence in sequences}) > 1


def pack_steps(steps: Sequence[Sequence[TokenSequence]], budget: Budget) -> PackedSteps:
    """Pack the sequences of each step.

    Each step of n sequences takes O(n log n) for its rows at each of at most `MAX_SHAPES` lengths.

    Raises:
      ValueError: a sequence is longer than `budget.row_length`.
    """
    forests = [_forest(sequences, budget) for sequences in steps]
    coarse = budget.is_coarse(sum(forest.tokens for forest in forests))
    lengths = [_round_up(budget.row_length)] if budget.row_length else _lengths(forests, budget)
    if coarse and not budget.row_length:
        lengths = sorted({BLOCK * rounding.by_a_quarter(length // BLOCK) for length in lengths})
    packed = [_pack(forest, lengths, budget) for forest in forests]
    steps_of: dict[int, list[tuple[_Forest, list[list[int]]]]] = {}
    for forest, (length, rows) in zip(forests, packed, strict=True):
        steps_of.setdefault(length, []).append((forest, rows))
    shapes = {length: _shape(its_steps, length, budget) for length, its_steps in steps_of.items()}
    if coarse:
        shapes = {length: rounding.coarse(shape) for length, shape in shapes.items()}
    return PackedSteps([rows for _, rows in packed], [shapes[length] for length, _ in packed])


class _Forest:
    """The sequences of a step, their order, and the tokens of a single row that holds them all."""

    def __init__(self, sequences: Sequence[TokenSequence]):
        self.sequences = sequences
        self.order = prefix_tree.order(sequences)
        self.tokens = prefix_tree.row_tokens([sequences[i] for i in self.order])
        self.longest = prefix_tree.longest(sequences)

    def fits_one_row(self, length: int) -> bool:
        """Check whether a row of `length` tokens holds the whole step."""
        return self.tokens <= length

    def rows(self, length: int) -> list[list[int]]:
        """Pack the step into rows of `length` tokens, by the better of two algorithms."""
        if self.fits_one_row(length):
            return [self.order]
        ways = prefix_tree.pack(self.sequences, length), self._first_fit_decreasing(length)
        return min(ways, key=len)

    def _first_fit_decreasing(self, length: int) -> list[list[int]]:
        """Pack by first-fit decreasing, where rows share only what all sequences share.

        Rows become fuller than those of `prefix_tree.pack` where nothing else is shared.
        """
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

    def shortest_length(self, num_rows: int, most: int) -> int | None:
        """Find the least length at which `num_rows` rows hold the step, by binary search.

        Returns:
          A multiple of `BLOCK`, or None where even `most` tokens are too few.
        """
        low, high = max(self.longest, math.ceil(self.tokens / num_rows)), most
        low, high = math.ceil(low / BLOCK), high // BLOCK
        if low > high or len(self.rows(high * BLOCK)) > num_rows:
            return None
        while low < high:
            middle = (low + high) // 2
            if len(self.rows(middle * BLOCK)) <= num_rows:
                high = middle
            else:
                low = middle + 1
        return high * BLOCK


class _MixedForest(_Forest):
    """The sequences of a step of which the long ones share no row with the others."""

    def __init__(self, sequences: Sequence[TokenSequence], budget: Budget):
        super().__init__(sequences)
        kinds: list[list[int]] = [[], []]
        for i, sequence in enumerate(sequences):
            kinds[budget.is_long(sequence)].append(i)
        self.parts = [(places, _Forest([sequences[i] for i in places])) for places in kinds]
        self.tokens = sum(part.tokens for _, part in self.parts)

    def fits_one_row(self, length: int) -> bool:
        """Return False: there are two at least."""
        del length
        return False

    def rows(self, length: int) -> list[list[int]]:
        """Pack the long sequences, and the others."""
        return [
            [places[i] for i in row] for places, part in self.parts for row in part.rows(length)
        ]


def _forest(sequences: Sequence[TokenSequence], budget: Budget) -> _Forest:
    mixed = budget.are_mixed(sequences)
    return _MixedForest(sequences, budget) if mixed else _Forest(sequences)


def _lengths(forests: list[_Forest], budget: Budget) -> list[int]:
    """Choose a few row lengths that leave little padding."""
    most = max(_round_up(max(f.longest for f in forests)), budget.tokens // BLOCK * BLOCK)
    rows_of_length: Counter[int] = Counter()
    several = []
    for forest in forests:
        if budget.shards == 1 and forest.fits_one_row(most):
            rows_of_length[_round_up(forest.tokens)] += 1
        else:
            several.append(forest)
    sample = several[:: max(1, len(several) // SAMPLE_STEPS)]
    for forest in sample:
        length, num_rows = _best_length(forest, most, budget.shards)
        rows_of_length[length] += num_rows * math.ceil(len(several) / len(sample))
    longest = _round_up(max(forest.longest for forest in forests))
    if max(rows_of_length) < longest:
        rows_of_length[longest] += 1
    return _few_lengths(rows_of_length, budget.shape_tokens)


def _best_length(forest: _Forest, most: int, shards: int) -> tuple[int, int]:
    """Find the length, and the number of rows, at which a step of several rows is cheapest."""
    least = math.ceil(forest.tokens / most / shards)
    options = []
    for micro_batches in range(least, 2 * least + 2):
        length = forest.shortest_length(micro_batches * shards, most)
        if length:
            cost = micro_batches * (shards * length + MICRO_BATCH_OVERHEAD)
            options.append((cost, length, micro_batches * shards))
        if len(options) == 3:
            break
    if not options:  # long sequences, of which hardly two fit a row
        options = [(0, most, len(forest.rows(most)))]
    return min(options)[1:]


def _few_lengths(rows_of_length: Counter[int], least: int) -> list[int]:
    """Choose the lengths that all others are rounded up to.

    Optimal segmentation of the sorted lengths into 1, 2, ... `MAX_SHAPES` runs by dynamic
    programming, O(n^2) for each; one more is taken only where it saves enough padding, at `least`
    so many tokens.
    """
    lengths = sorted(rows_of_length)
    tokens = sum(length * number for length, number in rows_of_length.items())
    worth = max(least, SHAPE_SHARE * tokens)

    def padding(first: int, last: int) -> int:
        run = lengths[first : last + 1]
        return sum(rows_of_length[n] * (lengths[last] - n) for n in run)

    # best[j]: the least padding of lengths 0..j with the number of shapes reached so far, and these
    # shapes.
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


def _pack(forest: _Forest, lengths: list[int], budget: Budget) -> tuple[int, list[list[int]]]:
    """Find the length, among `lengths`, at which a step is cheapest, and its rows there."""

    def cost(length: int, num_rows: int) -> int:
        at_once = budget.shards * _rows_per_device(length, budget)
        return math.ceil(num_rows / at_once) * (at_once * length + MICRO_BATCH_OVERHEAD)

    options: list[tuple[int, int, list[list[int]]]] = []
    by_bound = sorted(
        (cost(n, math.ceil(forest.tokens / n)), n) for n in lengths if n >= forest.longest
    )
    if not by_bound:
        raise ValueError(f"a sequence of {forest.longest} tokens in rows of {max(lengths)}")
    for bound, length in by_bound:
        if options and bound >= min(options)[0]:
            break
        rows = forest.rows(length)
        options.append((cost(length, len(rows)), length, rows))
    return min(options, key=lambda option: option[:2])[1:]


def _rows_per_device(length: int, budget: Budget) -> int:
    """Count the rows that a device takes at once.

    One where the length was chosen, since a row then holds as much as the budget allows; as many
    as fit the budget where `data.row_length` fixes the length.
    """
    return 1 if not budget.row_length else max(1, budget.tokens // length)


def _shape(steps: list[tuple[_Forest, list[list[int]]]], length: int, budget: Budget) -> Shape:
    """Find the shape that holds these steps."""
    counts = Counter(len(rows) for _, rows in steps)
    most = min(_rows_per_device(length, budget), math.ceil(max(counts) / budget.shards))

    def cost(size: int) -> int:
        each = size * length + MICRO_BATCH_OVERHEAD
        return sum(math.ceil(rows / size) * each * n for rows, n in counts.items())

    size = min((budget.shards * n for n in range(1, most + 1)), key=cost)
    rows = [[forest.sequences[i] for i in row] for forest, rows in steps for row in rows]
    widths_Q = np.zeros(math.ceil(length / BLOCK) + 1, np.int32)
    for row in rows:
        row_Q = key_blocks.widths_of(prefix_tree.visible_until(row))
        widths_Q[: len(row_Q)] = np.maximum(widths_Q[: len(row_Q)], row_Q)
    blocks = key_blocks.best_sizes(widths_Q)
    longest = max(forest.longest for forest, _ in steps)
    return Shape(
        micro_batches=math.ceil(max(counts) / size),
        rows=size,
        row_length=length,
        num_entries=max(map(prefix_tree.num_entries, rows)),
        num_key_blocks=blocks.listed,
        num_prefix_blocks=blocks.prefix,
        window_blocks=_window_blocks(rows, budget.packing_rules, longest),
    )


def _window_blocks(
    rows: list[list[TokenSequence]], packing_rules: PackingRules | None, longest: int
) -> tuple[tuple[int, int], ...] | None:
    """Find the W of each window that is shorter than the longest sequence; others hide nothing."""
    if packing_rules is None:
        return None
    return tuple(
        (window, max(prefix_tree.window_width(row, window) for row in rows))
        for window in sorted(packing_rules.windows)
        if 0 < window < longest
    )


def _round_up(tokens: int) -> int:
    return rounding.multiple(tokens, BLOCK)
