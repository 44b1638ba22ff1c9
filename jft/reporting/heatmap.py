"""The transfer matrix: tuned models by datasets, each cell the change against the base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from jft.evaluation import stats
from jft.evaluation.metrics import ACCURACY, BITS, METRICS
from jft.reporting import wording
from jft.reporting.compare import Report
from jft.reporting.comparison import Comparison
from jft.reporting.models import ScoredCell, ScoredModel
from jft.runtime.records import Key
from jft.tasks import RELATIONS, RETENTION_TASKS

CONSTANT = "always the most common label"

# A task, a dataset and a metric.
Place = tuple[str, str, str]


class Column(NamedTuple):
    """A dataset, under the heading of its relation or its task; n is the most items of it."""

    group: str
    task: str
    dataset: str
    metric: str
    n: int


@dataclass(frozen=True, slots=True)
class HeatCell:
    """A number of the matrix, and its look.

    Attributes:
      text: the base's value, or the change in points.
      relation: of the dataset to the model's training set.
      direction: `up`, `down` or empty, for a base.
      strength: 0 to 1: the change as a share of the table's largest.
      significance: `muted` (no measurable change), `plain`, `strong` (adjusted p < 0.05).
      title: the change in words.
    """

    text: str
    relation: str
    direction: str = ""
    strength: float = 0.0
    significance: str = ""
    title: str = ""


class HeatRow(NamedTuple):
    """A model; `cells` has None where it was not scored."""

    model: str
    base: bool
    cells: list[HeatCell | None]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Columns under their group headings (relations or tasks), and rows, the bases' first.

    All cells are means over `shots`, which are none for the retention panel.
    """

    shots: list[int]
    columns: list[Column]
    rows: list[HeatRow]

    @property
    def title(self) -> str:
        """`0 shots`, or `2, 4 shots`, or `Retention`."""
        return f"{', '.join(map(str, self.shots))} shots" if self.shots else "Retention"

    @property
    def has_bits(self) -> bool:
        """True where some columns are of texts."""
        return any(column.metric == BITS for column in self.columns)

    @property
    def by_task(self) -> bool:
        """True where the headings are tasks: a column may relate differently to each model."""
        return any(column.group == column.task for column in self.columns)

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The headings, each with the number of its columns."""
        return [(name, len(list(part))) for name, part in groupby(c.group for c in self.columns)]


def heatmaps(report: Report) -> list[HeatMap]:
    """Make the transfer matrices without and with demonstrations, as far as these were scored.

    The retention panel has its own. Columns stand by relation where all models have one training
    set, otherwise by task.
    """
    every = _columns(report)
    columns = [column for column in every if column.task not in RETENTION_TASKS]
    retention = [column for column in every if column.task in RETENTION_TASKS]
    changes = [c for s in report.recipes for c in s.datasets if c.difference]
    largest = max((abs(c.difference.value) for c in changes if c.difference), default=0) or 1.0
    shots = sorted({key.shots for model in report.models for key in model.cells})
    tables = [[n for n in shots if (n > 0) is demos] for demos in (False, True)]
    found = [
        HeatMap(table, columns, _rows(report, columns, table[0] > 0, largest))
        for table in tables
        if table and columns
    ]
    if retention:
        found.append(HeatMap([], retention, _rows(report, retention, False, largest)))
    return found


def _rows(report: Report, columns: list[Column], demos: bool, largest: float) -> list[HeatRow]:
    """Fill the rows of a table; `demos` asks for cells with demonstrations, or without."""
    asked = {p.cell.key for recipe in report.recipes for p in recipe.pairs}
    rows = [
        HeatRow(base.name, True, [_value(base, column, demos, asked) for column in columns])
        for base in report.bases
    ]
    for recipe in report.recipes:
        known = {
            (c.task, c.dataset, c.metric): c for c in recipe.datasets if (c.shots != 0) is demos
        }
        found = [known.get((column.task, column.dataset, column.metric)) for column in columns]
        cells = [_heat_cell(c, largest) if c else None for c in found]
        rows.append(HeatRow(recipe.name, False, cells))
    constant = HeatRow(CONSTANT, True, [_constant(report, column, demos) for column in columns])
    return [row for row in (constant, *rows) if any(row.cells)]


def _constant(report: Report, column: Column, demos: bool) -> HeatCell | None:
    """Compute the accuracy of giving the most common label always."""
    cells = [c for model in report.models for c in _cells(model, column, demos)]
    if column.metric != ACCURACY or not cells:
        return None
    gold = {index: item.gold for cell in cells for index, item in cell.items.items()}
    share = Counter(gold.values()).most_common(1)[0][1] / len(gold)
    return HeatCell(wording.points(share, signed=False), "base")


def _columns(report: Report) -> list[Column]:
    ranks: dict[Place, set[int]] = {}
    sizes: dict[Place, int] = {}
    for comparison in (c for s in report.recipes for c in s.datasets):
        place = (comparison.task or "", comparison.dataset or "", comparison.metric)
        ranks.setdefault(place, set()).add(RELATIONS.index(comparison.relation))
        sizes[place] = max(comparison.n, sizes.get(place, 0))
    first = [recipe.first for recipe in report.recipes]
    one_training_set = len({(model.train_task, model.train) for model in first}) == 1
    closest_of_task: dict[str, int] = {}
    for (task, _, _), found in ranks.items():
        closest_of_task[task] = min(found | {closest_of_task.get(task, 9)})

    def order(place: Place) -> tuple:
        return (closest_of_task[place[0]], place[0], min(ranks[place]), *place)

    def group(place: Place) -> str:
        return RELATIONS[min(ranks[place])] if one_training_set else place[0]

    return [Column(group(place), *place, sizes[place]) for place in sorted(ranks, key=order)]


def _value(
    base: ScoredModel, column: Column, demos: bool, asked: Container[Key]
) -> HeatCell | None:
    """Average a base over the cells that tuned models were asked, too."""
    cells = [cell for cell in _cells(base, column, demos) if cell.key in asked]
    if not cells:
        return None
    values = [item.value for cell in cells for item in cell.items.values()]
    items = [index for cell in cells for index in cell.items]
    shots = [cell.key.shots for cell in cells for _ in cell.items]
    mean = stats.grouped_mean(stats.Items(values, items, conditions=shots))
    return HeatCell(wording.points(mean, False, column.metric), "base")


def _cells(model: ScoredModel, column: Column, demos: bool) -> list[ScoredCell]:
    wanted = (column.task, column.dataset, demos, column.metric)
    return [
        cell
        for key, cell in model.cells.items()
        if (key.task, key.dataset, key.shots > 0, cell.metric) == wanted
    ]


def _heat_cell(comparison: Comparison, largest: float) -> HeatCell:
    difference = comparison.difference
    if difference is None:
        text = wording.points(comparison.value, False, comparison.metric)
        return HeatCell(text, comparison.relation, significance="muted", title="no base")
    better = difference.value * METRICS[comparison.metric].direction
    significance = "strong" if wording.is_strong(comparison) else "plain"
    return HeatCell(
        text=wording.points(difference.value, metric=comparison.metric),
        relation=comparison.relation,
        direction="up" if better > 0 else "down" if better < 0 else "",
        strength=round(abs(difference.value) / largest, 3),
        significance=significance if comparison.decided else "muted",
        title=f"{comparison.relation}, {wording.interval(comparison)}, n = {comparison.n}",
    )
