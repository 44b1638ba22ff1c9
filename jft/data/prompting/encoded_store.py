"""A list of encoded requests that takes little more memory than their tokens."""

from __future__ import annotations

import abc
import bisect
from collections.abc import Iterable, Sequence
from typing import BinaryIO, overload

import numpy as np

from jft.data.prefix_tree import TokenSequence
from jft.data.prompting.prompts import Encoded

# The numbers of a request: its sequences, those of demonstrations among them, and those of
# `Encoded`; and of a sequence: where it begins among the tokens, its length, and its targets.
REQUEST = ("sequences", "shown", "whole", "least", "merged")
SEQUENCE = ("begin", "length", "start")


class _Made(Sequence[Encoded]):
    """Encoded requests that are made when they are asked for."""

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index):
        """Make an encoded request, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        return self._make(range(len(self))[index])

    @abc.abstractmethod
    def _make(self, index: int) -> Encoded:
        """Make the request of an index from 0."""


class EncodedBlock(_Made):
    """Encoded requests in three arrays; each is made when it is asked for, without its example.

    A sequence that begins the next one of its request, such as an earlier turn, has no tokens of
    its own.

    Attributes:
      tokens: of all sequences.
      sequences: the numbers `SEQUENCE` of each, [sequences, 3].
      requests: the numbers `REQUEST` of each, [requests, 5].
    """

    def __init__(self, tokens: np.ndarray, sequences: np.ndarray, requests: np.ndarray):
        self.tokens, self.sequences, self.requests = tokens, sequences, requests
        self._ends = np.cumsum(requests[:, 0])

    @classmethod
    def of(cls, encoded: Iterable[Encoded]) -> EncodedBlock:
        """Copy encoded requests, none of which has a reference to read."""
        parts, sequences, requests, used = [np.zeros(0, np.int32)], [], [], 0
        for each in encoded:
            begins, kept = _shared_begins(each.packed, used)
            for (tokens, start), begin in zip(each.packed, begins, strict=True):
                sequences.append((begin, len(tokens), start))
            parts += kept
            used += sum(map(len, kept))
            requests.append(
                (len(each.packed), len(each.shown), each.whole, each.least, each.merged)
            )
        return cls(
            np.concatenate(parts),
            np.array(sequences, np.int32).reshape(-1, len(SEQUENCE)),
            np.array(requests, np.int32).reshape(-1, len(REQUEST)),
        )

    def save(self, file: BinaryIO) -> None:
        """Write the arrays to a file."""
        np.savez(file, tokens=self.tokens, sequences=self.sequences, requests=self.requests)

    @classmethod
    def load(cls, file: BinaryIO) -> EncodedBlock:
        """Read what `save` wrote; raises what `np.load` does for a damaged file, or LookupError."""
        with np.load(file) as arrays:
            found = cls(arrays["tokens"], arrays["sequences"], arrays["requests"])
        ends = found.sequences[:, 0] + found.sequences[:, 1]
        if found.requests[:, 0].sum() != len(ends) or ends.max(initial=0) > len(found.tokens):
            raise LookupError("arrays that do not belong together")
        return found

    def __len__(self) -> int:
        """Count the requests."""
        return len(self.requests)

    def _make(self, index: int) -> Encoded:
        number, shown, whole, least, merged = self.requests[index].tolist()
        end = int(self._ends[index])
        made = [
            TokenSequence(self.tokens[begin : begin + length], start)
            for begin, length, start in self.sequences[end - number : end].tolist()
        ]
        own = number - shown
        return Encoded(made[:own], whole, least, merged=merged, shown=tuple(made[own:]))


class EncodedStore(_Made):
    """Blocks of encoded requests, one after the other."""

    def __init__(self) -> None:
        self._blocks: list[EncodedBlock] = []
        self._ends: list[int] = []

    def append(self, block: EncodedBlock) -> None:
        """Add a block."""
        self._ends.append(len(self) + len(block))
        self._blocks.append(block)

    def __len__(self) -> int:
        """Count the requests."""
        return self._ends[-1] if self._ends else 0

    def _make(self, index: int) -> Encoded:
        number = bisect.bisect_right(self._ends, index)
        return self._blocks[number][index - (self._ends[number - 1] if number else 0)]


def _shared_begins(
    sequences: Sequence[TokenSequence], used: int
) -> tuple[list[int], list[np.ndarray]]:
    """Find where each sequence begins among tokens of which `used` are there, and what is added."""
    begins, kept, end = [0] * len(sequences), list[np.ndarray](), used
    last: tuple[np.ndarray, int] | None = None
    for j in reversed(range(len(sequences))):
        tokens = sequences[j].tokens
        if last is None or not np.array_equal(tokens, last[0][: len(tokens)]):
            last, end = (tokens, end), end + len(tokens)
            kept.append(tokens)
        begins[j] = last[1]
    return begins, kept
