"""Comparisons: models against a reference, on the items that both were scored on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jft.errors import UserError
from jft.evaluation import stats
from jft.reporting.models import ScoredCell, ScoredModel
from jft.runtime.records import Key
from jft.tasks import RELATIONS


class Pair(NamedTuple):
    """A model's cell and the reference's, with the same items; None where it has none."""

    cell: ScoredCell
    other: ScoredCell | None
    model: ScoredModel


# What a mean is taken over besides items, datasets and shots.
CHOICES: dict[str, Callable[[Pair], int]] = {
    "prompts": lambda pair: pair.cell.key.prompt,
    "seeds": lambda pair: pair.model.seed,
    "draws": lambda pair: pair.cell.key.draw,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Models against a reference, on one cell or the mean of several.

    A mean is over the seeds, prompts, draws and shots of an item, then the items of a dataset, then
    the datasets.

    Attributes:
      level: `group` (several models), `relation` (several datasets), `contrast` (the same, FTICL
        against FT), `dataset` (without demonstrations, or over all numbers of them) or `cell`.
      model, reference: names; no reference: nothing to compare with.
      task, dataset, shots, prompt, draw: None where several are averaged.
      value, reference_value: of the metric, in [0, 1], on the items that both have.
      difference: value minus reference_value.
      spreads: of the difference over `prompts`, `seeds` and `draws`, where there are several.
      p_holm: its p-value adjusted for all comparisons of one table.
      n: distinct items.
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


def pair(model: ScoredModel, name: str | None, reference: dict[Key, ScoredCell]) -> list[Pair]:
    """Each cell with the reference's, both cut down to the items that both have.

    Raises:
      UserError: the two were asked different things under one name.
    """
    pairs = []
    for key, cell in sorted(model.cells.items(), key=lambda pair: _order(pair[1])):
        other = reference.get(key)
        alike = other if other and other.metric == cell.metric else None
        common = sorted(cell.items.keys() & alike.items.keys()) if alike else []
        if not alike or not common:
            pairs.append(Pair(cell, None, model))
            continue
        _check_same_items(model, name, key, cell, alike, common)
        pairs.append(Pair(_only(cell, common), _only(alike, common), model))
    return pairs


def by_group(name: str, reference: str | None, pairs: Sequence[Pair]) -> list[Comparison]:
    """For each relation and metric, over all models of a group and all shots."""
    return [comparison("group", name, reference, part) for part in _by_relation(pairs)]


def by_relation(
    model: str, reference: str | None, pairs: Sequence[Pair], level: str = "relation"
) -> list[Comparison]:
    """For each relation and metric: over all shots first, then each number of shots."""
    comparisons = []
    for group in _by_relation(pairs):
        whole = comparison(level, model, reference, group)
        by_shots = split(group, lambda cell: cell.key.shots)
        parts = [comparison(level, model, reference, part) for part in by_shots]
        # Where the reference has one number of shots only, the whole is that part.
        comparisons += [whole, *(part for part in parts if part.shots != whole.shots)]
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


def _by_relation(pairs: Iterable[Pair]) -> list[list[Pair]]:
    return split(pairs, lambda cell: (RELATIONS.index(cell.relation), cell.metric))


def split(pairs: Iterable[Pair], by: Callable[[ScoredCell], Any]) -> list[list[Pair]]:
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
    first = used[0].cell
    difference = None
    if paired:
        difference = stats.paired_difference(rows.values, rows.others, rows.items, rows.datasets)
    wide = level not in ("dataset", "cell")
    known = {name: _spread(used, name) for name in CHOICES} if paired and wide else {}
    return Comparison(
        level=level,
        model=model,
        reference=reference if paired else None,
        relation=first.relation,
        metric=first.metric,
        **_shared([each.cell.key for each in used], wide),
        value=stats.grouped_mean(rows.values, rows.items, rows.datasets),
        reference_value=stats.grouped_mean(rows.others, rows.items, rows.datasets)
        if paired
        else None,
        difference=difference,
        spreads={name: spread for name, spread in known.items() if spread},
        p_holm=None,
        n=len(set(zip(rows.datasets, rows.items, strict=True))),
    )


class _Rows:
    """The items of some pairs as columns; `names` are those of the datasets."""

    def __init__(self, pairs: Sequence[Pair]):
        self.names = sorted({f"{p.cell.key.task}/{p.cell.key.dataset}" for p in pairs})
        self.values: list[float] = []
        self.others: list[float] = []
        self.items: list[int] = []
        self.datasets: list[int] = []
        for cell, other, _ in pairs:
            self.values += [item.value for item in cell.items.values()]
            self.others += [item.value for item in other.items.values()] if other else []
            self.items += cell.items
            name = f"{cell.key.task}/{cell.key.dataset}"
            self.datasets += [self.names.index(name)] * len(cell.items)


def _spread(pairs: Sequence[Pair], name: str) -> stats.Spread | None:
    """Of the difference over one kind of choice, on the cells that were scored at all its levels.

    Cells without demonstrations are the same at every draw.
    """
    level_of = CHOICES[name]
    drawn = [bool(each.cell.key.shots) or name != "draws" for each in pairs]
    levels = sorted({level_of(each) for each, chosen in zip(pairs, drawn, strict=True) if chosen})
    if len(levels) < 2:
        return None
    placed = [
        (level, each)
        for each, chosen in zip(pairs, drawn, strict=True)
        for level in ([level_of(each)] if chosen else levels)
    ]
    found: dict[tuple, set[int]] = {}
    for level, each in placed:
        found.setdefault(_but(each, name), set()).add(level)
    whole = [(level, each) for level, each in placed if len(found[_but(each, name)]) == len(levels)]
    if not whole:
        return None
    rows = _Rows([each for _, each in whole])
    return stats.spread(
        [value - other for value, other in zip(rows.values, rows.others, strict=True)],
        [level for level, each in whole for _ in each.cell.items],
        rows.items,
        rows.datasets,
    )


def _but(pair: Pair, name: str) -> tuple:
    """All that tells a cell from others except one choice."""
    key, others = pair.cell.key, [of(pair) for other, of in CHOICES.items() if other != name]
    return (*pair.model.recipe_and_step, key.task, key.dataset, key.shots, *others)


def _shared(keys: list[Key], wide: bool) -> dict:
    """The parts of the keys that all have in common; a relation is of no one dataset."""
    fields = ("shots", "prompt", "draw") + (() if wide else ("task", "dataset"))
    common = {name: {getattr(key, name) for key in keys} for name in fields}
    shared = {name: values.pop() if len(values) == 1 else None for name, values in common.items()}
    return {"task": None, "dataset": None} | shared


def _check_same_items(
    model, name, key: Key, cell: ScoredCell, other: ScoredCell, common: list[int]
) -> None:
    for index in common:
        one, two = cell.items[index], other.items[index]
        if one.gold != two.gold:
            raise UserError(
                f"{key}: item {index} has the gold output {one.gold!r} for {model.name} and "
                f"{two.gold!r} for {name}; score both on the same data.root"
            )
        if one.request != two.request:
            raise UserError(
                f"{key}: item {index} was put to {model.name} in other words than to {name}: the "
                "data, the template, the demonstrations or a limit (max_length, max_new_tokens) "
                "have changed between the two; score both with the same"
            )


def _only(cell: ScoredCell, indices: list[int]) -> ScoredCell:
    return dataclasses.replace(cell, items={i: cell.items[i] for i in indices})


def _order(cell: ScoredCell) -> tuple:
    relations = ("base", *RELATIONS)
    return (relations.index(cell.relation), *cell.key)
