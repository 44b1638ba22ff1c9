"""The report's content: every tuned model against its base, and FTICL against FT."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jft.evaluation import stats
from jft.reporting import notes as notes_lib
from jft.reporting import pairs as pairs_lib
from jft.reporting.families import Family, bases_of, contrasts, families
from jft.reporting.models import ScoredModel
from jft.reporting.pairs import ChangedItems, Comparison, Pair
from jft.runtime.progress import Bar


@dataclass(frozen=True, slots=True)
class Subject:
    """Tuned models of one recipe, and everything known about them against their base.

    Attributes:
      family: the models.
      pairs: their cells with the base's.
      relations, datasets, cells: comparisons of each level.
      changed_items: the items behind them.
    """

    family: Family
    pairs: list[Pair]
    relations: list[Comparison]
    datasets: list[Comparison]
    cells: list[Comparison]
    changed_items: list[ChangedItems]

    @property
    def name(self) -> str:
        """Its family's."""
        return self.family.name

    @property
    def snapshot(self) -> str:
        """Its family's."""
        return self.family.snapshot


@dataclass(frozen=True, slots=True)
class Contrast:
    """Models trained with demonstrations against those trained without, on the same examples.

    Attributes:
      fticl, ft: the families.
      pairs: cells of the same seeds.
      relations: their comparisons.
    """

    fticl: Family
    ft: Family
    pairs: list[Pair]
    relations: list[Comparison]

    @property
    def name(self) -> str:
        """Which against which."""
        return f"{self.fticl.name} against {self.ft.name}"

    @property
    def snapshot(self) -> str:
        """That of either: they are of one step."""
        return self.fticl.snapshot or self.ft.snapshot


Member = TypeVar("Member", Subject, Contrast)


@dataclass(frozen=True, slots=True)
class TaskGroup(Generic[Member]):
    """Several subjects, or contrasts, of one task together, whatever their size and shots.

    Snapshots of a training before its last are no further trainings: they have their own.

    Attributes:
      name: such as `FT on detection`; of a group of one its member's.
      members: at least one.
      relations: their comparisons, over all of them.
    """

    name: str
    members: list[Member]
    relations: list[Comparison]


@dataclass(frozen=True, slots=True)
class Report:
    """What the report tells, whatever it is written in.

    Attributes:
      bases: models that were not fine-tuned here.
      subjects: the tuned models.
      groups: them by task and kind of training.
      contrasts: FTICL against FT.
      contrast_groups: them by task.
      gaps: the evaluations that are missing, and the commands for them.
      notes: what else to beware of.
    """

    bases: list[ScoredModel]
    subjects: list[Subject]
    groups: list[TaskGroup[Subject]]
    contrasts: list[Contrast]
    contrast_groups: list[TaskGroup[Contrast]]
    gaps: list[str]
    notes: list[str]

    @property
    def models(self) -> list[ScoredModel]:
        """All of them, bases first."""
        return [*self.bases, *(model for s in self.subjects for model in s.family.models)]

    @property
    def comparisons(self) -> list[Comparison]:
        """All of them, table by table."""
        return [
            *(c for group in self.groups for c in group.relations),
            *(c for group in self.contrast_groups for c in group.relations),
            *(c for subject in self.subjects for c in subject.relations),
            *(c for contrast in self.contrasts for c in contrast.relations),
            *(c for subject in self.subjects for c in subject.datasets),
            *(c for subject in self.subjects for c in subject.cells),
        ]


def compare(models: list[ScoredModel]) -> Report:
    """Compare each tuned model with its base, and FTICL with FT.

    Raises:
      UserError: two models were asked different things under one name.
    """
    bases = [model for model in models if model.is_base]
    tuned = [model for model in models if not model.is_base]
    gaps = [
        note
        for model in tuned
        for note in notes_lib.missing(model, bases_of(model, models), models)
    ]
    found = families(tuned, models)
    against = [(fticl, ft) for fticl in found for ft in found if contrasts(fticl, ft)]
    notes: list[str] = [] if tuned else [notes_lib.UNTRAINED]
    with Bar("Comparing", len(found) + len(against)) as bar:
        subjects = [_advance(bar, family.name, _subject(family, notes)) for family in found]
        opposed = [_advance(bar, fticl.name, _contrast(fticl, ft)) for fticl, ft in against]
    notes += notes_lib.cautions(models)
    for table in ("relations", "datasets", "cells"):
        subjects = _adjust(subjects, table)
    opposed = _adjust(opposed, "relations")
    groups, contrast_groups = _groups(subjects, _task_and_kind), _groups(opposed, _task)
    answer = _adjust([*groups, *contrast_groups], "relations")
    return Report(
        bases=bases,
        subjects=subjects,
        groups=answer[: len(groups)],
        contrasts=opposed,
        contrast_groups=answer[len(groups) :],
        gaps=gaps,
        notes=list(dict.fromkeys(notes)),
    )


def _advance(bar: Bar, name: str, result):
    bar.advance(name)
    return result


def _subject(family: Family, notes: list[str]) -> Subject:
    pairs = []
    for model in family.models:
        notes += notes_lib.unequal(model, family.base, family.reference)
        pairs += pairs_lib.pair_cells(model, family.base, family.reference)
    names = (family.name, family.base, pairs)
    return Subject(
        family,
        pairs,
        pairs_lib.compare_at("relation", *names),
        pairs_lib.compare_at("dataset", *names),
        pairs_lib.compare_at("cell", *names),
        pairs_lib.changed_items(pairs),
    )


def _contrast(fticl: Family, ft: Family) -> Contrast:
    others = {model.seed: model for model in ft.models}
    pairs = [
        each
        for model in fticl.models
        if model.seed in others
        for each in pairs_lib.pair_cells(model, ft.name, others[model.seed].cells)
        if each.other
    ]
    relations = pairs_lib.compare_at("contrast", fticl.name, ft.name, pairs)
    return Contrast(fticl, ft, pairs, relations)


def _task_and_kind(subject: Subject) -> tuple[str, str | None]:
    family = subject.family
    return f"{family.way} on {family.first.train_task}{subject.snapshot}", family.base


def _task(contrast: Contrast) -> tuple[str, str | None]:
    return f"FTICL against FT on {contrast.fticl.first.train_task}{contrast.snapshot}", "FT"


def _groups(
    parts: list[Member], name_of: Callable[[Member], tuple[str, str | None]]
) -> list[TaskGroup[Member]]:
    """By what `name_of` calls them and their reference; a group of one has its member's name."""
    found: dict[tuple[str, str | None], list[Member]] = {}
    for part in parts:
        found.setdefault(name_of(part), []).append(part)
    return [_group(*key, members) for key, members in found.items()]


def _group(name: str, reference: str | None, members: list[Member]) -> TaskGroup[Member]:
    name = name if len(members) > 1 else members[0].name
    pairs = [pair for member in members for pair in member.pairs]
    return TaskGroup(name, members, pairs_lib.compare_at("group", name, reference, pairs))


def _adjust(parts: list, table: str) -> list:
    """Give the comparisons of one table, over all its parts, their Holm-adjusted p-values."""
    p_values = [
        c.difference.p_value for part in parts for c in getattr(part, table) if c.difference
    ]
    adjusted = iter(stats.holm(p_values))

    def with_holm(c: Comparison) -> Comparison:
        return dataclasses.replace(c, p_holm=next(adjusted)) if c.difference else c

    def rest(part) -> dict[str, Any]:
        return {table: [with_holm(c) for c in getattr(part, table)]}

    return [dataclasses.replace(part, **rest(part)) for part in parts]
