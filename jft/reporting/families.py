"""Models that differ in nothing but their seed are one family; so are the evaluations of a base."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jft.reporting.collect import Cell, Key, Model, merge_cells


@dataclass(frozen=True, slots=True)
class Family:
    """Models of one recipe, one for each seed.

    Attributes:
      name: unique in the report.
      models: at least one.
      base: their base's name, None where it was not scored.
      reference: its cells.
    """

    name: str
    models: tuple[Model, ...]
    base: str | None
    reference: dict[Key, Cell]

    @property
    def first(self) -> Model:
        """One for all: what it was trained on holds for every member."""
        return self.models[0]

    @property
    def kind(self) -> str:
        """FT or FTICL."""
        return "FTICL" if self.first.train_shots else "FT"

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(self.models)


def families(tuned: list[Model], bases: list[Model]) -> list[Family]:
    """The tuned models by recipe, in the order of their first members."""
    groups: dict[tuple, list[Model]] = {}
    for model in tuned:
        groups.setdefault((model.recipe or model.path, model.base, model.step), []).append(model)
    found = []
    for members in groups.values():
        own = bases_of(members[0], bases)
        name = members[0].name
        if len(members) > 1:
            name = re.sub(r" seed \d+\b", "", name)
        reference = merge_cells(own)
        found.append(Family(name, tuple(members), own[0].name if own else None, reference))
    return found


def bases_of(model: Model, bases: list[Model]) -> list[Model]:
    """The evaluations of the model that it was tuned from."""
    return [base for base in bases if base.path == model.base]


def contrasts(fticl: Family, ft: Family) -> bool:
    """Whether two families differ in the demonstrations of their training alone."""
    first, other = fticl.first, ft.first
    same = all(
        getattr(first, name) == getattr(other, name)
        for name in ("train_task", "train", "base", "examples")
    )
    return same and other.train_shots == 0 < first.train_shots
