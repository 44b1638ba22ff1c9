"""Intervals and tests for two models scored on the same items, and for two recipes.

All metrics are per item, most in [0, 1]. Two questions have two answers, never mixed: what *these
checkpoints* differ in (`paired_difference`, for which the items are the sample), and what *their
recipes* differ in (`recipe_difference`, for which items and trainings are). Interval and p-value
agree: a 95 % interval leaves out zero just where p < 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from jft.evaluation.samples import (
    ALPHA,
    Means,
    Pairs,
    Sample,
    Trainings,
    needed_errors,
    residual_variance,
)

# Trainings of a recipe from which something is said of it.
MIN_TRAININGS = 3
# Assumptions of a forecast: the share of answers that differ, and how much trainings do.
DIFFERING, SEED_SPREAD = 0.2, 0.02


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean minus another's, on the same items.

    Attributes:
      value: the difference, in the metric's own unit (0.01 = one point).
      low, high: the ends of its confidence interval, 95 % unless asked otherwise.
      n: distinct items behind it.
      p_value: two-sided, for no difference.
      median: the median difference of an item, datasets pooled. Where its sign is not that of
        `value`, a few large differences outweigh many small ones.
      trainings: whose variation the interval allows for; 0: it is about these checkpoints alone.
      sample: what `detectable` is computed from.
    """

    value: float
    low: float
    high: float
    n: int
    p_value: float
    median: float
    trainings: int
    sample: Sample

    @property
    def significant(self) -> bool:
        """True if the test rejects no difference, and so the interval leaves out zero."""
        return self.p_value < ALPHA

    @property
    def is_skewed(self) -> bool:
        """True if most items that differ went the other way than the mean."""
        return self.value * self.median < 0

    @property
    def detectable(self) -> float:
        """The true difference that the same test would find in 80 % of samples like this one."""
        return self.sample.detectable()


@dataclass(frozen=True, slots=True)
class Spread:
    """The dependence of a mean on a choice, such as that of a prompt or of a seed.

    Attributes:
      value: the standard deviation over the choices, in the metric's own unit, item noise taken
        out; 0 where the means differ no more than items alone make them.
      levels: the number of choices that were scored.
    """

    value: float
    levels: int


class Items(NamedTuple):
    """Values and where each belongs, as columns of one length.

    An item's values under one condition are averaged first, then its conditions, then the items of
    a dataset, then the datasets. More draws, prompts or seeds under one number of shots, which is
    the condition, therefore shift no weight to it.

    Attributes:
      values: of a metric, or differences of two.
      items: the item of each value; those of different datasets are different whatever they are
        called. None: an item each.
      datasets: the dataset of each value. None: one dataset.
      conditions: the condition of each value. None: one condition.
      limit: the largest difference that two values can have; 1 for values in [0, 1].
    """

    values: ArrayLike
    items: ArrayLike | None = None
    datasets: ArrayLike | None = None
    conditions: ArrayLike | None = None
    limit: float = 1.0

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return values, and codes from 0 of items, datasets and conditions."""
        values = np.asarray(self.values, float)
        items = np.arange(len(values)) if self.items is None else _codes(self.items)
        datasets, conditions = (
            np.zeros(len(values), int) if column is None else _codes(column)
            for column in (self.datasets, self.conditions)
        )
        return values, items, datasets, conditions

    def means(self) -> list[np.ndarray]:
        """Average the values of each item; an array for each dataset."""
        values, items, datasets, conditions = self.columns()
        cell, code = _averages(values, [datasets, items, conditions])
        item, code = _averages(cell, code[:2])
        return [item[code[0] == dataset] for dataset in np.unique(code[0])]


def _codes(column: ArrayLike) -> np.ndarray:
    return np.unique(np.asarray(column), return_inverse=True)[1]


def _averages(values: np.ndarray, codes: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Average values with equal codes; returns the means, and their codes, [columns, means]."""
    columns = np.stack(list(codes))
    sizes = columns.max(axis=1) + 1
    joint, where = np.unique(np.ravel_multi_index(columns, sizes), return_inverse=True)
    means = np.bincount(where, values) / np.bincount(where)
    return means, np.stack(np.unravel_index(joint, sizes))


def grouped_mean(items: Items) -> float:
    """Average as `paired_difference` does: conditions of an item, items, then datasets."""
    return float(np.mean([each.mean() for each in items.means()]))


def paired_difference(tuned: ArrayLike, base: Items, confidence: float = 0.95) -> Difference:
    """Compare the mean of `tuned` with the mean of `base`: what these checkpoints differ in.

    0/1 values of one dataset are judged as `Pairs` where each item is one, or all its values agree;
    everything else as `Means`.

    Args:
      tuned: metric values.
      base: those of the other model, at one place those of the same item, and where they belong.
      confidence: of the interval.

    Raises:
      ValueError: no values, or lengths that differ.
    """
    tuned, other = np.asarray(tuned, float), np.asarray(base.values, float)
    if tuned.shape != other.shape or tuned.ndim != 1 or not tuned.size:
        raise ValueError(f"two equal, non-empty lists wanted, not {tuned.shape} and {other.shape}")
    means = base._replace(values=tuned - other).means()
    binary = bool(np.isin(tuned, (0, 1)).all() and np.isin(other, (0, 1)).all())
    sample: Sample = Means.of(means, base.limit)
    if binary and len(means) == 1 and np.isin(means[0], (-1, 0, 1)).all():
        sample = Pairs(int((means[0] > 0).sum()), int((means[0] < 0).sum()), len(means[0]))
    return _difference(sample, means, 0, confidence)


def recipe_difference(
    tuned: ArrayLike,
    base: Items,
    trainings: ArrayLike,
    recipes: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Difference | None:
    """Compare means as `paired_difference` does, for other trainings of the same recipes, too.

    Args:
      tuned, base, confidence: as there. An item counts where all trainings were scored on it.
      trainings: the training, such as its seed, of each value.
      recipes: the recipe of each value, of which each training is one. None: one recipe.

    Returns:
      None where a recipe has fewer than three trainings, of two of which the interval would say
      nothing, or where no item is common to all.
    """
    values, items, datasets, conditions = base._replace(
        values=np.asarray(tuned, float) - np.asarray(base.values, float)
    ).columns()
    recipe = np.zeros(len(values), int) if recipes is None else _codes(recipes)
    training = np.unique(np.stack([recipe, _codes(trainings)]), axis=1, return_inverse=True)
    of, column = training[0][0], training[1].reshape(-1)
    if min(np.bincount(of)) < MIN_TRAININGS:
        return None
    tables = _tables(values, [datasets, items, column, conditions])
    if not tables:
        return None
    parts = [[table[:, of == r] for r in range(max(of) + 1)] for table in tables]
    means = [np.mean([part.mean(axis=1) for part in each], axis=0) for each in parts]
    return _difference(Trainings.of(parts, means, base.limit), means, len(of), confidence)


def _difference(
    sample: Sample, means: list[np.ndarray], trainings: int, confidence: float
) -> Difference:
    value, n = float(np.mean([each.mean() for each in means])), sum(map(len, means))
    median = float(np.median(np.concatenate(means)))
    low, high = sample.interval(confidence)
    return Difference(value, low, high, n, sample.p_value(), median, trainings, sample)


class Forecast(NamedTuple):
    """True changes that a study would find four times out of five; see `forecast`.

    Attributes:
      checkpoint: of one model.
      recipe: of all its trainings; None for fewer than three.
    """

    checkpoint: float
    recipe: float | None


def forecast(sizes: Sequence[int], conditions: int, trainings: int) -> Forecast:
    """Forecast what a mean of 0/1 values can show, before anything is trained.

    Assumed are that a fifth of the answers differ, half of their variance being the items' own and
    half that of a condition, and that trainings differ by 2 points (standard deviation).

    Args:
      sizes: the items of each dataset, two at least in all.
      conditions: numbers of shots, or prompts, that each is asked with.
      trainings: of the recipe.
    """
    of_item = DIFFERING * (0.5 + 0.5 / conditions)
    error = math.sqrt(sum(of_item / size for size in sizes)) / len(sizes)
    items = needed_errors(max(1, sum(sizes) - len(sizes))) * error
    if trainings < MIN_TRAININGS:
        return Forecast(items, None)
    seeds = needed_errors(trainings - 1) * SEED_SPREAD / math.sqrt(trainings)
    return Forecast(items, math.hypot(seeds, items))


def standard_error(values: ArrayLike) -> float:
    """Estimate the standard error of the mean of independent values; nan for fewer than two."""
    values = np.asarray(values, float)
    if values.size < 2:
        return math.nan
    return float(values.std(ddof=1) / math.sqrt(values.size))


class Variation(NamedTuple):
    """The variation of recipes' differences from set to set, beyond items and trainings.

    Attributes:
      value: its standard deviation; 0 where they differ no more than items and trainings make them.
      none: the p-value of no such variation.
      some: the p-value of one as large as a margin, or larger.
    """

    value: float
    none: float
    some: float


def variation(found: Sequence[Difference], freedom: int, margin: float) -> Variation:
    """Test whether differences on several sets vary by more than items and trainings explain.

    What their means vary, over what they would, is an F statistic. What they would is the error of
    the items of each set, and that of the trainings, which is known less well.

    Args:
      found: the differences of recipes, from `recipe_difference`, of two sets or more.
      freedom: the number of trainings less that of recipes: those of one recipe are the same for
        all its sets.
      margin: a standard deviation that would matter.
    """
    samples = [each.sample for each in found if isinstance(each.sample, Trainings)]
    items = float(np.mean([sample.items.error**2 for sample in samples]))
    trainings = float(np.mean([sample.error**2 for sample in samples]))
    expected, varied = items + trainings, float(np.var([d.value for d in found], ddof=1))
    # Degrees of freedom of what is expected, by Satterthwaite: those of its less certain part.
    free = min(1e9, freedom * (expected / max(trainings, 1e-30)) ** 2)
    return Variation(
        value=math.sqrt(max(0.0, varied - expected)),
        none=float(special.fdtrc(len(found) - 1, free, varied / expected)),
        some=float(special.fdtr(len(found) - 1, free, varied / (expected + margin**2))),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm, Scandinavian Journal of Statistics 6:65, 1979)."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1.0).tolist()


def spread(items: Items, levels: ArrayLike) -> Spread | None:
    """Estimate the standard deviation over levels of the mean over items and datasets.

    Items and levels are crossed random effects. The variance of the levels' means is that of the
    levels plus that of the residuals over the number of items; the second is taken off (Searle,
    Casella and McCulloch, Variance Components, 1992, section 4.4).

    Args:
      items: the values; those of one item at one level are averaged as `Items` says.
      levels: the level of each value.

    Returns:
      None where a dataset has fewer than two items, or two levels, in common.
    """
    values, item, datasets, conditions = items.columns()
    tables = _tables(values, [datasets, item, _codes(levels), conditions])
    if len(tables) < len(np.unique(datasets)) or any(min(table.shape) < 2 for table in tables):
        return None
    noise = sum(residual_variance(table) / len(table) for table in tables) / len(tables) ** 2
    means = np.mean([table.mean(axis=0) for table in tables], axis=0)
    return Spread(math.sqrt(max(0.0, means.var(ddof=1) - noise)), len(means))


def _tables(values: np.ndarray, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Tabulate the means of the items that have all levels, [items, levels], of each dataset.

    Args:
      values: the values.
      codes: of the dataset, item, level and condition of each. A level counts as had where it was
        under all conditions of the item.
    """
    cell, code = _averages(values, codes)
    mean, code = _averages(cell, code[:3])
    levels, tables = int(code[2].max()) + 1, []
    for dataset in np.unique(code[0]):
        inside = code[0] == dataset
        items, item = np.unique(code[1][inside], return_inverse=True)
        table = np.full((len(items), levels), np.nan)
        table[item, code[2][inside]] = mean[inside]
        table = table[~np.isnan(table).any(axis=1)]
        if len(table):
            tables.append(table)
    return tables
