"""Comparisons: models against a reference, on the items that both were scored on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jft.errors import UserError
from jft.evaluation import stats
from jft.reporting.collect import RELATIONS, Cell, Key, Model


class Pair(NamedTuple):
    """A cell of a model and the reference's, with the same items; None where it has none.

    `seed` is that of the model's training: one of the choices that a mean is taken over.
    """

    cell: Cell
    other: Cell | None
    seed: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Models against a reference, on one cell or the mean of several.

    A mean is over the seeds, prompts, draws and shots of an item, then the items of a dataset, then
    the datasets.

    Attributes:
      level: `relation` (several datasets), `dataset` (without demonstrations, or over all numbers
        of them) or `cell`.
      model, reference: names; no reference: nothing to compare with.
      task, dataset, shots, prompt, draw: None where several are averaged.
      value, reference_value: of the metric, in [0, 1], on the items that both have.
      difference: value minus reference_value.
      spreads: of the difference over `prompts`, `seeds` and `draws`, where there are several.
      p_holm: its p-value adjusted for all comparisons of one table.
      n: distinct items.
      datasets: their names.
    """

    level: str
    model: str
    reference: str | None
    relation: str
    metric: str
    task: str | None
    dataset: str | None
    shots: int | None
    prompt: int | None
    draw: int | None
    value: float
    reference_value: float | None
    difference: stats.Difference | None
    spreads: dict[str, stats.Spread]
    p_holm: float | None
    n: int
    datasets: tuple[str, ...]


def pair(model: Model, name: str | None, reference: dict[Key, Cell]) -> list[Pair]:
    """Each cell with the reference's, both cut down to the items that both have.

    Raises:
      UserError: the two were scored on different data under one name.
    """
    pairs = []
    for key, cell in sorted(model.cells.items(), key=lambda pair: _order(pair[1])):
        other = reference.get(key)
        alike = other if other and other.metric == cell.metric else None
        common = sorted(cell.items.keys() & alike.items.keys()) if alike else []
        if not alike or not common:
            pairs.append(Pair(cell, None, model.seed))
            continue
        _check_same_data(model, name, key, cell, alike, common)
        pairs.append(Pair(_only(cell, common), _only(alike, common), model.seed))
    return pairs


def by_relation(
    model: str, reference: str | None, pairs: Sequence[Pair], each_shots: bool = True
) -> list[Comparison]:
    """For each relation and metric: over all shots first, then each number of shots."""
    comparisons = []
    for group in split(pairs, lambda cell: (RELATIONS.index(cell.relation), cell.metric)):
        by_shots = split(group, lambda cell: cell.key.shots) if each_shots else []
        for part in [group] + (by_shots if len(by_shots) > 1 else []):
            comparisons.append(comparison("relation", model, reference, part))
    return comparisons


def by_dataset(model: str, reference: str | None, pairs: Sequence[Pair]) -> list[Comparison]:
    """For each dataset: without demonstrations, and over all numbers of them."""
    groups = split(
        pairs,
        lambda cell: (_order(cell)[0], cell.key.task, cell.key.dataset, cell.key.shots > 0),
    )
    return [comparison("dataset", model, reference, group) for group in groups]


def by_cell(model: str, reference: str | None, pairs: Sequence[Pair]) -> list[Comparison]:
    """For each cell: over seeds."""
    groups = split(pairs, lambda cell: (_order(cell)[0], cell.key))
    return [comparison("cell", model, reference, group) for group in groups]


def split(pairs: Iterable[Pair], by: Callable[[Cell], Any]) -> list[list[Pair]]:
    """Groups of pairs whose cells `by` maps to the same, in its order."""
    groups: dict = {}
    for each in pairs:
        groups.setdefault(by(each.cell), []).append(each)
    return [groups[key] for key in sorted(groups)]


def comparison(level: str, model: str, reference: str | None, pairs: Sequence[Pair]) -> Comparison:
    """The mean over some cells; those without a reference count only where none has one."""
    paired = [each for each in pairs if each.other]
    used = paired or list(pairs)
    rows = _Rows(used)
    others = [item.value for _, other, _ in paired if other for item in other.items.values()]
    first = used[0].cell
    difference = None
    if paired:
        difference = stats.paired_difference(rows.values, others, rows.items, rows.datasets)
    return Comparison(
        level=level,
        model=model,
        reference=reference if paired else None,
        relation=first.relation,
        metric=first.metric,
        **_shared([each.cell.key for each in used], level),
        value=stats.grouped_mean(rows.values, rows.items, rows.datasets),
        reference_value=stats.grouped_mean(others, rows.items, rows.datasets) if paired else None,
        difference=difference,
        spreads=rows.spreads(others) if paired and level == "relation" else {},
        p_holm=None,
        n=len(set(zip(rows.datasets, rows.items, strict=True))),
        datasets=tuple(rows.names),
    )


class _Rows:
    """The items of some pairs as columns."""

    def __init__(self, pairs: Sequence[Pair]):
        self.names = sorted({f"{p.cell.key.task}/{p.cell.key.dataset}" for p in pairs})
        self.values: list[float] = []
        self.items: list[int] = []
        self.datasets: list[int] = []
        self.choices: dict[str, list[int]] = {"prompts": [], "seeds": [], "draws": []}
        self.shots: list[int] = []
        for cell, _, seed in pairs:
            n, key = len(cell.items), cell.key
            self.values += [item.value for item in cell.items.values()]
            self.items += cell.items
            self.datasets += [self.names.index(f"{key.task}/{key.dataset}")] * n
            self.shots += [key.shots] * n
            for name, value in (("prompts", key.prompt), ("seeds", seed), ("draws", key.draw)):
                self.choices[name] += [value] * n

    def spreads(self, others: list[float]) -> dict[str, stats.Spread]:
        """Of the difference, over each kind of choice that there are several of."""
        found: dict[str, stats.Spread] = {}
        for name, levels in self.choices.items():
            # Without demonstrations there is nothing to draw.
            used = [i for i, shots in enumerate(self.shots) if shots or name != "draws"]
            if len({levels[i] for i in used}) > 1:
                spread = stats.spread(
                    [self.values[i] - others[i] for i in used],
                    *([column[i] for i in used] for column in (levels, self.items, self.datasets)),
                )
                found |= {name: spread} if spread else {}
        return found


def _shared(keys: list[Key], level: str) -> dict:
    """The parts of the keys that all have in common; a relation is of no one dataset."""
    fields = ("shots", "prompt", "draw") + (("task", "dataset") if level != "relation" else ())
    common = {name: {getattr(key, name) for key in keys} for name in fields}
    shared = {name: values.pop() if len(values) == 1 else None for name, values in common.items()}
    return {"task": None, "dataset": None} | shared


def _check_same_data(model, name, key: Key, cell: Cell, other: Cell, common: list[int]) -> None:
    for index in common:
        if cell.items[index].gold != other.items[index].gold:
            raise UserError(
                f"{key}: item {index} has the gold output {cell.items[index].gold!r} for "
                f"{model.name} and {other.items[index].gold!r} for {name}; score both on the same "
                "data.root"
            )


def _only(cell: Cell, indices: list[int]) -> Cell:
    return dataclasses.replace(cell, items={i: cell.items[i] for i in indices})


def _order(cell: Cell) -> tuple:
    relations = ("base", *RELATIONS)
    return (relations.index(cell.relation), *cell.key)
