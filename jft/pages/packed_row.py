"""One packed row as a person can read it: its tree, token by token, and what each token sees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from jft.batch import Batch
from jft.data import prefix_tree

HUES = 6


class Target(NamedTuple):
    """A loss entry, at the token that it predicts or, in generation, after which it goes on."""

    slot: int
    weight: float


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the row: where it stands, its text, and what is predicted there.

    Attributes:
      index: in the row.
      position: distance from the root.
      text: of the token by itself.
      targets: the entries of which this token is the target.
      continued: the entries that go on after this token, towards none that is known.
    """

    index: int
    position: int
    text: str
    targets: list[Target]
    continued: list[Target]


class Node(NamedTuple):
    """A stretch of tokens without a branch.

    Attributes:
      tokens: from `start` on.
      visible_until: where the subtree ends.
      depth: branches between it and the root.
      hue: a number below `HUES`, another one for every branch; None for a root that branches.
      slots: the sequences that it belongs to.
    """

    tokens: list[Token]
    visible_until: int
    depth: int
    hue: int | None
    slots: list[int]

    @property
    def start(self) -> int:
        """The index of the first token."""
        return self.tokens[0].index

    @property
    def end(self) -> int:
        """One more than the index of the last token."""
        return self.tokens[-1].index + 1

    @property
    def polygon(self) -> str:
        """Where these tokens are seen, key across and query down: k <= q < visible_until."""
        corners = [(self.start, self.start), (self.end, self.end)]
        corners += [(self.end, self.visible_until), (self.start, self.visible_until)]
        return " ".join(f"{key},{query}" for key, query in corners)


class PackedRow(NamedTuple):
    """A row of a batch.

    Attributes:
      nodes: depth first.
      names: what each slot is, such as `row 17`.
      used: tokens, padding left out.
      row_length: T.
      seen: pairs of query and key of which one sees the other.
      queries: the tokens at which something is predicted.
    """

    nodes: list[Node]
    names: list[str]
    used: int
    row_length: int
    seen: int
    queries: list[int]


def view(
    sequences: Sequence[prefix_tree.TokenSequence],
    row_length: int,
    names: list[str],
    pieces: Callable[[Sequence[int]], list[str]],
) -> PackedRow:
    """A row as the model gets it.

    Args:
      sequences: sorted, as `prefix_tree.build` wants them.
      row_length: T.
      names: of the sequences.
      pieces: gives the text of each token id by itself.
    """
    batch = prefix_tree.build([sequences], 1, row_length, prefix_tree.num_entries(sequences))
    row = jax.tree.map(lambda array: array[0], batch)
    used = prefix_tree.row_tokens(sequences)
    parents = _parents(row, used)
    tokens = _tokens(row, used, parents, pieces(row.tokens_BT[:used].tolist()), sequences)
    nodes = _nodes(row, tokens, parents)
    seen = int((row.visible_until_BT[:used] - np.arange(used)).sum())
    queries = sorted(set(row.loss_index_BM.tolist()))
    return PackedRow(nodes, names, used, row_length, seen, queries)


def _parents(row: Batch, used: int) -> list[int]:
    """The token before each token in its sequence; -1 for roots."""
    newest = {-1: -1}  # by position
    parents = []
    for index, position in enumerate(row.positions_BT[:used].tolist()):
        parents.append(newest[position - 1])
        newest[position] = index
    return parents


def _tokens(
    row: Batch,
    used: int,
    parents: list[int],
    texts: list[str],
    sequences: Sequence[prefix_tree.TokenSequence],
) -> list[Token]:
    tokens = [
        Token(index, int(row.positions_BT[index]), texts[index], [], []) for index in range(used)
    ]
    children = {(parents[i], int(row.tokens_BT[i])): i for i in range(used)}
    entries = zip(
        row.loss_index_BM, row.loss_target_BM, row.loss_weight_BM, row.loss_sequence_BM, strict=True
    )
    for index, target, weight, slot in entries:
        entry = Target(int(slot), float(weight))
        if sequences[slot].start < len(sequences[slot].tokens):
            tokens[children[int(index), int(target)]].targets.append(entry)
        else:
            tokens[int(index)].continued.append(entry)
    return tokens


def _nodes(row: Batch, tokens: list[Token], parents: list[int]) -> list[Node]:
    until = row.visible_until_BT.tolist()
    slots: dict[int, list[int]] = defaultdict(list)  # the sequences that end below a token
    for token in reversed(tokens):
        ends = {entry.slot for entry in (*token.targets, *token.continued)}
        slots[token.index] = sorted(ends | set(slots[token.index]))
        slots[parents[token.index]] = sorted({*slots[parents[token.index]], *slots[token.index]})
    nodes: list[Node] = []
    path: list[Node] = []  # from the root to the newest node
    for token in tokens:
        index = token.index
        if index and parents[index] == index - 1 and until[index] == until[index - 1]:
            nodes[-1].tokens.append(token)
            continue
        while path and path[-1].visible_until <= index:
            path.pop()
        root = not path and len(slots[index]) > 1
        hue = None if root else len(nodes) % HUES
        nodes.append(Node([token], until[index], len(path), hue, slots[index]))
        path.append(nodes[-1])
    return nodes
