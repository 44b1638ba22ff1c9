"""Items that a tuned model lost or gained against its base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jft.reporting.models import ScoredItem
from jft.reporting.pairs import Pair, split
from jft.runtime.records import Key
from jft.tasks import RELATIONS

EXAMPLES = 2


class ChangedItem(NamedTuple):
    """An item on which a model and its base differ."""

    key: Key
    item: int
    base: ScoredItem
    tuned: ScoredItem


@dataclass(frozen=True, slots=True)
class ChangedItems:
    """Items that a tuned model lost (scored lower than its base) and gained, of one relation.

    Counted in scored rows: an item counts once for each number of shots, prompt, seed and draw.
    """

    relation: str
    metric: str
    n: int
    lost: int
    gained: int
    lost_items: tuple[ChangedItem, ...]
    gained_items: tuple[ChangedItem, ...]


def changed_items(pairs: Sequence[Pair]) -> list[ChangedItems]:
    """By relation and metric."""
    paired = [each for each in pairs if each.other]
    groups = split(paired, lambda cell: (RELATIONS.index(cell.relation), cell.metric))
    return [_changed_items(group) for group in groups]


def _changed_items(pairs: list[Pair]) -> ChangedItems:
    rows = [
        ChangedItem(cell.key, index, other.items[index], item)
        for cell, other, _ in pairs
        if other
        for index, item in cell.items.items()
    ]
    lost = [row for row in rows if row.tuned.value < row.base.value]
    gained = [row for row in rows if row.tuned.value > row.base.value]
    first = pairs[0].cell
    return ChangedItems(
        first.relation, first.metric, len(rows), len(lost), len(gained),
        _clearest(lost), _clearest(gained),
    )  # fmt: skip


def _clearest(rows: list[ChangedItem]) -> tuple[ChangedItem, ...]:
    """The largest changes, of different items, in file order where they are alike."""
    chosen: dict[tuple, ChangedItem] = {}
    for row in sorted(rows, key=lambda row: -abs(row.tuned.value - row.base.value)):
        chosen.setdefault((row.key.dataset, row.item), row)
    return tuple(chosen.values())[:EXAMPLES]
