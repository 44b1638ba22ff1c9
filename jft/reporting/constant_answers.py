"""Models that give one label to every item of a dataset, and the accuracy of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from jft.evaluation.metrics import ACCURACY, P_GOLD
from jft.evaluation.samples import Means
from jft.evaluation.stats import Items
from jft.reporting.models import ScoredCell

# A label that so many items of a dataset get, but are not of, is given to all.
ALMOST_ALL = 0.95


def with_one_label(cells: Sequence[ScoredCell]) -> dict[str, str]:
    """Find the datasets on which a model gives one label to almost every item, and that label.

    It may be another label at another number of shots, or with another prompt. Cells whose answers
    are generated have none, nor have datasets of one label.
    """
    found = {}
    labelled = [cell for cell in cells if cell.metric == ACCURACY or P_GOLD in cell.measures]
    for (_, name), each in _by_dataset(labelled).items():
        labels = [one_label(cell) for cell in each]
        golds = {item.gold for item in each[0].items.values()}
        if golds.issuperset(labels):
            found[name] = " or ".join(dict.fromkeys(labels))
    return found


def one_label(cell: ScoredCell) -> str:
    """Return the label that almost every item of a cell gets; empty where there is none.

    There is none either where almost every item is of that label.
    """
    items = cell.items.values()
    [(label, count)] = Counter(item.prediction for item in items).most_common(1)
    most = max(Counter(item.gold for item in items).values())
    return label if most < ALMOST_ALL * len(items) <= count else ""


def _by_dataset(cells: Iterable[ScoredCell]) -> dict[tuple[str, str], list[ScoredCell]]:
    """Group cells by task and dataset, which may have the name of another task's."""
    found: dict[tuple[str, str], list[ScoredCell]] = {}
    for cell in cells:
        found.setdefault((cell.key.task, cell.key.dataset), []).append(cell)
    return found


def without_room(cells: Sequence[ScoredCell]) -> tuple[str, ...]:
    """Name the datasets on which a model may be no better by accuracy than one label for all items.

    There its accuracy has no room to fall, whatever is lost: the 95 % interval of its mean over
    these cells of a dataset, which have the same items, holds the share of the commonest label.
    """
    found = _by_dataset(cell for cell in cells if cell.metric == ACCURACY)
    return tuple(name for (_, name), each in found.items() if _is_at_floor(each))


def _is_at_floor(cells: list[ScoredCell]) -> bool:
    golds = [item.gold for item in cells[0].items.values()]
    items = Items(
        [item.value for cell in cells for item in cell.items.values()],
        [index for cell in cells for index in cell.items],
        conditions=[cell.key.shots for cell in cells for _ in cell.items],
    )
    low, _ = Means.of(items.means()).interval(0.95)
    return low <= max(map(golds.count, set(golds))) / len(golds)
