"""Token sequences packed as prefix trees: what two sequences share stands once in a row.

Sorted sequences have their prefixes side by side, so everything here needs only the length that
each sequence shares with the one before it. Plain packing is the case in which nothing is shared.
"""

from __future__ import annotations

import hashlib
import itertools
import operator
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from typing import NamedTuple

import jax
import numpy as np

from jft.batch import Batch
from jft.data import key_blocks

NO_TARGET = np.zeros(1, np.int32)
# Rows that still take sequences while packing: bounds the work per sequence to a constant.
MAX_OPEN_ROWS = 64


class Sequence(NamedTuple):
    """A token sequence of which `tokens[start:]` are predicted, `0 < start <= len(tokens)`.

    Where nothing is known to come after the start, its one entry is at its end, without a target:
    there a generation goes on.
    """

    tokens: np.ndarray
    start: int


class Counts(NamedTuple):
    """Tokens of packed rows.

    Attributes:
      sequence_tokens: of all sequences, as rows without sharing hold them.
      row_tokens: in the rows, where what is shared stands once; padding left out.
      target_tokens: loss entries.
    """

    sequence_tokens: int
    row_tokens: int
    target_tokens: int


def shared_length(a: np.ndarray, b: np.ndarray) -> int:
    """Tokens in the longest common prefix of two sequences."""
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if len(different) else length


def order(sequences: Seq[Sequence]) -> list[int]:
    """The indices of sequences, sorted by tokens: those that share a prefix stand together."""
    # Big-endian bytes compare as the token ids do, far faster than lists.
    keys = [sequence.tokens.astype(">u4").tobytes() for sequence in sequences]
    return sorted(range(len(sequences)), key=keys.__getitem__)


def pack(sequences: Seq[Sequence], row_length: int) -> list[list[int]]:
    """Distribute sequences over rows so that shared prefixes and free space are used well.

    A sequence costs a row its length minus what it shares with the row. Each goes to the open row
    where it costs least, the fullest of these, or opens a new one.

    Args:
      sequences: none longer than `row_length`.
      row_length: tokens of a row.

    Returns:
      For each row the indices of its sequences, sorted by tokens, as `build` wants them.

    Raises:
      ValueError: a sequence longer than a row.
    """
    rows: list[list[int]] = []
    used = np.zeros(0, np.int64)
    shared = np.zeros(0, np.int64)  # what the next sequence shares with each open row
    open_rows = np.zeros(0, np.int64)
    previous = np.zeros(0, np.int32)
    for i in order(sequences):
        tokens = sequences[i].tokens
        if len(tokens) > row_length:
            raise ValueError(f"a sequence of {len(tokens)} tokens in rows of {row_length}")
        # The nearest neighbour of a row's newest member shares the least along the way to here.
        shared = np.minimum(shared, shared_length(previous, tokens))
        previous = tokens
        cost = len(tokens) - shared
        fits = used + cost <= row_length
        if fits.any():
            rank = np.where(fits, cost * (row_length + 1) - used, np.iinfo(np.int64).max)
            at = int(rank.argmin())
            used[at] += cost[at]
        else:
            if len(open_rows) == MAX_OPEN_ROWS:
                keep = np.arange(len(open_rows)) != used.argmax()
                open_rows, used, shared = open_rows[keep], used[keep], shared[keep]
            at = len(open_rows)
            open_rows = np.append(open_rows, len(rows))
            used = np.append(used, len(tokens))
            shared = np.append(shared, 0)
            rows.append([])
        shared[at] = len(tokens)
        rows[open_rows[at]].append(i)
    return rows


def row_tokens(sequences: Seq[Sequence]) -> int:
    """Tokens of a tree that holds these sequences, which are sorted."""
    return _length(sequences) - sum(_shared(sequences))


def longest(sequences: Iterable[Sequence]) -> int:
    """Tokens of the longest."""
    return max(len(sequence.tokens) for sequence in sequences)


def entries(sequences: Seq[Sequence]) -> int:
    """Loss entries that these sequences bring."""
    return sum(max(1, len(sequence.tokens) - sequence.start) for sequence in sequences)


def count(rows: Iterable[Seq[Sequence]]) -> Counts:
    """The tokens of rows of sorted sequences."""
    each = [(_length(row), row_tokens(row), entries(row)) for row in rows]
    return Counts(*(sum(numbers) for numbers in zip(*each, strict=True)))


def sha256(sequences: Seq[Sequence]) -> str:
    """Of every token, and of where the predicted ones begin."""
    digest = hashlib.sha256()
    for tokens, start in sequences:
        digest.update(np.array([len(tokens), start], np.int64).tobytes() + tokens.tobytes())
    return digest.hexdigest()


def build(
    rows: Seq[Seq[Sequence]],
    num_rows: int,
    row_length: int,
    num_entries: int,
    num_key_blocks: int | None = None,
    num_trunk_blocks: int = 0,
) -> Batch:
    """Lay rows of sorted sequences out as a batch of fixed shape.

    Args:
      rows: at most `num_rows`; the rest of the batch is padding. `loss_slot` counts a row's
        sequences in the order given.
      num_rows: B.
      row_length: T.
      num_entries: M.
      num_key_blocks: W; None: this and U are the best for these rows.
      num_trunk_blocks: U.
    """
    shape_BT, shape_BM = (num_rows, row_length), (num_rows, num_entries)
    until_BT = np.tile(np.arange(1, row_length + 1, dtype=np.int32), (num_rows, 1))
    batch = Batch(
        tokens_BT=np.zeros(shape_BT, np.int32),
        positions_BT=np.zeros(shape_BT, np.int32),
        # Padding sees itself only, so that no softmax is empty.
        visible_until_BT=until_BT,
        loss_index_BM=np.zeros(shape_BM, np.int32),
        loss_target_BM=np.zeros(shape_BM, np.int32),
        loss_weight_BM=np.zeros(shape_BM, np.float32),
        loss_slot_BM=np.zeros(shape_BM, np.int32),
    )
    for b, sequences in enumerate(rows):
        _lay_out(sequences, jax.tree.map(operator.itemgetter(b), batch))
    if num_key_blocks is None:
        widths = [key_blocks.widths(until_T) for until_T in until_BT]
        sizes = key_blocks.best(np.max(widths, axis=0))
    else:
        sizes = key_blocks.Sizes(num_key_blocks, num_trunk_blocks)
    key_blocks_BQW, trunk_blocks_BU = key_blocks.lists(until_BT, sizes)
    return batch._replace(key_blocks_BQW=key_blocks_BQW, trunk_blocks_BU=trunk_blocks_BU)


def _lay_out(sequences: Seq[Sequence], row: Batch) -> None:
    """Write one tree into the arrays of one row, depth first."""
    path = np.zeros(0, np.int64)  # row index of every token from the root to the newest one
    used = filled = 0
    for slot, ((tokens, start), shared) in enumerate(
        zip(sequences, _shared(sequences), strict=True)
    ):
        new = slice(used, used + len(tokens) - shared)
        row.tokens_BT[new] = tokens[shared:]
        row.positions_BT[new] = np.arange(shared, len(tokens))
        path = np.concatenate([path[:shared], np.arange(new.start, new.stop)])
        targets = tokens[start:] if start < len(tokens) else NO_TARGET
        entry = slice(filled, filled + len(targets))
        row.loss_index_BM[entry] = path[start - 1 :][: len(targets)]
        row.loss_target_BM[entry] = targets
        row.loss_weight_BM[entry] = 1.0
        row.loss_slot_BM[entry] = slot
        used, filled = new.stop, entry.stop
    row.visible_until_BT[:used] = visible_until(sequences)


def visible_until(sequences: Seq[Sequence]) -> np.ndarray:
    """Where the subtree of every token's node ends, in a row of sorted sequences."""
    shared, lengths = _shared(sequences), [len(sequence.tokens) for sequence in sequences]
    ends = list(itertools.accumulate(n - s for n, s in zip(lengths, shared, strict=True)))
    until_T = np.empty(ends[-1] if ends else 0, np.int32)
    end_at_depth = np.full(max(lengths, default=0), len(until_T), np.int32)  # from here on
    for i in reversed(range(len(sequences))):
        begin = ends[i] - lengths[i] + shared[i]
        until_T[begin : ends[i]] = end_at_depth[shared[i] : lengths[i]]
        end_at_depth[shared[i] :] = begin
    return until_T


def _shared(sequences: Seq[Sequence]) -> list[int]:
    """What each sequence shares with the one before it, none with the first."""
    pairs = itertools.pairwise(sequences)
    return [0, *(shared_length(a.tokens, b.tokens) for a, b in pairs)][: len(sequences)]


def _length(sequences: Seq[Sequence]) -> int:
    return sum(len(sequence.tokens) for sequence in sequences)
