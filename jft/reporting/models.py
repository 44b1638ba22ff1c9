"""Models that were scored: their cells and items, and what is known about their training."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jft.errors import UserError
from jft.runtime.records import Key

# A count that an evaluation could not make.
UNKNOWN = -1
# The task of all cells that lm-evaluation-harness scored.
FOREIGN = "lm-eval"


class ScoredItem(NamedTuple):
    """A hash of what was asked, the gold answer, the model's, and the metric's value."""

    request: str
    gold: str
    prediction: str
    value: float


@dataclass(frozen=True, slots=True)
class ScoredCell:
    """One model on one dataset at one number of shots with one prompt.

    Attributes:
      key: equal for the same cell of another model.
      metric: the name of the metric.
      relation: of the dataset to the model's training set.
      value, stderr: the metric's mean and its standard error, in [0, 1].
      n, skipped: items scored, and left out for want of a gold label.
      cautions: what else the evaluation counted, by name (shortened inputs, leaked items);
        `UNKNOWN` where it could not.
      items: by index in the dataset.
      measures: further metrics, with the values of the items in their order.
      likeliest: by index, what the model expected at some places of a text: the likeliest tokens of
        each place with their log-probabilities.
    """

    key: Key
    metric: str
    relation: str
    value: float
    stderr: float
    n: int
    skipped: int
    cautions: dict[str, int]
    items: dict[int, ScoredItem]
    measures: dict[str, list[float]]
    likeliest: dict[int, list[dict[int, float]]] = dataclasses.field(default_factory=dict)

    def by(self, metric: str) -> ScoredCell:
        """Return the cell by another of its metrics."""
        pairs = zip(self.items.items(), self.measures[metric], strict=True)
        items = {index: item._replace(value=value) for (index, item), value in pairs}
        return dataclasses.replace(self, metric=metric, items=items)

    def by_common_metric(self, other: ScoredCell | None) -> tuple[ScoredCell, ScoredCell | None]:
        """Return both cells by a metric that both have; None in place of `other` without one."""
        if other is None or other.metric == self.metric:
            return self, other
        if self.metric in other.measures:
            return self, other.by(self.metric)
        return (self.by(other.metric), other) if other.metric in self.measures else (self, None)


class Evaluation(NamedTuple):
    """The workdir of an evaluation.

    Attributes:
      keys: the cells that were scored there.
      config: its `config.json`, empty where there is none.
      data_findings: what the checks of its data said.
    """

    keys: list[Key]
    config: dict
    data_findings: list[dict]


class Run(NamedTuple):
    """The workdir of a training.

    Attributes:
      config: its `config.json`.
      steps: how many it was to take.
      seconds: that its steps took.
      drift: its `drift.json`, how far the weights went from the base's.
      probes: its `probes.jsonl`, by step and dataset.
      data_findings: what the checks of its data said.
      generations: its `generations.jsonl`, by step and row.
    """

    config: dict
    steps: int | None
    seconds: float
    drift: dict | None
    probes: list[dict]
    data_findings: list[dict]
    generations: Sequence[dict] = ()


class ModelName(NamedTuple):
    """The parts of a name such as `FT LoRA-16 paws_train[:64] seed 3 (seed3/ft at step 40)`.

    Attributes:
      title: how the model was trained and on what, or what the user calls it.
      limit: how many examples of its training set it may see; None: all.
      seed: of its training; None: not said.
      place: the end of its path, where several models have one name.
      step: of its training, where several checkpoints have one name.
      chat: whether it was asked through its chat template.
    """

    title: str
    limit: int | None = None
    seed: int | None = None
    place: str = ""
    step: int | None = None
    chat: bool = False

    def __str__(self) -> str:
        """Put the parts together."""
        limit = "" if self.limit is None else f"[:{self.limit}]"
        seed = "" if self.seed is None else f" seed {self.seed}"
        step = "" if self.step is None else f" at step {self.step}"
        end = f" ({self.place}{step})" if self.place else step
        return f"{self.title}{limit}{seed}{end}{' as a chat' * self.chat}"


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """A model that was scored.

    Attributes:
      name: unique in the report.
      own_name: its name in the records of its evaluations.
      path, step: the model's path, and the step of its training, 0 for files of weights.
      steps: of all its training; None where that is not known.
      base: the path of the model that it was tuned from; for a base, its own.
      base_sha256: hash of the base's weights when training began; for a base, of its own.
      train, train_task, train_shots: its training set, None for a base; 0 shots = FT, k = FTICL.
      seed: of its training.
      adapters: what kind of them was trained, such as `LoRA-16`; empty: all weights.
      examples: distinct examples it was trained on.
      recipe_id: equal for models that differ in nothing but their seed.
      plain_recipe_id: equal for those that differ in their demonstrations, too.
      sha256: of the weights.
      evaluations: by folder.
      run: its training, where that lies on this machine.
      cells: by `Key`, sorted.
    """

    name: str
    own_name: ModelName
    path: str
    step: int
    steps: int | None
    base: str | None
    base_sha256: str
    train: str | None
    train_task: str | None
    train_shots: int
    seed: int
    adapters: str
    examples: int | None
    recipe_id: str | None
    plain_recipe_id: str | None
    sha256: str
    evaluations: dict[str, Evaluation]
    run: Run | None
    cells: dict[Key, ScoredCell]

    @property
    def recipe_and_step(self) -> tuple[str, int]:
        """Equal for models that are compared as seeds of one training."""
        return (f"{self.recipe_id or self.path}{' as a chat' * self.chat}", self.step)

    @property
    def chat(self) -> bool:
        """True where it was asked through its chat template."""
        return self.own_name.chat

    @property
    def is_base(self) -> bool:
        """True for a model that was not fine-tuned here."""
        return all(cell.relation == "base" for cell in self.cells.values())

    @property
    def drift(self) -> dict | None:
        """The `drift.json` of its training, if the model is that training's last step."""
        return self.run.drift if self.run and self.run.steps == self.step else None

    @property
    def distance(self) -> float | None:
        """The distance of all its weights from the base's, over the base's norm."""
        return self.drift["all"]["relative_norm"] if self.drift else None


def merge(evaluated: Iterable[ScoredModel]) -> list[ScoredModel]:
    """Merge the evaluations of the same weights, and give each model a name of its own.

    Args:
      evaluated: a model for each evaluation.

    Returns:
      Bases first, then by training set, size, demonstrations and seed.

    Raises:
      UserError: two evaluations score a cell differently, or a model has changed between them.
    """
    groups: dict[tuple, list[ScoredModel]] = {}
    for model in evaluated:
        groups.setdefault((model.name, model.sha256), []).append(model)  # wherever the weights lay
    models = [
        dataclasses.replace(
            group[0],
            evaluations={f: each for model in group for f, each in model.evaluations.items()},
            cells=dict(sorted(merge_cells(group).items())),
        )
        for group in groups.values()
    ]
    _check_unchanged(models)
    models.sort(key=_order)
    return [dataclasses.replace(m, name=_unique_name(m, models)) for m in models]


def merge_cells(models: Iterable[ScoredModel]) -> dict[Key, ScoredCell]:
    """Merge the cells of several evaluations of one model.

    Raises:
      UserError: two of them score a cell differently.
    """
    cells: dict[Key, ScoredCell] = {}
    for model in models:
        for key, cell in model.cells.items():
            if cells.setdefault(key, cell).items != cell.items:
                raise UserError(
                    f"{', '.join(model.evaluations)}: scores {model.name} on {key} differently "
                    "from another folder of this report that calls its model so, too; leave one "
                    "of them out"
                )
    return cells


def seeds_together(tuned: list[ScoredModel]) -> list[list[ScoredModel]]:
    """Group models by recipe and step, in the order of the first of each."""
    groups: dict[tuple, list[ScoredModel]] = {}
    for model in tuned:
        groups.setdefault(model.recipe_and_step, []).append(model)
    return list(groups.values())


def name_groups(groups: list[list[ScoredModel]]) -> list[str]:
    """Name each group; those of one name get their step, or else the name of their first model."""
    names = [_common_name(members) for members in groups]
    at_steps = [(name, members[0].step) for name, members in zip(names, groups, strict=True)]
    times, times_at_step = Counter(names), Counter(at_steps)
    found = []
    for (name, step), members in zip(at_steps, groups, strict=True):
        if times[name] > 1 and len(members) > 1 and times_at_step[name, step] == 1:
            name = str(members[0].own_name._replace(seed=None, step=step))
        elif times[name] > 1:
            name = members[0].name  # a model's own name is unique in the report
        found.append(name)
    return found


def _common_name(members: list[ScoredModel]) -> str:
    """Name a model, or several by their common name without the seed."""
    first, *others = members
    return str(first.own_name._replace(seed=None)) if others else first.name


def name_snapshots(groups: list[list[ScoredModel]]) -> list[str]:
    """Name the step of each group whose training has a later one here; empty for the others."""
    steps = [members[0].recipe_and_step for members in groups]
    last = dict(sorted(steps, key=lambda recipe_and_step: recipe_and_step[1]))
    return ["" if step == last[recipe] else f" at step {step}" for recipe, step in steps]


def _check_unchanged(models: Iterable[ScoredModel]) -> None:
    known: dict[tuple, ScoredModel] = {}
    for model in models:
        first = known.setdefault((model.name, model.path, model.step), model)
        if first is not model:
            raise UserError(
                f"{model.path} has changed between its evaluations {min(first.evaluations)} and "
                f"{min(model.evaluations)}; leave one of them out, or score it again in a new "
                "workdir"
            )


def _order(model: ScoredModel) -> tuple:
    training = (model.train_task or "", model.train or "", model.examples or 0, model.train_shots)
    seed = model.seed
    return (not model.is_base, *training, seed, model.name, model.path, model.step)


def _unique_name(model: ScoredModel, models: list[ScoredModel]) -> str:
    """Add as much of the end of its path as tells a model from those of the same name."""
    namesakes = [m for m in models if m.name == model.name and m is not model]
    if not namesakes:
        return model.name
    parts = [m.path.rstrip("/").split("/") for m in (model, *namesakes)]
    ends = [part for part in parts if part != parts[0]]
    length = 1
    while length < len(parts[0]) and any(e[-length:] == parts[0][-length:] for e in ends):
        length += 1
    step = model.step if any(m.path == model.path for m in namesakes) else None
    return str(model.own_name._replace(place="/".join(parts[0][-length:]), step=step))
