"""The heat map: tuned models by datasets, each cell the change against the base."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from jft.evaluation import stats
from jft.reporting import wording
from jft.reporting.collect import RELATIONS, Model
from jft.reporting.compare import Comparison, Report


class Column(NamedTuple):
    """A dataset, under the heading of its relation or its task."""

    group: str
    task: str
    dataset: str
    metric: str


@dataclass(frozen=True, slots=True)
class HeatCell:
    """A number, and how it looks.

    Attributes:
      text: the base's value, or the change in points.
      relation: of the dataset to the model's training set.
      direction: `up`, `down` or empty, for a base.
      strength: 0 to 1: the change as a share of the table's largest.
      significance: `muted` (the interval holds zero), `plain`, `strong` (adjusted p < 0.05).
      title: the change in words.
    """

    text: str
    relation: str
    direction: str = ""
    strength: float = 0.0
    significance: str = ""
    title: str = ""


class HeatRow(NamedTuple):
    """A model at one number of shots; `cells` has None where it was not scored."""

    model: str
    base: bool
    shots: int
    cells: list[HeatCell | None]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Columns under their group headings (relations or tasks), and rows, the bases' first."""

    columns: list[Column]
    rows: list[HeatRow]

    @property
    def by_task(self) -> bool:
        """Whether the headings are tasks, so that a column may relate differently to each model."""
        return any(column.group == column.task for column in self.columns)

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Each heading and how many columns stand under it."""
        return [(name, len(list(part))) for name, part in groupby(c.group for c in self.columns)]

    @property
    def models(self) -> list[tuple[str, bool, list[HeatRow]]]:
        """The rows by model: its name, whether it is a base, its rows."""
        by_model = groupby(self.rows, key=lambda row: (row.model, row.base))
        return [(name, base, list(rows)) for (name, base), rows in by_model]


def heatmap(report: Report) -> HeatMap:
    """Lay out the changes by dataset, averaged over prompts.

    Columns stand by relation where all models have one training set, otherwise by task.
    """
    columns = _columns(report)
    changes = [c for s in report.subjects for c in s.datasets if c.difference]
    largest = max((abs(c.difference.value) for c in changes if c.difference), default=0) or 1.0
    rows = [row for base in report.bases for row in _base_rows(base, columns)]
    for subject in report.subjects:
        found = {(c.task, c.dataset, c.metric, c.shots): c for c in subject.datasets}
        for shots in sorted({c.shots for c in subject.datasets if c.shots is not None}):
            cells = [found.get((*column[1:], shots)) for column in columns]
            looks = [_heat_cell(c, largest) if c else None for c in cells]
            rows.append(HeatRow(subject.model.name, False, shots, looks))
    return HeatMap(columns, rows)


def _columns(report: Report) -> list[Column]:
    ranks: dict[tuple, set[int]] = {}
    for comparison in (c for s in report.subjects for c in s.datasets):
        place = (comparison.task, comparison.dataset, comparison.metric)
        ranks.setdefault(place, set()).add(RELATIONS.index(comparison.relation))
    one_training_set = len({(s.model.train_task, s.model.train) for s in report.subjects}) == 1
    closest_of_task: dict[str, int] = {}
    for (task, _, _), found in ranks.items():
        closest_of_task[task] = min(found | {closest_of_task.get(task, 9)})

    def order(place: tuple) -> tuple:
        return (closest_of_task[place[0]], place[0], min(ranks[place]), *place)

    def group(place: tuple) -> str:
        return RELATIONS[min(ranks[place])] if one_training_set else place[0]

    return [Column(group(place), *place) for place in sorted(ranks, key=order)]


def _base_rows(base: Model, columns: list[Column]) -> list[HeatRow]:
    rows = []
    for shots in sorted({key.shots for key in base.cells}):
        rows.append(HeatRow(base.name, True, shots, [_value(base, c, shots) for c in columns]))
    return [row for row in rows if any(row.cells)]


def _value(base: Model, column: Column, shots: int) -> HeatCell | None:
    wanted = (column.task, column.dataset, shots, column.metric)
    cells = [
        cell
        for key, cell in base.cells.items()
        if (key.task, key.dataset, key.shots, key.metric) == wanted
    ]
    if not cells:
        return None
    values = [item.value for cell in cells for item in cell.items.values()]
    mean = stats.grouped_mean(values, [index for cell in cells for index in cell.items])
    return HeatCell(wording.percent(mean).replace(f"{wording.SPACE}%", ""), "base")


def _heat_cell(comparison: Comparison, largest: float) -> HeatCell:
    difference = comparison.difference
    if difference is None:
        text = wording.percent(comparison.value).replace(f"{wording.SPACE}%", "")
        return HeatCell(text, comparison.relation, significance="muted", title="no base")
    strong = comparison.p_holm is not None and comparison.p_holm < wording.ALPHA
    return HeatCell(
        text=wording.points(difference.value),
        relation=comparison.relation,
        direction="up" if difference.value > 0 else "down" if difference.value < 0 else "",
        strength=round(abs(difference.value) / largest, 3),
        significance="muted" if not difference.significant else "strong" if strong else "plain",
        title=f"{comparison.relation}, {wording.interval(comparison)}",
    )
