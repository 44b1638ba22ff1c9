"""A comparison of models with a reference: what every table of a report is made of."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jft.evaluation import metrics, stats


@dataclass(frozen=True, slots=True)
class Comparison:
    """Models against a reference, on one cell or the mean of several.

    A mean is over the seeds, prompts and draws of an item at one number of shots, then over its
    shots (and recipes, where there are several), then the items of a dataset, then the datasets.

    Attributes:
      level: `group` (several models), `relation` (several datasets), `contrast` (the same, FTICL
        against FT), `measure` (a relation by a metric that is not the main one), `prompting` and
        `asked` (see `derived`), `dataset` (without demonstrations, or over all numbers of them) or
        `cell`.
      model, reference: names; no reference: nothing to compare with.
      task, dataset, shots, prompt, draw: None where several are averaged.
      value, reference_value: of the metric, in [0, 1], on the items that both have.
      difference: value minus reference_value, of these checkpoints: items are the sample.
      recipe: the same of their recipes, where each was trained three times or more: items and
        trainings are the sample.
      floor: datasets on which the reference does no better than one label for all items, so that
        accuracy has no room to fall.
      one_label: datasets on which the model gives one label to almost every item, and that label.
      blind: whether it does so on all of them.
      spreads: of the difference over `prompts`, `seeds` and `draws`, where there are several.
      p_holm: its p-value adjusted for all comparisons of one table.
      stands_for: the comparison by accuracy, where that has no room to fall and this is judged.
      changed: share of the answers that are others than the reference's.
      empty: share of the answers that are empty, where answers are generated.
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
    recipe: stats.Difference | None
    floor: tuple[str, ...]
    one_label: dict[str, str]
    blind: bool
    spreads: dict[str, stats.Spread]
    p_holm: float | None
    changed: float | None
    empty: float | None
    n: int
    stands_for: Comparison | None = None

    @property
    def change(self) -> float | None:
        """The difference's value."""
        return self.difference.value if self.difference else None

    @property
    def judged(self) -> stats.Difference | None:
        """The difference that a verdict goes by: of the recipes, or else of these checkpoints."""
        return self.recipe or self.difference

    @property
    def decided(self) -> bool:
        """True where there is a change: in the answer after Holm's adjustment, elsewhere before."""
        p = self.p_holm if self.level == "group" else self.p_value
        return p is not None and p < stats.ALPHA

    @property
    def direction(self) -> int:
        """1 where the model became better, -1 where worse, as far as the sample shows; else 0."""
        if self.judged is None or not self.decided:
            return 0
        return (1 if self.judged.value > 0 else -1) * metrics.METRICS[self.metric].direction

    @property
    def p_value(self) -> float | None:
        """The p-value of the difference that a verdict goes by."""
        return self.judged.p_value if self.judged else None

    @property
    def detectable(self) -> float | None:
        """The true difference that a sample of this kind would find in 80 % of cases."""
        return self.judged.detectable if self.judged else None


def with_holm(comparisons: list[Comparison]) -> list[Comparison]:
    """Give the comparisons of one table their Holm-adjusted p-values."""
    adjusted = iter(stats.holm([c.judged.p_value for c in comparisons if c.judged]))
    return [dataclasses.replace(c, p_holm=next(adjusted)) if c.judged else c for c in comparisons]


def adjust(parts: list, table: str) -> list:
    """Give the comparisons of one table, over all its parts, their Holm-adjusted p-values."""
    adjusted = iter(with_holm([c for part in parts for c in getattr(part, table)]))
    rest = [{table: [next(adjusted) for _ in getattr(part, table)]} for part in parts]
    return [dataclasses.replace(part, **each) for part, each in zip(parts, rest, strict=True)]
