"""A list of encoded requests that takes little more memory than their tokens."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

from jft.data.prefix_tree import TokenSequence
from jft.data.prompting.prompts import Encoded


class EncodedStore(Sequence[Encoded]):
    """Encoded requests in flat arrays; each is made when it is asked for, without its example.

    A sequence that begins the next one of its request, such as an earlier turn, has no tokens of
    its own.
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        # Of each request: its block, its first sequence, and the numbers of `Encoded`.
        self._block, self._first = array("i"), array("q")
        self._shown, self._whole, self._least, self._merged = (array("i") for _ in range(4))
        # Of each sequence: where it begins in its block, its length, and where its targets begin.
        self._begin, self._length, self._start = array("q"), array("i"), array("i")

    def extend(self, encoded: Iterable[Encoded]) -> None:
        """Add requests, none of which has a reference to read; their tokens become one block."""
        parts: list[np.ndarray] = []
        used = 0
        for each in encoded:
            self._block.append(len(self._blocks))
            self._first.append(len(self._begin))
            self._shown.append(len(each.shown))
            self._whole.append(each.whole)
            self._least.append(each.least)
            self._merged.append(each.merged)
            begins, kept = _shared_begins(each.packed, used)
            for (tokens, start), begin in zip(each.packed, begins, strict=True):
                self._begin.append(begin)
                self._length.append(len(tokens))
                self._start.append(start)
            parts += kept
            used += sum(map(len, kept))
        self._blocks.append(np.concatenate([np.zeros(0, np.int32), *parts]))

    def __len__(self) -> int:
        """Count the requests."""
        return len(self._first)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index):
        """Make an encoded request, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        i = range(len(self))[index]
        block = self._blocks[self._block[i]]
        end = self._first[i + 1] if i + 1 < len(self._first) else len(self._begin)
        made = [
            TokenSequence(block[begin : begin + length], start)
            for begin, length, start in zip(
                self._begin[self._first[i] : end],
                self._length[self._first[i] : end],
                self._start[self._first[i] : end],
                strict=True,
            )
        ]
        own = len(made) - self._shown[i]
        return Encoded(
            made[:own],
            self._whole[i],
            self._least[i],
            merged=self._merged[i],
            shown=tuple(made[own:]),
        )


def _shared_begins(
    sequences: Sequence[TokenSequence], used: int
) -> tuple[list[int], list[np.ndarray]]:
    """Find where each sequence begins in a block that holds `used` tokens, and what is added."""
    begins, kept, end = [0] * len(sequences), list[np.ndarray](), used
    last: tuple[np.ndarray, int] | None = None
    for j in reversed(range(len(sequences))):
        tokens = sequences[j].tokens
        if last is None or not np.array_equal(tokens, last[0][: len(tokens)]):
            last, end = (tokens, end), end + len(tokens)
            kept.append(tokens)
        begins[j] = last[1]
    return begins, kept
