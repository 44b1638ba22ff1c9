"""Intervals and tests for two models scored on the same items.

All metrics are per item and lie in [0, 1]. One cell of accuracy has exact or near-exact methods of
its own; averages over prompts, shots and datasets resample items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

RESAMPLES = 10_000
# Fewer items that differ than this are too few for a bootstrap alone.
FEW = 12
# A change counts where its 95 % interval leaves out zero and its p-value is below this.
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """A model's mean minus another's, on the same items.

    Attributes:
      value: the difference, in the metric's own unit (0.01 = one point).
      low, high: the ends of its confidence interval.
      n: distinct items behind it.
      p_value: two-sided, for no difference.
    """

    value: float
    low: float
    high: float
    n: int
    p_value: float

    @property
    def significant(self) -> bool:
        """True if the interval leaves out zero, and the test agrees.

        The two are different methods. Where few items differ, a bootstrap's interval alone would
        leave out zero too often.
        """
        return not self.low <= 0 <= self.high and self.p_value < ALPHA

    @property
    def detectable(self) -> float:
        """The true difference that a 95 % interval of this width finds in 80 % of samples."""
        # Half of the interval is z(0.975) standard errors; a power of 80 % takes z(0.8) more.
        return (self.high - self.low) / 2 * (1 + special.ndtri(0.8) / special.ndtri(0.975))


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


def spread(
    values: ArrayLike, levels: ArrayLike, groups: ArrayLike, strata: ArrayLike | None = None
) -> Spread | None:
    """Estimate the standard deviation over levels of the mean over items and datasets.

    Items and levels are crossed random effects. The variance of the levels' means is that of the
    levels plus that of the residuals over the number of items; the second is taken off (Searle,
    Casella and McCulloch, Variance Components, 1992, section 4.4).

    Args:
      values: as for `grouped_mean`; those of one item at one level are averaged.
      levels: the level of each value.
      groups, strata: the item and the dataset of each value.

    Returns:
      None where a dataset has fewer than two items, or two levels, in common.
    """
    values, levels, groups = np.asarray(values, float), np.asarray(levels), np.asarray(groups)
    strata = np.zeros(len(values), int) if strata is None else np.asarray(strata)
    tables = [
        _table(values[inside], groups[inside], levels[inside], np.unique(levels))
        for inside in (strata == stratum for stratum in np.unique(strata))
    ]
    if any(min(table.shape) < 2 for table in tables):
        return None
    noise = sum(_residual_variance(table) / len(table) for table in tables) / len(tables) ** 2
    means = np.mean([table.mean(axis=0) for table in tables], axis=0)
    return Spread(math.sqrt(max(0.0, means.var(ddof=1) - noise)), len(means))


def _table(values, groups, levels, all_levels) -> np.ndarray:
    """Tabulate the means of the items that have all levels, [items, levels]."""
    items, item = np.unique(groups, return_inverse=True)
    cell = item * len(all_levels) + np.searchsorted(all_levels, levels)
    size = len(items) * len(all_levels)
    counts = np.bincount(cell, minlength=size)
    sums = np.bincount(cell, values, minlength=size)
    table = (sums / np.maximum(counts, 1)).reshape(len(items), -1)
    return table[(counts > 0).reshape(table.shape).all(axis=1)]


def _residual_variance(table: np.ndarray) -> float:
    """Compute the variance that an additive model of items and levels leaves."""
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float(np.square(rest).sum() / ((len(table) - 1) * (table.shape[1] - 1)))


def paired_difference(
    tuned: ArrayLike,
    base: ArrayLike,
    groups: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare the mean of `tuned` with the mean of `base`: difference, interval and p-value.

    The values of one item are averaged first, then the items of a dataset, then the datasets, each
    with equal weight.

    - 0/1 values, one of each item, one dataset: Tango's score interval (Statistics in Medicine
      17:891, 1998), which stays wide when the models agree on every item, and McNemar's exact test.
    - Everything else: a percentile bootstrap over items within datasets, and a sign-flip test over
      items. For 0/1 values, and where fewer than twelve items differ or fewer than six differences
      are distinct, each dataset is first given the two pseudo-pairs of Agresti and Min (Statistics
      in Medicine 24:729, 2005), without which models that never disagree would get an interval of
      width zero. Metrics other than 0/1 get Hesterberg's wider percentiles for small samples (The
      American Statistician 69:371, 2015).

    Args:
      tuned, base: metric values in [0, 1], those at one place of the same item.
      groups: the item of each value, where several prompts or shots score one item; default: an
        item each. Items of different strata are different whatever they are called.
      strata: the dataset of each value; default: one dataset.
      confidence: of the interval.
      seed: of the resampling; the same arguments give the same result.

    Raises:
      ValueError: no values, or lengths that differ.
    """
    tuned, base = np.asarray(tuned, float), np.asarray(base, float)
    if tuned.shape != base.shape or tuned.ndim != 1 or not tuned.size:
        raise ValueError(f"two equal, non-empty lists wanted, not {tuned.shape} and {base.shape}")
    items = _item_means(tuned - base, groups, strata)
    value = float(np.mean([each.mean() for each in items]))
    n = sum(map(len, items))
    binary = bool(np.isin(tuned, (0, 1)).all() and np.isin(base, (0, 1)).all())
    if binary and len(items) == 1 and n == len(tuned):
        gained, lost = int((items[0] > 0).sum()), int((items[0] < 0).sum())
        low, high = tango_interval(gained, lost, n, confidence)
        return Difference(value, low, high, n, mcnemar(gained, lost))
    rng = np.random.default_rng(seed)
    low, high = _bootstrap(items, binary, confidence, rng)
    # Pseudo-pairs pull the interval towards zero, perhaps past the difference itself.
    return Difference(value, min(low, value), max(high, value), n, _sign_flip(items, rng))


def grouped_mean(
    values: ArrayLike, groups: ArrayLike | None = None, strata: ArrayLike | None = None
) -> float:
    """Average as `paired_difference` does: over values of an item, then items, then datasets."""
    items = _item_means(np.asarray(values, float), groups, strata)
    return float(np.mean([each.mean() for each in items]))


def standard_error(values: ArrayLike) -> float:
    """Estimate the standard error of the mean of independent values; nan for fewer than two."""
    values = np.asarray(values, float)
    if values.size < 2:
        return math.nan
    return float(values.std(ddof=1) / math.sqrt(values.size))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm, Scandinavian Journal of Statistics 6:65, 1979)."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1.0).tolist()


def mcnemar(gained: int, lost: int) -> float:
    """Test whether pairs that disagree are as likely to go either way (McNemar's exact test)."""
    return min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5)))


def tango_interval(gained: int, lost: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Compute Tango's score interval for a difference of paired proportions.

    Args:
      gained, lost: pairs that only the first, only the second model has right.
      n: all pairs.
      confidence: of the interval.
    """
    from scipy import optimize

    z = float(special.ndtri((1 + confidence) / 2))
    if gained + lost == 0:
        return -z * z / (n + z * z), z * z / (n + z * z)
    if max(gained, lost) == n:
        limit = (n - z * z) / (n + z * z)
        return (limit, 1.0) if gained else (-1.0, -limit)

    def excess(delta: float, sign: int) -> float:
        linear = -gained - lost + (2 * n - gained + lost) * delta
        root = math.sqrt(max(linear**2 + 8 * n * lost * delta * (1 - delta), 0.0))
        variance = n * ((root - linear) / (2 * n) + delta * (1 - delta))
        return gained - lost - n * delta - sign * z * math.sqrt(max(variance, 0.0))

    centre = (gained - lost) / n
    low = optimize.brentq(excess, -1.0, centre, args=(1,))
    return low, optimize.brentq(excess, centre, 1.0, args=(-1,))


def _item_means(values, groups, strata) -> list[np.ndarray]:
    """Average the values of each item; returns an array for each stratum."""
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    strata = np.zeros(len(values), int) if strata is None else np.asarray(strata)
    means = []
    for stratum in np.unique(strata):
        inside = strata == stratum
        _, item = np.unique(groups[inside], return_inverse=True)
        means.append(np.bincount(item, values[inside]) / np.bincount(item))
    return means


def _bootstrap(items, binary: bool, confidence: float, rng) -> tuple[float, float]:
    total = sum(_resampled_means(each, binary, rng) for each in items) / len(items)
    tail = (1 - confidence) / 2 if binary else _tail([len(each) for each in items], confidence)
    low, high = np.quantile(total, (tail, 1 - tail))
    return float(low), float(high)


def _resampled_means(differences: np.ndarray, binary: bool, rng) -> np.ndarray:
    n = len(differences)
    values, weights = np.unique(differences, return_counts=True)
    if binary or len(values) < 6 or np.count_nonzero(differences) < FEW:
        # Agresti and Min's two pseudo-pairs: half a gain, half a loss, and a tie.
        values, weights = np.append(values, (1, 0, -1)), np.append(weights, (0.5, 1, 0.5))
        return rng.multinomial(n, weights / weights.sum(), RESAMPLES) @ values / n
    means = [differences[rng.integers(0, n, (size, n))].mean(axis=1) for size in _blocks(n)]
    return np.concatenate(means)


def _blocks(n: int) -> list[int]:
    """Divide the resamples of n items into blocks that keep memory below 20 MB."""
    size = max(1, 2_000_000 // n)
    return [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]


def _tail(sizes: list[int], confidence: float) -> float:
    """Find the percentile that makes up for a bootstrap's narrowness in small samples."""
    freedom = max(sum(sizes) - len(sizes), 1)
    size = sum(sizes) / len(sizes)
    t = special.stdtrit(freedom, (1 - confidence) / 2)
    return float(special.ndtr(t * math.sqrt(size / max(size - 1, 1))))


def _sign_flip(items, rng) -> float:
    """Compute the p-value of the mean difference if every sign were drawn at random.

    Hoeffding's bound (JASA 58:13, 1963) stands in where the draws could not resolve the p-value.
    """
    terms = np.concatenate([each[each != 0] / (len(each) * len(items)) for each in items])
    if not terms.size:
        return 1.0
    observed, power = abs(float(terms.sum())), float(np.square(terms).sum())
    bound = 2 * math.exp(-(observed**2) / (2 * power))
    if bound < 1 / (RESAMPLES + 1):
        return bound
    # Sums of equal size must count as such, whatever their rounding.
    extreme = np.count_nonzero(np.abs(_flipped_sums(np.abs(terms), rng)) >= observed * (1 - 1e-9))
    return (int(extreme) + 1) / (RESAMPLES + 1)


def _flipped_sums(terms: np.ndarray, rng) -> np.ndarray:
    sizes, counts = np.unique(terms, return_counts=True)
    # Of few distinct sizes it is enough to draw how many of each have a positive sign.
    if 4 * len(sizes) < len(terms):
        return (2 * rng.binomial(counts, 0.5, (RESAMPLES, len(sizes))) - counts) @ sizes
    kept = (rng.integers(0, 2, (size, len(terms)), np.int8) for size in _blocks(len(terms)))
    return np.concatenate([2 * (each.astype(float) @ terms) - terms.sum() for each in kept])
