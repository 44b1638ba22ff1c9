"""Compares every tuned model with its base, and FTICL with FT, on the items both were scored on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from jft.errors import UserError
from jft.evaluation import stats
from jft.reporting import notes as notes_lib
from jft.reporting.collect import RELATIONS, Cell, Item, Key, Model, merge_cells

EXAMPLES = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model against a reference, on one cell or the mean of several.

    A mean is over the prompts and shots of an item, then the items of a dataset, then the datasets.

    Attributes:
      level: `relation` (several datasets), `dataset` (several prompts) or `cell`.
      model, reference: names; no reference: nothing to compare with.
      task, dataset, shots, prompt, draw: None where several are averaged.
      value, reference_value: of the metric, in [0, 1], on the items that both have.
      difference: value minus reference_value.
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
    p_holm: float | None
    n: int
    datasets: tuple[str, ...]


class Example(NamedTuple):
    """An item on which a model and its base differ."""

    key: Key
    item: int
    base: Item
    tuned: Item


@dataclass(frozen=True, slots=True)
class Flips:
    """Items that a tuned model lost (scored lower than its base) and gained, of one relation.

    Counted in scored rows: an item counts once for each prompt and number of shots.
    """

    relation: str
    metric: str
    n: int
    lost: int
    gained: int
    lost_examples: tuple[Example, ...]
    gained_examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """A tuned model, its base's name, and everything known about it against the base."""

    model: Model
    base: str | None
    relations: list[Comparison]
    datasets: list[Comparison]
    cells: list[Comparison]
    flips: list[Flips]


@dataclass(frozen=True, slots=True)
class Contrast:
    """A model trained with demonstrations against one trained without, on the same training set."""

    fticl: Model
    ft: Model
    relations: list[Comparison]


@dataclass(frozen=True, slots=True)
class Report:
    """What the report tells, whatever it is written in.

    Attributes:
      bases: models that were not fine-tuned here.
      subjects: the tuned models.
      contrasts: FTICL against FT.
      gaps: the evaluations that are missing, and the commands for them.
      notes: what else to beware of.
    """

    bases: list[Model]
    subjects: list[Subject]
    contrasts: list[Contrast]
    gaps: list[str]
    notes: list[str]

    @property
    def comparisons(self) -> list[Comparison]:
        """All of them, table by table."""
        return [
            *(c for subject in self.subjects for c in subject.relations),
            *(c for contrast in self.contrasts for c in contrast.relations),
            *(c for subject in self.subjects for c in subject.datasets),
            *(c for subject in self.subjects for c in subject.cells),
        ]


def compare(models: list[Model]) -> Report:
    """Compare each tuned model with its base, and FTICL with FT.

    Raises:
      UserError: two models were scored on different data under one name.
    """
    bases = [model for model in models if model.is_base]
    tuned = [model for model in models if not model.is_base]
    gaps = [note for model in tuned for note in notes_lib.missing(model, _bases(model, bases))]
    notes: list[str] = []
    subjects = [_subject(model, _bases(model, bases), notes) for model in tuned]
    contrasts = [_contrast(fticl, ft) for fticl in tuned for ft in tuned if _contrasts(fticl, ft)]
    notes += notes_lib.cautions(models)
    return Report(
        bases=bases,
        subjects=_adjust_subjects(subjects),
        contrasts=_adjust(contrasts, "relations"),
        gaps=gaps,
        notes=list(dict.fromkeys(notes)),
    )


def _bases(model: Model, bases: list[Model]) -> list[Model]:
    return [base for base in bases if base.path == model.base]


def _subject(model: Model, bases: list[Model], notes: list[str]) -> Subject:
    name = bases[0].name if bases else None
    reference = merge_cells(bases)
    notes += notes_lib.unequal(model, name, reference)
    pairs = _pairs(model, name, reference)
    return Subject(
        model,
        name,
        _relations(model.name, name, pairs),
        _datasets(model.name, name, pairs),
        [_comparison("cell", model.name, name, [pair]) for pair in pairs],
        _flips(pairs),
    )


def _contrasts(fticl: Model, ft: Model) -> bool:
    same = (fticl.train_task, fticl.train, fticl.base) == (ft.train_task, ft.train, ft.base)
    return same and ft.train_shots == 0 < fticl.train_shots


def _contrast(fticl: Model, ft: Model) -> Contrast:
    pairs = [pair for pair in _pairs(fticl, ft.name, ft.cells) if pair[1]]
    return Contrast(fticl, ft, _relations(fticl.name, ft.name, pairs))


Pair = tuple[Cell, Cell | None]


def _pairs(model: Model, name: str | None, reference: dict[Key, Cell]) -> list[Pair]:
    """Each cell with the reference's, both cut down to the items that both have."""
    pairs: list[Pair] = []
    for key, cell in sorted(model.cells.items(), key=lambda pair: _order(pair[1])):
        other = reference.get(key)
        common = sorted(cell.items.keys() & other.items.keys()) if other else []
        if not other or not common:
            pairs.append((cell, None))
            continue
        _check_same_data(model, name, key, cell, other, common)
        pairs.append((_only(cell, common), _only(other, common)))
    return pairs


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


def _relations(model: str, reference: str | None, pairs: list[Pair]) -> list[Comparison]:
    """For each relation and metric: over all shots first, then each number of shots."""
    comparisons = []
    for group in _split(pairs, lambda cell: (RELATIONS.index(cell.relation), cell.key.metric)):
        by_shots = _split(group, lambda cell: cell.key.shots)
        for part in [group] + (by_shots if len(by_shots) > 1 else []):
            comparisons.append(_comparison("relation", model, reference, part))
    return comparisons


def _datasets(model: str, reference: str | None, pairs: list[Pair]) -> list[Comparison]:
    """For each dataset and number of shots: over the prompts."""
    groups = _split(pairs, lambda cell: (_order(cell)[0], cell.key._replace(prompt=0, draw=0)))
    return [_comparison("dataset", model, reference, group) for group in groups]


def _split(pairs: list[Pair], by) -> list[list[Pair]]:
    groups: dict = {}
    for pair in pairs:
        groups.setdefault(by(pair[0]), []).append(pair)
    return [groups[key] for key in sorted(groups)]


def _comparison(level: str, model: str, reference: str | None, pairs: list[Pair]) -> Comparison:
    """The mean over some cells; those without a reference count only where none has one."""
    paired = [(cell, other) for cell, other in pairs if other]
    cells = [cell for cell, _ in paired or pairs]
    groups = [index for cell in cells for index in cell.items]
    names = sorted({f"{cell.key.task}/{cell.key.dataset}" for cell in cells})
    strata = [
        names.index(f"{cell.key.task}/{cell.key.dataset}") for cell in cells for _ in cell.items
    ]
    values = [item.value for cell in cells for item in cell.items.values()]
    others = [item.value for _, other in paired for item in other.items.values()]
    shared = _shared([cell.key for cell in cells], level)
    return Comparison(
        level=level,
        model=model,
        reference=reference if paired else None,
        relation=cells[0].relation,
        metric=cells[0].key.metric,
        **shared,
        value=stats.grouped_mean(values, groups, strata),
        reference_value=stats.grouped_mean(others, groups, strata) if paired else None,
        difference=stats.paired_difference(values, others, groups, strata) if paired else None,
        p_holm=None,
        n=len(set(zip(strata, groups, strict=True))),
        datasets=tuple(names),
    )


def _shared(keys: list[Key], level: str) -> dict:
    """The parts of the keys that all have in common; a relation is of no one dataset."""
    named = {"task": 0, "dataset": 1} if level != "relation" else {}
    fields = named | {"shots": 2, "prompt": 3, "draw": 4}
    common = {name: {key[i] for key in keys} for name, i in fields.items()}
    shared = {name: values.pop() if len(values) == 1 else None for name, values in common.items()}
    return {"task": None, "dataset": None} | shared


def _flips(pairs: list[Pair]) -> list[Flips]:
    paired = [pair for pair in pairs if pair[1]]
    groups = _split(paired, lambda cell: (RELATIONS.index(cell.relation), cell.key.metric))
    return [_flips_of(group) for group in groups]


def _flips_of(pairs: list[Pair]) -> Flips:
    rows = [
        Example(cell.key, index, other.items[index], item)
        for cell, other in pairs
        if other
        for index, item in cell.items.items()
    ]
    lost = [row for row in rows if row.tuned.value < row.base.value]
    gained = [row for row in rows if row.tuned.value > row.base.value]
    key = pairs[0][0].key
    return Flips(
        pairs[0][0].relation, key.metric, len(rows), len(lost), len(gained),
        _clearest(lost), _clearest(gained),
    )  # fmt: skip


def _clearest(rows: list[Example]) -> tuple[Example, ...]:
    """The largest changes, of different items, in file order where they are alike."""
    chosen: dict[tuple, Example] = {}
    for row in sorted(rows, key=lambda row: -abs(row.tuned.value - row.base.value)):
        chosen.setdefault((row.key.dataset, row.item), row)
    return tuple(chosen.values())[:EXAMPLES]


def _adjust_subjects(subjects: list[Subject]) -> list[Subject]:
    for table in ("relations", "datasets", "cells"):
        subjects = _adjust(subjects, table)
    return subjects


def _adjust(parts: list, table: str) -> list:
    """Give the comparisons of one table, over all its parts, their Holm-adjusted p-values."""
    p_values = [
        c.difference.p_value for part in parts for c in getattr(part, table) if c.difference
    ]
    adjusted = iter(stats.holm(p_values))
    return [
        dataclasses.replace(
            part,
            **{
                table: [
                    dataclasses.replace(c, p_holm=next(adjusted)) if c.difference else c
                    for c in getattr(part, table)
                ]
            },
        )
        for part in parts
    ]
