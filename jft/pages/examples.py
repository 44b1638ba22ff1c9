"""Examples of a training run, token by token: what the model sees, and which of it is predicted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from jft.checkpoints.tokenizer import Tokenizer
from jft.data import prefix_tree
from jft.data.prompting.prompts import Encoded
from jft.data.train_batches import Batches
from jft.pages.packed_row import Node, RowView, view_row

PER_SET = 3
# Longer examples are shown only where there are no others.
LONGEST = 2000
# Sequences, and examples of a set among them, that are looked at for short ones.
FIRST, CANDIDATES = 10_000, 100
# Characters of an example on a terminal.
MAX_CHARACTERS = 4000


class ExampleView(NamedTuple):
    """An example with its demonstrations.

    Attributes:
      name: of its row.
      row: its sequences, as one row that holds nothing else.
      targets: the number of tokens that are predicted.
    """

    name: str
    row: RowView
    targets: int

    @property
    def counts(self) -> str:
        """The numbers of its tokens, and of those that are predicted."""
        share = self.targets / self.row.used
        return f"{self.row.used:,} tokens, {self.targets:,} of them predicted ({share:.0%})"


def view_examples(batches: Batches, tokenizer: Tokenizer) -> list[ExampleView]:
    """Show a few examples of each training set."""
    return [view for _, view in _views(batches, tokenizer)]


def _views(batches: Batches, tokenizer: Tokenizer) -> list[tuple[int, ExampleView]]:
    """Choose a few examples of each training set, of the first steps, and lay each out alone."""
    chosen: list[int] = []
    for number in range(len(batches.sets)):
        items = list(itertools.islice(_trained_items(batches, number), CANDIDATES))
        short = [i for i in items if batches.encoded[i].length <= LONGEST]
        chosen += short[:PER_SET] or sorted(items, key=lambda i: batches.encoded[i].length)[:1]
    return [
        (batches.examples[i][0], _view(name_of(batches, i), batches.encoded[i], tokenizer))
        for i in chosen
    ]


def one_of_each_set(batches: Batches, tokenizer: Tokenizer) -> list[ExampleView]:
    """Take the first example of each training set."""
    first: dict[int, ExampleView] = {}
    for number, view in _views(batches, tokenizer):
        first.setdefault(number, view)
    return list(first.values())


def _trained_items(batches: Batches, number: int) -> Iterator[int]:
    """List the items of a set that the run trains on, step after step, each once."""
    pairs = (pair for step in batches.packed for row in step.rows for pair in sorted(row))
    yield from dict.fromkeys(
        i for i, _ in itertools.islice(pairs, FIRST) if batches.examples[i][0] == number
    )


def name_of(batches: Batches, item: int) -> str:
    """Name an item by its row, and by its set where there are several."""
    number, index = batches.examples[item]
    of = f" of {batches.datasets[number].name}" * (len(batches.sets) > 1)
    return f"row {index}{of}"


def _view(name: str, encoded: Encoded, tokenizer: Tokenizer) -> ExampleView:
    order = prefix_tree.order(encoded.packed)
    sequences = [encoded.packed[j] for j in order]
    names = [_name(encoded, j) for j in order]
    row = view_row(sequences, prefix_tree.row_tokens(sequences), names, tokenizer.pieces)
    targets = sum(bool(token.targets) for node in row.nodes for token in node.tokens)
    return ExampleView(name, row, targets)


def _name(encoded: Encoded, j: int) -> str:
    """Name a sequence of an example: its answer, one of its turns, or a demonstration's output."""
    own = len(encoded.sequences)
    if j >= own:
        return f"demonstration {j - own + 1}"
    return f"turn {j + 1} of {own}" if own > 1 else "the answer"


def in_text(example: ExampleView) -> str:
    """Write an example for a terminal: what branches off begins on a line of its own."""
    text = "\n".join(map(_node_text, example.row.nodes))
    cut = text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} ..."
    return f"An example, {example.name} (from 0): {example.counts}, those between « and »\n{cut}"


def _node_text(node: Node) -> str:
    runs = itertools.groupby(node.tokens, lambda token: bool(token.targets))
    text = "".join(_run_text("".join(t.text for t in run), predicted) for predicted, run in runs)
    margin = "  " * (node.depth + 1)
    return margin + text.strip("\n").replace("\n", f"\n{margin}")


def _run_text(text: str, predicted: bool) -> str:
    """Mark a run of tokens that are predicted, and its line ends, the last of which follows it."""
    if not predicted:
        return text
    lines = text.replace("\n", "\u21b5\n")
    end = "\n" * lines.endswith("\n")
    return f"«{lines.removesuffix(end)}»{end}"
