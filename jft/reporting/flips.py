"""Items that a tuned model lost or gained against its base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jft.reporting.collect import Item, Key
from jft.reporting.pairs import Pair, split
from jft.tasks import RELATIONS

EXAMPLES = 2


class Example(NamedTuple):
    """An item on which a model and its base differ."""

    key: Key
    item: int
    base: Item
    tuned: Item


@dataclass(frozen=True, slots=True)
class Flips:
    """Items that a tuned model lost (scored lower than its base) and gained, of one relation.

    Counted in scored rows: an item counts once for each number of shots, prompt, seed and draw.
    """

    relation: str
    metric: str
    n: int
    lost: int
    gained: int
    lost_examples: tuple[Example, ...]
    gained_examples: tuple[Example, ...]


def flips(pairs: Sequence[Pair]) -> list[Flips]:
    """By relation and metric."""
    paired = [each for each in pairs if each.other]
    groups = split(paired, lambda cell: (RELATIONS.index(cell.relation), cell.metric))
    return [_flips(group) for group in groups]


def _flips(pairs: list[Pair]) -> Flips:
    rows = [
        Example(cell.key, index, other.items[index], item)
        for cell, other, _ in pairs
        if other
        for index, item in cell.items.items()
    ]
    lost = [row for row in rows if row.tuned.value < row.base.value]
    gained = [row for row in rows if row.tuned.value > row.base.value]
    first = pairs[0].cell
    return Flips(
        first.relation, first.metric, len(rows), len(lost), len(gained),
        _clearest(lost), _clearest(gained),
    )  # fmt: skip


def _clearest(rows: list[Example]) -> tuple[Example, ...]:
    """The largest changes, of different items, in file order where they are alike."""
    chosen: dict[tuple, Example] = {}
    for row in sorted(rows, key=lambda row: -abs(row.tuned.value - row.base.value)):
        chosen.setdefault((row.key.dataset, row.item), row)
    return tuple(chosen.values())[:EXAMPLES]
