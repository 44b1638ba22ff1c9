"""Token sequences packed as prefix trees: what two sequences share stands once in a row.

Sorted sequences have their prefixes side by side, so everything here needs only the length that
each sequence shares with the one before it. Plain packing is the case in which nothing is shared.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from typing import NamedTuple

import numpy as np

from jft.batch import Batch

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
    order = sorted(range(len(sequences)), key=lambda i: _sort_key(sequences[i].tokens))
    rows: list[list[int]] = []
    used = np.zeros(0, np.int64)
    shared = np.zeros(0, np.int64)  # what the next sequence shares with each open row
    open_rows = np.zeros(0, np.int64)
    previous = np.zeros(0, np.int32)
    for i in order:
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
    pairs = itertools.pairwise(sequences)
    return _length(sequences) - sum(shared_length(a.tokens, b.tokens) for a, b in pairs)


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


def build(rows: Seq[Seq[Sequence]], num_rows: int, row_length: int, num_entries: int) -> Batch:
    """Lay rows of sorted sequences out as a batch of fixed shape.

    Args:
      rows: at most `num_rows`; the rest of the batch is padding. `loss_slot` counts a row's
        sequences in the order given.
      num_rows: B.
      row_length: T.
      num_entries: M.
    """
    shape_BT, shape_BM = (num_rows, row_length), (num_rows, num_entries)
    batch = Batch(
        tokens_BT=np.zeros(shape_BT, np.int32),
        positions_BT=np.zeros(shape_BT, np.int32),
        # Padding sees itself only, so that no softmax is empty.
        visible_until_BT=np.tile(np.arange(1, row_length + 1, dtype=np.int32), (num_rows, 1)),
        loss_index_BM=np.zeros(shape_BM, np.int32),
        loss_target_BM=np.zeros(shape_BM, np.int32),
        loss_weight_BM=np.zeros(shape_BM, np.float32),
        loss_slot_BM=np.zeros(shape_BM, np.int32),
    )
    for b, sequences in enumerate(rows):
        _lay_out(sequences, Batch(*(array[b] for array in batch)))
    return batch


def _lay_out(sequences: Seq[Sequence], row: Batch) -> None:
    """Write one tree into the arrays of one row, depth first."""
    path = np.zeros(0, np.int64)  # row index of every token from the root to the newest one
    used = filled = 0
    previous = np.zeros(0, np.int32)
    for slot, (tokens, start) in enumerate(sequences):
        shared = shared_length(previous, tokens)
        row.visible_until_BT[path[shared:]] = used  # the branch that ends here
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
        used, filled, previous = new.stop, entry.stop, tokens
    row.visible_until_BT[path] = used


def _length(sequences: Seq[Sequence]) -> int:
    return sum(len(sequence.tokens) for sequence in sequences)


def _sort_key(tokens: np.ndarray) -> bytes:
    # Big-endian bytes compare as the token ids do, far faster than lists.
    return tokens.astype(">u4").tobytes()
