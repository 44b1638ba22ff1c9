"""The comparisons of a report: every tuned model against its base, and FTICL against FT."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from jft.reporting import derived
from jft.reporting import notes as notes_lib
from jft.reporting import pairs as pairs_lib
from jft.reporting.comparison import Comparison, adjust, with_holm
from jft.reporting.models import (
    ScoredCell,
    ScoredModel,
    merge_cells,
    name_groups,
    name_snapshots,
    seeds_together,
)
from jft.reporting.pairs import Pair
from jft.runtime.progress import Bar
from jft.runtime.records import Key
from jft.tasks import method

# Changes of fewer points are taken as too small to matter, unless the user says otherwise.
MARGIN = 0.02


@dataclass(frozen=True, slots=True)
class Recipe:
    """Tuned models that differ in nothing but their seed, compared with their base.

    Attributes:
      name: unique in the report.
      models: one for each seed, at least one.
      base: the name of their base, None where it was not scored.
      snapshot: such as ` at step 40` where the report has a later step of their training, too.
      pairs: their cells with the base's.
      relations, datasets, cells: comparisons of each level, by the main metrics.
      measures: those by relation of all other metrics.
      prompting: of the models without demonstrations with their base at its best number of them.
    """

    name: str
    models: tuple[ScoredModel, ...]
    base: str | None
    snapshot: str
    pairs: list[Pair]
    relations: list[Comparison]
    datasets: list[Comparison]
    cells: list[Comparison]
    measures: list[Comparison]
    prompting: list[Comparison]

    @property
    def first(self) -> ScoredModel:
        """The model of the first seed; what it was trained on holds for all."""
        return self.models[0]

    @property
    def kind(self) -> str:
        """FT or FTICL."""
        return "FTICL" if self.first.train_shots else "FT"

    @property
    def kind_with_adapters(self) -> str:
        """The kind with the adapters that were trained: FTICL LoRA-16."""
        return _beside(self.kind, self.first.adapters)

    @property
    def trained_as(self) -> str:
        """The same with the number of demonstrations, as in names: FTICL-2 LoRA-16."""
        return _beside(method(self.first.train_shots), self.first.adapters)

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return len({model.seed for model in self.models})


@dataclass(frozen=True, slots=True)
class Contrast:
    """Models trained with demonstrations against those trained without, on the same examples.

    Attributes:
      fticl, ft: their recipes.
      pairs: cells of the same seeds.
      relations: their comparisons.
    """

    fticl: Recipe
    ft: Recipe
    pairs: list[Pair]
    relations: list[Comparison]

    @property
    def name(self) -> str:
        """`FTICL-2 gadgets against FT gadgets`, with the seeds where a recipe has others, too."""
        seeds = {pair.model.seed for pair in self.pairs}
        several = max(self.fticl.seeds, self.ft.seeds) > len(seeds)
        which = f" (seed {', '.join(map(str, sorted(seeds)))})" * several
        return f"{self.fticl.name} against {self.ft.name}{which}"

    @property
    def snapshot(self) -> str:
        """The snapshot of either recipe: they are of one step."""
        return self.fticl.snapshot or self.ft.snapshot


Member = TypeVar("Member", Recipe, Contrast)


@dataclass(frozen=True, slots=True)
class TaskGroup(Generic[Member]):
    """Recipes, or contrasts, of one task together, whatever their size and shots.

    Snapshots of a training before its last are no further trainings: they have their own groups.

    Attributes:
      name: such as `FT on detection`; of a group of one its member's.
      members: at least one.
      relations: their comparisons, over all of them.
      answer: those that the verdict goes by. Where accuracy has no room to fall, the probability of
        the gold label stands in.
    """

    name: str
    members: list[Member]
    relations: list[Comparison]
    answer: list[Comparison]

    @property
    def contrasts(self) -> bool:
        """True where the members are contrasts, of FTICL against FT."""
        return isinstance(self.members[0], Contrast)


@dataclass(frozen=True, slots=True)
class Report:
    """All comparisons that the report tells, whatever it is written in.

    Attributes:
      bases: models that were not fine-tuned here.
      recipes: the tuned models.
      groups: recipes by task and kind of training.
      contrasts: FTICL against FT.
      contrast_groups: contrasts by task.
      asked: models asked as chats, against the same models asked in plain text.
      margin: changes below it, in the metric's own unit, are taken as too small to matter.
      gaps: the evaluations that are missing, and the commands for them.
      notes: what else to beware of.
    """

    bases: list[ScoredModel]
    recipes: list[Recipe]
    groups: list[TaskGroup[Recipe]]
    contrasts: list[Contrast]
    contrast_groups: list[TaskGroup[Contrast]]
    asked: list[Comparison]
    margin: float
    gaps: list[str]
    notes: list[str]

    @property
    def models(self) -> list[ScoredModel]:
        """All models, bases first."""
        return [*self.bases, *(model for recipe in self.recipes for model in recipe.models)]

    @property
    def comparisons(self) -> list[Comparison]:
        """All comparisons, table by table."""
        return [
            *(c for group in self.groups for c in group.answer),
            *(c for group in self.contrast_groups for c in group.answer),
            *(c for recipe in self.recipes for c in recipe.relations),
            *(c for contrast in self.contrasts for c in contrast.relations),
            *(c for recipe in self.recipes for c in recipe.datasets),
            *(c for recipe in self.recipes for c in recipe.cells),
            *(c for recipe in self.recipes for c in recipe.measures),
            *(c for recipe in self.recipes for c in recipe.prompting),
            *self.asked,
        ]


def compare(models: list[ScoredModel], margin: float = MARGIN) -> Report:
    """Compare each tuned model with its base, and FTICL with FT; `margin` is in the report.

    Raises:
      UserError: two models were asked different things under one name.
    """
    bases = [model for model in models if model.is_base]
    tuned = [model for model in models if not model.is_base]
    gaps = [
        note
        for model in tuned
        for note in notes_lib.missing(model, _bases_of(model, models), models)
    ]
    seeds = seeds_together(tuned)
    names, snapshots = name_groups(seeds), name_snapshots(seeds)
    opposed = [
        (i, j)
        for i, fticl in enumerate(seeds)
        for j, ft in enumerate(seeds)
        if _is_contrast(fticl[0], ft[0])
    ]
    recipes, contrasts = [], []
    notes: list[str] = [] if tuned else [notes_lib.UNTRAINED]
    with Bar("Comparing", len(seeds) + len(opposed)) as bar:
        for name, snapshot, members in zip(names, snapshots, seeds, strict=True):
            own = _bases_of(members[0], models)
            base, reference = own[0].name if own else None, merge_cells(own)
            notes += [n for model in members for n in notes_lib.unequal(model, base, reference)]
            recipes.append(_recipe(name, snapshot, members, base, reference))
            bar.advance(name)
        for i, j in opposed:
            contrasts.append(_contrast(recipes[i], recipes[j]))
            bar.advance(names[i])
    notes += notes_lib.cautions(models)
    for table in ("relations", "datasets", "cells", "measures", "prompting"):
        recipes = adjust(recipes, table)
    contrasts = adjust(contrasts, "relations")
    groups, contrast_groups = _groups(recipes, _task_and_kind), _groups(contrasts, _task)
    answer = adjust([*groups, *contrast_groups], "answer")
    return Report(
        bases=bases,
        recipes=recipes,
        groups=answer[: len(groups)],
        contrasts=contrasts,
        contrast_groups=answer[len(groups) :],
        asked=with_holm(_asked(models)),
        margin=margin,
        gaps=gaps,
        notes=list(dict.fromkeys(notes)),
    )


def _asked(models: Sequence[ScoredModel]) -> list[Comparison]:
    return [
        c
        for model, other, pairs in derived.asked_as_chat(models)
        for c in _with_room("asked", model.name, other.name, pairs, derived.gold_pairs(pairs))
    ]


def _bases_of(model: ScoredModel, models: list[ScoredModel]) -> list[ScoredModel]:
    """Find the model that another was tuned from, by its weights; it may be tuned itself.

    Both were asked in the same way: as text, or as a chat.
    """
    found = [each for each in models if each.sha256 == model.base_sha256]
    return [each for each in found if each.chat == model.chat]


def _is_contrast(fticl: ScoredModel, ft: ScoredModel) -> bool:
    """Check whether two models differ in the demonstrations of their training alone."""
    known = [(m.train, m.plain_recipe_id, m.step, m.chat) for m in (fticl, ft)]
    return known[0] == known[1] and ft.train_shots == 0 < fticl.train_shots


def _recipe(
    name: str,
    snapshot: str,
    models: list[ScoredModel],
    base: str | None,
    reference: dict[Key, ScoredCell],
) -> Recipe:
    found = [pair for model in models for pair in pairs_lib.pair_cells(model, base, reference)]
    pairs = derived.main_pairs(found)
    return Recipe(
        name=name,
        models=tuple(models),
        base=base,
        snapshot=snapshot,
        pairs=pairs,
        relations=pairs_lib.compare_at("relation", name, base, pairs),
        datasets=pairs_lib.compare_at("dataset", name, base, pairs),
        cells=pairs_lib.compare_at("cell", name, base, pairs),
        measures=pairs_lib.compare_at("measure", name, base, derived.measured(found)),
        prompting=_with_room(
            "prompting",
            name,
            base,
            derived.best_prompted(pairs),
            derived.best_prompted(derived.gold_pairs(pairs)),
        ),
    )


def _contrast(fticl: Recipe, ft: Recipe) -> Contrast:
    others = {model.seed: model for model in ft.models}
    pairs = [
        each
        for model in fticl.models
        if model.seed in others
        for each in pairs_lib.pair_cells(model, ft.name, others[model.seed].cells)
        if each.other
    ]
    pairs = derived.main_pairs(pairs)
    relations = pairs_lib.compare_at("contrast", fticl.name, ft.name, pairs)
    return Contrast(fticl, ft, pairs, relations)


def _task_and_kind(recipe: Recipe) -> tuple[str, str | None]:
    if recipe.first.train is None:
        return recipe.name, recipe.base
    return f"{recipe.kind_with_adapters} on {recipe.first.train_task}{recipe.snapshot}", recipe.base


def _task(contrast: Contrast) -> tuple[str, str | None]:
    return f"FTICL against FT on {contrast.fticl.first.train_task}{contrast.snapshot}", "FT"


def _groups(
    members: Iterable[Member], name_of: Callable[[Member], tuple[str, str | None]]
) -> list[TaskGroup[Member]]:
    """Group by the names of a group and of its reference, as `name_of` makes them."""
    found: dict[tuple[str, str | None], list[Member]] = {}
    for member in members:
        found.setdefault(name_of(member), []).append(member)
    return [_group(*key, group) for key, group in found.items()]


def _group(name: str, reference: str | None, members: list[Member]) -> TaskGroup[Member]:
    name = name if len(members) > 1 else members[0].name
    pairs = [pair for member in members for pair in member.pairs]
    relations = pairs_lib.compare_at("group", name, reference, pairs)
    answer = _with_room("group", name, reference, pairs, derived.gold_pairs(pairs))
    return TaskGroup(name, members, relations, answer)


def _with_room(
    level: str, name: str, reference: str | None, pairs: Sequence[Pair], gold: Sequence[Pair]
) -> list[Comparison]:
    """Compare by main metrics, and by the gold label's probability where accuracy cannot fall."""
    instead = {(c.relation, c.shots): c for c in pairs_lib.compare_at(level, name, reference, gold)}
    return [
        dataclasses.replace(instead[c.relation, c.shots], stands_for=c)
        if c.floor and (c.relation, c.shots) in instead
        else c
        for c in pairs_lib.compare_at(level, name, reference, pairs)
    ]


def _beside(kind: str, adapters: str) -> str:
    return f"{kind} {adapters}" if adapters else kind
