"""Prefix trees: token sequences packed so that a prefix which several share stands in a row once.

Sorted sequences have their common prefixes side by side, so everything here follows from the number
of tokens that each sequence shares with the one before it. Plain packing is the case in which
nothing is shared.
"""

from __future__ import annotations

import hashlib
import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jft.batch import Array, Batch
from jft.data import key_blocks

NO_TARGET = np.zeros(1, np.int32)
# Rows that still take sequences while packing: bounds the work per sequence to a constant.
MAX_OPEN_ROWS = 64


class TokenSequence(NamedTuple):
    """A token sequence of which `tokens[start:]` are predicted, `0 < start <= len(tokens)`.

    Where `start` is the length there is no target: the single loss entry marks the end of the
    prompt, from which a generation continues.
    """

    tokens: np.ndarray
    start: int


class Counts(NamedTuple):
    """Tokens of packed rows, without padding.

    Attributes:
      sequence_tokens: of all sequences, as rows without sharing hold them.
      row_tokens: in the rows, where a shared prefix stands once.
      target_tokens: loss entries.
    """

    sequence_tokens: int
    row_tokens: int
    target_tokens: int


def shared_length(a: np.ndarray, b: np.ndarray) -> int:
    """Count the tokens of the longest common prefix of two sequences."""
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if len(different) else length


def order(sequences: Sequence[TokenSequence]) -> list[int]:
    """Sort sequences by tokens, so that common prefixes stand together; returns their indices."""
    # Big-endian bytes compare as the token ids do, and far faster than lists.
    keys = [sequence.tokens.astype(">u4").tobytes() for sequence in sequences]
    return sorted(range(len(sequences)), key=keys.__getitem__)


def pack(sequences: Sequence[TokenSequence], row_length: int) -> list[list[int]]:
    """Distribute sequences over rows so that prefixes are shared and rows are full.

    Best fit over at most `MAX_OPEN_ROWS` open rows, in the order of tokens: a sequence costs a row
    its length minus what it shares with the row; it goes where it costs least, into the fullest of
    such rows, or opens a new row. With rows of 6 tokens:

        sequences  a b c   a b d   a b e e   f g
        rows       a b c d e e                f g
        cost       3       1       2          2

    Args:
      sequences: none longer than `row_length`.
      row_length: tokens of a row.

    Returns:
      For each row the indices of its sequences, sorted by tokens, as `build` takes them.

    Raises:
      ValueError: a sequence is longer than a row.
    """
    rows: list[list[int]] = []
    used = np.zeros(0, np.int64)
    shared = np.zeros(0, np.int64)  # tokens that the next sequence shares with each open row
    open_rows = np.zeros(0, np.int64)
    previous = np.zeros(0, np.int32)
    for i in order(sequences):
        tokens = sequences[i].tokens
        if len(tokens) > row_length:
            raise ValueError(f"a sequence of {len(tokens)} tokens in rows of {row_length}")
        # Among sorted sequences, the prefix shared with a row's newest member is the shortest
        # prefix shared by neighbours between that member and this sequence.
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


def row_tokens(sequences: Sequence[TokenSequence]) -> int:
    """Count the tokens of the row that holds these sorted sequences."""
    return _total_length(sequences) - sum(_shared(sequences))


def longest(sequences: Iterable[TokenSequence]) -> int:
    """Find the length of the longest sequence."""
    return max(len(sequence.tokens) for sequence in sequences)


def num_entries(sequences: Sequence[TokenSequence]) -> int:
    """Count the loss entries of some sequences."""
    return sum(max(1, len(sequence.tokens) - sequence.start) for sequence in sequences)


def count(rows: Iterable[Sequence[TokenSequence]]) -> Counts:
    """Count the tokens of rows of sorted sequences."""
    each = [(_total_length(row), row_tokens(row), num_entries(row)) for row in rows]
    return Counts(*(sum(numbers) for numbers in zip(*each, strict=True)))


def sha256(sequences: Iterable[TokenSequence]) -> str:
    """Hash every token of some sequences, and where their targets begin."""
    digest = hashlib.sha256()
    for tokens, start in sequences:
        digest.update(np.array([len(tokens), start], np.int64).tobytes() + tokens.tobytes())
    return digest.hexdigest()


def build(
    rows: Sequence[Sequence[TokenSequence]],
    num_rows: int,
    row_length: int,
    num_entries: int,
    num_key_blocks: int | None = None,
    num_prefix_blocks: int = 0,
    window_blocks: Sequence[tuple[int, int | None]] | None = None,
) -> Batch:
    """Lay rows of sorted sequences out as a batch of fixed shape; `Batch` shows an example.

    Args:
      rows: at most `num_rows`; the others are padding. `loss_sequence` counts the sequences of a
        row in the order given.
      num_rows: B.
      row_length: T.
      num_entries: M.
      num_key_blocks: W; None: the best W and U for these rows.
      num_prefix_blocks: U.
      window_blocks: pairs of a window and its W, or None for the least W for these rows; other
        windows hide nothing. None: blocks are not listed by window, and any window is applied.
    """
    shape_BT, shape_BM = (num_rows, row_length), (num_rows, num_entries)
    until_BT = np.tile(np.arange(1, row_length + 1, dtype=np.int32), (num_rows, 1))
    batch = Batch(
        tokens_BT=np.zeros(shape_BT, np.int32),
        positions_BT=np.zeros(shape_BT, np.int32),
        # Padding sees itself alone, so that no softmax is over nothing.
        visible_until_BT=until_BT,
        loss_index_BM=np.zeros(shape_BM, np.int32),
        loss_target_BM=np.zeros(shape_BM, np.int32),
        loss_weight_BM=np.zeros(shape_BM, np.float32),
        loss_sequence_BM=np.zeros(shape_BM, np.int32),
    )
    for b, sequences in enumerate(rows):
        _lay_out(sequences, jax.tree.map(operator.itemgetter(b), batch))
    if num_key_blocks is None:
        widths = [key_blocks.widths_of(until_T) for until_T in until_BT]
        sizes = key_blocks.best_sizes(np.max(widths, axis=0))
    else:
        sizes = key_blocks.BlockSizes(num_key_blocks, num_prefix_blocks)
    key_blocks_BQW, prefix_blocks_BU = key_blocks.list_blocks(until_BT, sizes)
    by_window: dict[int, Array] | None = None if window_blocks is None else {}
    for window, width in window_blocks or ():
        seen_BQQ = key_blocks.seen_blocks(until_BT, _filled_positions(batch, rows), window)
        most = int(seen_BQQ.sum(axis=2).max())
        assert by_window is not None
        if width is not None and most > width:
            raise ValueError(f"{most} blocks of keys are in a window of {window}, not {width}")
        by_window[window] = key_blocks.listed(seen_BQQ, width or most)
    return batch._replace(
        key_blocks_BQW=key_blocks_BQW, prefix_blocks_BU=prefix_blocks_BU, window_blocks=by_window
    )


def _filled_positions(batch: Batch, rows: Sequence[Sequence[TokenSequence]]) -> np.ndarray:
    """Return the positions of a batch, where padding has that of the last token of its row.

    Padding is at position 0: a block that holds tokens and padding would seem to reach back to it.
    """
    positions_BT = np.array(batch.positions_BT)
    for b, sequences in enumerate(rows):
        if used := row_tokens(sequences):
            positions_BT[b, used:] = positions_BT[b, used - 1]
    return positions_BT


def _lay_out(sequences: Sequence[TokenSequence], row: Batch) -> None:
    """Write one forest into the arrays of one row, depth first."""
    path = np.zeros(0, np.int64)  # row index of every token of the newest sequence
    used = filled = 0
    for number, ((tokens, start), shared) in enumerate(
        zip(sequences, _shared(sequences), strict=True)
    ):
        new = slice(used, used + len(tokens) - shared)
        row.tokens_BT[new] = tokens[shared:]
        path = np.concatenate([path[:shared], np.arange(new.start, new.stop)])
        targets = tokens[start:] if start < len(tokens) else NO_TARGET
        entry = slice(filled, filled + len(targets))
        row.loss_index_BM[entry] = path[start - 1 :][: len(targets)]
        row.loss_target_BM[entry] = targets
        row.loss_weight_BM[entry] = 1.0
        row.loss_sequence_BM[entry] = number
        used, filled = new.stop, entry.stop
    row.positions_BT[:used] = positions(sequences)
    row.visible_until_BT[:used] = visible_until(sequences)


def positions(sequences: Sequence[TokenSequence]) -> np.ndarray:
    """Count the distance of every token of a row from the root of its tree."""
    new = zip(sequences, _shared(sequences), strict=True)
    each = [np.arange(shared, len(tokens), dtype=np.int32) for (tokens, _), shared in new]
    return np.concatenate([np.zeros(0, np.int32), *each])


def visible_until(sequences: Sequence[TokenSequence]) -> np.ndarray:
    """Find where the subtree of every token of a row ends, [tokens of the row].

    A token's subtree ends where the first later sequence begins that does not share it. The row of
    `a b c`, `a b d e` and `a f` is a b c d e f: a ends with the row, b where f begins.

        index          0  1  2  3  4  5
        tokens         a  b  c  d  e  f
        visible_until  6  5  3  5  5  6
    """
    shared, lengths = _shared(sequences), [len(sequence.tokens) for sequence in sequences]
    ends = list(itertools.accumulate(n - s for n, s in zip(lengths, shared, strict=True)))
    until_T = np.empty(ends[-1] if ends else 0, np.int32)
    # From the last sequence to the first: where a token at each depth would cease to be shared.
    end_at_depth = np.full(max(lengths, default=0), len(until_T), np.int32)
    for i in reversed(range(len(sequences))):
        begin = ends[i] - lengths[i] + shared[i]
        until_T[begin : ends[i]] = end_at_depth[shared[i] : lengths[i]]
        end_at_depth[shared[i] :] = begin
    return until_T


def window_width(sequences: Sequence[TokenSequence], window: int) -> int:
    """Find the W of a window that a row needs."""
    seen_BQQ = key_blocks.seen_blocks(
        visible_until(sequences)[None], positions(sequences)[None], window
    )
    return int(seen_BQQ.sum(axis=2).max(initial=0))


def _shared(sequences: Sequence[TokenSequence]) -> list[int]:
    """Count the tokens that each sequence shares with the one before it; 0 for the first."""
    pairs = itertools.pairwise(sequences)
    return [0, *(shared_length(a.tokens, b.tokens) for a, b in pairs)][: len(sequences)]


def _total_length(sequences: Sequence[TokenSequence]) -> int:
    return sum(len(sequence.tokens) for sequence in sequences)
