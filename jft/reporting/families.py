"""Models that differ in nothing but their seed are one family; so are the evaluations of a base."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from jft.reporting.models import ScoredCell, ScoredModel, merge_cells
from jft.runtime.records import Key
from jft.tasks import method


@dataclass(frozen=True, slots=True)
class Family:
    """Models of one recipe, one for each seed.

    Attributes:
      name: unique in the report.
      models: at least one.
      base: their base's name, None where it was not scored.
      reference: its cells.
      snapshot: such as ` at step 40` where the report has a later step of its training, too.
    """

    name: str
    models: tuple[ScoredModel, ...]
    base: str | None
    reference: dict[Key, ScoredCell]
    snapshot: str = ""

    @property
    def first(self) -> ScoredModel:
        """One for all: what it was trained on holds for every member."""
        return self.models[0]

    @property
    def kind(self) -> str:
        """FT or FTICL."""
        return "FTICL" if self.first.train_shots else "FT"

    @property
    def way(self) -> str:
        """The same, with the adapters that were trained: FTICL LoRA-16."""
        return _beside(self.kind, self.first.adapters)

    @property
    def trained_as(self) -> str:
        """The same, with the number of demonstrations, as in names: FTICL-2 LoRA-16."""
        return _beside(method(self.first.train_shots), self.first.adapters)

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len({model.seed for model in self.models})


def families(tuned: list[ScoredModel], models: list[ScoredModel]) -> list[Family]:
    """The tuned models by recipe, in the order of their first members.

    Args:
      tuned: models that were fine-tuned here.
      models: all, their bases among them.
    """
    groups: dict[tuple, list[ScoredModel]] = {}
    for model in tuned:
        groups.setdefault(model.recipe_and_step, []).append(model)
    names = Counter(_name(members) for members in groups.values())
    at_steps = Counter((_name(members), step) for (_, step), members in groups.items())
    last = dict(sorted(groups, key=_step))
    found = []
    for (recipe, step), members in groups.items():
        own = bases_of(members[0], models)
        name = _name(members)
        if names[name] > 1 and len(members) > 1 and at_steps[name, step] == 1:
            name = f"{name} at step {step}"
        elif names[name] > 1:
            name = members[0].name  # a model's own name is unique in the report
        reference = merge_cells(own)
        snapshot = "" if step == last[recipe] else f" at step {step}"
        base = own[0].name if own else None
        found.append(Family(name, tuple(members), base, reference, snapshot))
    return found


def bases_of(model: ScoredModel, models: list[ScoredModel]) -> list[ScoredModel]:
    """The model that it was tuned from, as it was then; it may be tuned itself."""
    return [each for each in models if each.sha256 == model.base_sha256]


def contrasts(fticl: Family, ft: Family) -> bool:
    """Whether two families differ in the demonstrations of their training alone."""
    first, other = fticl.first, ft.first
    same = all(
        getattr(first, name) == getattr(other, name) for name in ("train", "plain_recipe", "step")
    )
    return same and other.train_shots == 0 < first.train_shots


def _beside(kind: str, adapters: str) -> str:
    return f"{kind} {adapters}" if adapters else kind


def _step(training: tuple[str, int | None]) -> int:
    return training[1] or 0


def _name(members: list[ScoredModel]) -> str:
    """Of a model what is its alone; of several what they are called but for their seeds."""
    first, *others = members
    return re.sub(r" seed \d+\b", "", first.own_name) if others else first.name
