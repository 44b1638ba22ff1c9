"""Samples of items on which two models differ: an interval, a test, and its power for each kind.

`Pairs` of right and wrong answers, `Means` of items, and items by `Trainings`. Of each the interval
leaves out zero just where the test rejects at the same level.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import special

# A change counts where its p-value is below this.
ALPHA = 0.05
# Share of samples in which a change of the size `detectable` is found.
POWER = 0.8


class Pairs(NamedTuple):
    """Pairs of right and wrong answers of two models, one pair of each item.

    The interval is Tango's score interval (Statistics in Medicine 17:891, 1998). The p-value is the
    larger of that of the score test, which the interval inverts, and of McNemar's mid-p test
    (Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13:91, 2013); where the second
    alone does not reject, the interval is stretched to zero. It covers the truth in 94 to 97 % of
    samples, and in up to 100 % where fewer than about ten pairs differ: there is no interval of
    exactly 95 % for so few.

    Attributes:
      gained, lost: pairs that only the first, only the second model has right.
      n: all pairs.
    """

    gained: int
    lost: int
    n: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """Compute the confidence interval of the difference of the shares of right answers."""
        low, high = tango_interval(self.gained, self.lost, self.n, confidence)
        decided = self.p_value() < 1 - confidence
        return (low, high) if decided else (min(low, 0.0), max(high, 0.0))

    def p_value(self) -> float:
        """Test whether pairs that differ are as likely to go either way."""
        differ = self.gained + self.lost
        score = abs(self.gained - self.lost) / math.sqrt(max(differ, 1))
        return max(2 * float(special.ndtr(-score)), mcnemar_mid_p(self.gained, self.lost))

    def detectable(self) -> float:
        """Find the true difference whose samples the test rejects in 80 % of cases."""
        return _detectable_gain(self.gained + self.lost, self.n)


class Means(NamedTuple):
    """Mean differences of items within datasets.

    The interval is a t interval, each end of which moves to that of Hall's interval for skewed data
    (Journal of the Royal Statistical Society B 54:221, 1992) where that is farther; the p-value is
    the larger of the two. For the variance, each dataset has one item more, as far from its mean as
    its items that differ at all are from zero (root mean square), but no less than the root of
    1 / (k + 1) if k of them differ: models that never disagree get no interval of width zero, and
    one small difference does not say that all are small. For 0/1 values it is what the two
    pseudo-pairs of Agresti and Min amount to (Statistics in Medicine 24:729, 2005).

    It covers the truth in 93 to 97 % of samples from 24 items on; in up to 100 % where fewer than a
    dozen items differ; and in fewer where a rare, large difference is missing from the sample, of
    which the sample cannot tell: in 71 % where of 24 items 1 in 20 gains 0.85 and the rest lose
    0.045.

    Attributes:
      value: the mean over datasets.
      error: its standard error.
      skew: its skewness: that of the items over the root of their number.
      freedom: degrees of freedom of the error.
      size: the number of items, weighted as one dataset.
      usual: root mean square of the differences of the items that differ, or the root of
        1 / (k + 1) if k do and that is more.
      certain: degrees of freedom that a variance as certain as that of these items would have, if
        they were normally distributed: fewer the more it rests on a few items.
      limit: the largest difference that there can be; an interval ends there.
    """

    value: float
    error: float
    skew: float
    freedom: int
    size: float
    usual: float
    certain: float
    limit: float = 1.0

    @classmethod
    def of(cls, means: list[np.ndarray], limit: float = 1.0) -> Means:
        """Summarize the mean differences of items, an array for each dataset."""
        number, parts = len(means), [_moments(each) for each in means]
        variance = sum(part.variance for part in parts) / number**2
        third = sum(part.third for part in parts) / number**3
        return cls(
            value=float(np.mean([each.mean() for each in means])),
            error=math.sqrt(variance),
            skew=third / variance**1.5,
            freedom=max(1, sum(map(len, means)) - number),
            size=number**2 / sum(1 / len(each) for each in means),
            usual=max(part.usual for part in parts),
            certain=_certain(np.concatenate([each - each.mean() for each in means])),
            limit=limit,
        )

    def interval(self, confidence: float) -> tuple[float, float]:
        """Compute the confidence interval of the mean."""
        t = float(special.stdtrit(self.freedom, (1 + confidence) / 2))
        below, above = max(t, self._unskewed(t)), max(t, -self._unskewed(-t))
        low, high = self.value - below * self.error, self.value + above * self.error
        return max(-self.limit, low), min(self.limit, high)

    def p_value(self) -> float:
        """Test whether the mean is zero."""
        t = self.value / self.error
        skewed = self._skewed(t)
        tails = [abs(t), abs(skewed) if skewed * t > 0 else 0.0]
        return float(2 * special.stdtr(self.freedom, -min(tails)))

    def detectable(self) -> float:
        """Find the true mean whose samples the test rejects in 80 % of cases."""
        factor = needed_errors(self.freedom, self.certain)
        # A change takes items that differ, of which there may be none so far.
        few = factor**2 * self.usual / (self.size + factor**2)
        return min(self.limit, max(factor * self.error, few))

    def _skewed(self, t: float) -> float:
        """Transform a t statistic so that the skewness of the data is taken out."""
        return t + self.skew * t**2 / 3 + self.skew**2 * t**3 / 27 + self.skew / 6

    def _unskewed(self, t: float) -> float:
        """Find the statistic that `_skewed` makes `t` of."""
        if abs(self.skew) < 1e-6:
            return t
        return 3 / self.skew * (float(np.cbrt(1 + self.skew * (t - self.skew / 6))) - 1)


def _certain(centred: np.ndarray) -> float:
    square = float(np.square(centred).mean())
    kurtosis = float((centred**4).mean()) / square**2 if square else 3.0
    return 2 * len(centred) / max(kurtosis - 1, 1e-9)


class _Moments(NamedTuple):
    """Variance and third central moment of the mean of some items, and their usual difference."""

    variance: float
    third: float
    usual: float


def _moments(differences: np.ndarray) -> _Moments:
    n, centred = len(differences), differences - differences.mean()
    some = differences[differences != 0]
    square = max(float(np.square(some).sum()) / max(some.size, 1), 1 / (some.size + 1))
    # Of n items and one more the squares add up to n variances.
    variance = (float(np.square(centred).sum()) + square) / n**2
    third = float((centred**3).sum()) / ((n - 1) * (n - 2) * n) if n > 2 else 0.0
    return _Moments(variance, third, math.sqrt(square))


class Trainings(NamedTuple):
    """Mean differences of items and trainings, crossed.

    The interval joins those of the two sources of variation (MOVER; Zou and Donner, Statistics in
    Medicine 27:1693, 2008): each end lies as far from the mean as the root of the summed squares of
    their distances. It covers the truth in 94 to 98 % of samples from 3 trainings on.

    Attributes:
      items: of the means over trainings, with the error that items alone make.
      error: the standard error of the means of trainings.
      freedom: its degrees of freedom.
    """

    items: Means
    error: float
    freedom: int

    @classmethod
    def of(
        cls, parts: list[list[np.ndarray]], means: list[np.ndarray], limit: float = 1.0
    ) -> Trainings:
        """Summarize tables of differences.

        Args:
          parts: [items, trainings] of each recipe of each dataset; all datasets have the same
            recipes with the same trainings.
          means: of each item over all recipes.
          limit: the largest difference that there can be.
        """
        datasets, recipes = len(parts), len(parts[0])
        variance, freedom, doubled = 0.0, 0, 0.0
        for r in range(recipes):
            tables = [each[r] for each in parts]
            by_training = np.mean([table.mean(axis=0) for table in tables], axis=0)
            variance += float(by_training.var(ddof=1)) / len(by_training) / recipes**2
            freedom += len(by_training) - 1
            # What is left of items and trainings is in the error of both.
            doubled += (
                sum(residual_variance(t) / t.size for t in tables) / (datasets * recipes) ** 2
            )
        whole = Means.of(means, limit)
        error = math.sqrt(max(0.0, whole.error**2 - doubled))
        return cls(whole._replace(error=error), math.sqrt(variance), freedom)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Compute the confidence interval of the mean."""
        low, high = self.items.interval(confidence)
        seeds = float(special.stdtrit(self.freedom, (1 + confidence) / 2)) * self.error
        value = self.items.value
        low, high = value - math.hypot(seeds, value - low), value + math.hypot(seeds, high - value)
        return max(-self.items.limit, low), min(self.items.limit, high)

    def p_value(self) -> float:
        """Find the p-value at which the interval touches zero."""

        def excludes(p: float) -> bool:
            low, high = self.interval(1 - p)
            return not low <= 0 <= high

        if not excludes(1 - 1e-12):
            return 1.0
        below, above = 0.0, 1 - 1e-12
        for _ in range(60):
            middle = math.sqrt(below * above) if below > 0 else above / 16
            if excludes(middle):
                above = middle
            else:
                below = middle
            if above < 1e-12:
                break
        return above

    def detectable(self) -> float:
        """Find the true mean whose samples the test rejects in 80 % of cases, approximately."""
        return min(
            self.items.limit,
            math.hypot(
                needed_errors(self.freedom, self.freedom) * self.error, self.items.detectable()
            ),
        )


Sample = Pairs | Means | Trainings


def needed_errors(freedom: int, certain: float = math.inf) -> float:
    """Return how many standard errors a mean needs to be found in 80 % of samples.

    Args:
      freedom: degrees of freedom of the test.
      certain: those of the estimate of the error, which another sample may find smaller.
    """
    t = float(special.stdtrit(freedom, 1 - ALPHA / 2) + special.stdtrit(freedom, POWER))
    return t * (1 + 1.5 / certain)


def mcnemar_mid_p(gained: int, lost: int) -> float:
    """Test whether pairs that differ are as likely to go either way (McNemar's mid-p test)."""
    fewer, differ = min(gained, lost), gained + lost
    if gained == lost:
        return 1.0
    below = float(special.bdtr(fewer - 1, differ, 0.5)) if fewer else 0.0
    return below + float(special.bdtr(fewer, differ, 0.5))


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


@functools.lru_cache(maxsize=10_000)
def _detectable_gain(differ: int, n: int) -> float:
    """Find the true gain that `Pairs` of n items, of which so many differ, reject in 80 %."""
    if _share_found(1.0, differ, n) < POWER:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if _share_found(middle, differ, n) >= POWER else (middle, high)
    return high


def _share_found(gain: float, differ: int, n: int) -> float:
    """Compute how often a true gain is found where as many items differ, or as the gain takes."""
    share = max(differ / n, gain)
    k = np.arange(n + 1)
    weight = np.exp(
        special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
        + special.xlogy(k, share) + special.xlog1py(n - k, -share)
    )  # fmt: skip
    k, weight = k[weight > 1e-12], weight[weight > 1e-12]
    most = np.array([_most_lost(int(each)) for each in k])
    found = special.bdtr(np.maximum(most, 0), k, (share - gain) / 2 / share)
    return float(weight @ np.where(most >= 0, found, 0.0))


@functools.lru_cache(maxsize=100_000)
def _most_lost(differ: int) -> int:
    """Find how many of the pairs that differ may be lost for a gain to be found; -1: none."""
    lost = int((differ - 1.9 * math.sqrt(differ)) / 2) + 1 if differ else -1
    while lost >= 0 and Pairs(differ - lost, lost, differ).p_value() >= ALPHA:
        lost -= 1
    return lost


def residual_variance(table: np.ndarray) -> float:
    """Compute the variance that an additive model of items and levels leaves."""
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float(np.square(rest).sum() / max(1, (len(table) - 1) * (table.shape[1] - 1)))
