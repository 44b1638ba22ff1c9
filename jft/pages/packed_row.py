"""A view of one packed row: its tree, token by token, and the tokens that each token sees."""

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
    """A loss entry, at the token that it predicts, or at the last token of a prompt to continue."""

    sequence: int
    weight: float


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the row, and its loss entries.

    Attributes:
      index: in the row.
      position: the distance from the root.
      text: of the token by itself.
      targets: the entries that predict this token.
      continued: the entries of prompts that end with this token, and are to be continued.
    """

    index: int
    position: int
    text: str
    targets: list[Target]
    continued: list[Target]


class Node(NamedTuple):
    """A run of tokens without a branch.

    Attributes:
      tokens: of the row, from `start` to before `end`.
      visible_until: the index at which their subtree ends.
      depth: the number of branches between the node and its root.
      hue: a number below `HUES`, the next one for every node; None for a root that branches.
      sequences: those of the row that go through the node.
    """

    tokens: list[Token]
    visible_until: int
    depth: int
    hue: int | None
    sequences: list[int]

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
        """The area of a plot, keys across and queries down, in which these tokens are seen."""
        corners = [(self.start, self.start), (self.end, self.end)]
        corners += [(self.end, self.visible_until), (self.start, self.visible_until)]
        return " ".join(f"{key},{query}" for key, query in corners)


class RowView(NamedTuple):
    """A row of a batch, for display.

    Attributes:
      nodes: depth first.
      names: the name of each sequence, such as `row 17`.
      used: the number of tokens, without padding.
      row_length: T.
      seen: the number of pairs of a query and a key that it sees.
      queries: the indices of tokens at which something is predicted.
    """

    nodes: list[Node]
    names: list[str]
    used: int
    row_length: int
    seen: int
    queries: list[int]


def view_row(
    sequences: Sequence[prefix_tree.TokenSequence],
    row_length: int,
    names: list[str],
    pieces: Callable[[Sequence[int]], list[str]],
) -> RowView:
    """Lay a row out as the model gets it, and read its tree off the arrays.

    Args:
      sequences: sorted, as `prefix_tree.build` takes them.
      row_length: T.
      names: one for each sequence.
      pieces: returns the text of each token id by itself.
    """
    batch = prefix_tree.build([sequences], 1, row_length, prefix_tree.num_entries(sequences))
    row = jax.tree.map(lambda array: array[0], batch)
    used = prefix_tree.row_tokens(sequences)
    parents = _parents(row, used)
    tokens = _tokens(row, used, parents, pieces(row.tokens_BT[:used].tolist()), sequences)
    nodes = _nodes(row, tokens, parents)
    seen = int((row.visible_until_BT[:used] - np.arange(used)).sum())
    queries = sorted(set(row.loss_index_BM.tolist()))
    return RowView(nodes, names, used, row_length, seen, queries)


def _parents(row: Batch, used: int) -> list[int]:
    """Find the index of the token before each token in its sequence; -1 for roots."""
    newest = {-1: -1}  # the newest index at each position
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
    for index, target, weight, number in entries:
        entry = Target(int(number), float(weight))
        if sequences[number].start < len(sequences[number].tokens):
            tokens[children[int(index), int(target)]].targets.append(entry)
        else:
            tokens[int(index)].continued.append(entry)
    return tokens


def _nodes(row: Batch, tokens: list[Token], parents: list[int]) -> list[Node]:
    until = row.visible_until_BT.tolist()
    # The sequences through each token, collected from the ends of the sequences to the roots.
    through: dict[int, list[int]] = defaultdict(list)
    for token in reversed(tokens):
        ends = {entry.sequence for entry in (*token.targets, *token.continued)}
        through[token.index] = sorted(ends | set(through[token.index]))
        parent = parents[token.index]
        through[parent] = sorted({*through[parent], *through[token.index]})
    nodes: list[Node] = []
    path: list[Node] = []  # from the root to the newest node
    for token in tokens:
        index = token.index
        if index and parents[index] == index - 1 and until[index] == until[index - 1]:
            nodes[-1].tokens.append(token)
            continue
        while path and path[-1].visible_until <= index:
            path.pop()
        root = not path and len(through[index]) > 1
        hue = None if root else len(nodes) % HUES
        nodes.append(Node([token], until[index], len(path), hue, through[index]))
        path.append(nodes[-1])
    return nodes
