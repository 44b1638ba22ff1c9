"""Models that give one label to every item of a dataset, and the accuracy of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from jft.evaluation.metrics import ACCURACY, P_GOLD
from jft.evaluation.samples import Means
from jft.evaluation.stats import Items
from jft.reporting.models import ScoredCell, ScoredItem

# A label that so many items of a dataset get, but are not of, is given to all.
ALMOST_ALL = 0.95


def with_one_label(cells: Sequence[ScoredCell]) -> dict[str, str]:
    """Find the datasets on which a model gives one label to almost every item, and that label.

    Cells whose answers are generated have none, nor have datasets of one label.
    """
    found = {}
    for name, items in _by_dataset(cells).items():
        [(label, count)] = Counter(item.prediction for item in items).most_common(1)
        golds = Counter(item.gold for item in items)
        if max(golds.values()) < ALMOST_ALL * len(items) <= count and label in golds:
            found[name] = label
    return found


def _by_dataset(cells: Iterable[ScoredCell]) -> dict[str, list[ScoredItem]]:
    found: dict[str, list[ScoredItem]] = {}
    for cell in cells:
        if cell.metric == ACCURACY or P_GOLD in cell.measures:
            found.setdefault(cell.key.dataset, []).extend(cell.items.values())
    return found


def without_room(cells: Sequence[ScoredCell]) -> tuple[str, ...]:
    """Name the datasets on which a model may be no better by accuracy than one label for all items.

    There its accuracy has no room to fall, whatever is lost: the 95 % interval of its mean over
    these cells of a dataset, which have the same items, holds the share of the commonest label.
    """
    found: dict[str, list[ScoredCell]] = {}
    for cell in cells:
        if cell.metric == ACCURACY:
            found.setdefault(cell.key.dataset, []).append(cell)
    return tuple(name for name, each in found.items() if _is_at_floor(each))


def _is_at_floor(cells: list[ScoredCell]) -> bool:
    golds = [item.gold for item in cells[0].items.values()]
    items = Items(
        [item.value for cell in cells for item in cell.items.values()],
        [index for cell in cells for index in cell.items],
        conditions=[cell.key.shots for cell in cells for _ in cell.items],
    )
    low, _ = Means.of(items.means()).interval(0.95)
    return low <= max(map(golds.count, set(golds))) / len(golds)
