"""How sure a figure is: bootstraps over queries, and prediction-powered intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from qrelay.errors import InputError
from qrelay.stats.columns import Floats, Ints, codes, finite, same_length

RESAMPLES: Final = 2000
Statistic = Callable[[Ints], float]
"""Row numbers [any] to a figure; nan where these rows do not give one."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds of its interval; the bounds are nan where too little is known for any."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedTest:
    """difference: of the first statistic and the second on all rows; low, high: its interval, or nan;
    p_value: one-sided, of the first being no better than the second."""

    difference: float
    low: float
    high: float
    p_value: float


def cluster_bootstrap(
    statistic: Statistic, groups: ArrayLike, *, n: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile interval of `statistic` when whole groups (queries) are drawn anew, with replacement: rows of one
    query are not independent (Davison and Hinkley 1997, section 3.8; Efron and Tibshirani 1993, chapter 13).

    groups: [rows]; n: resamples. Resamples on which the statistic is nan are left out; with fewer than two groups
    there are none, and the bounds are nan. The same seed draws the same groups.
    """
    g = codes(groups)
    _check(n, level)
    draws = np.array([statistic(rows) for rows in _resamples(g, n, seed)], np.float64)
    return Interval(float(statistic(np.arange(len(g)))), *percentile_interval(draws, level))


def paired_bootstrap(
    one: Statistic, other: Statistic, groups: ArrayLike, *, n: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> PairedTest:
    """Both statistics on the same resamples of groups, so that what makes a query hard for both cancels.

    p = (1 + resamples with a difference <= 0) / (1 + resamples): the share of resamples in which the first is no
    better, with the correction that keeps p above 0 (Davison and Hinkley 1997, chapter 4; for the percentile
    p-value Koehn 2004). It is the level at which the one-sided percentile interval touches 0. With fewer than two
    groups p is 1.
    """
    g = codes(groups)
    _check(n, level)
    draws = np.array([one(rows) - other(rows) for rows in _resamples(g, n, seed)], np.float64)
    usable = draws[~np.isnan(draws)]
    everything = np.arange(len(g))
    p = (1 + int((usable <= 0).sum())) / (1 + len(usable))
    return PairedTest(float(one(everything) - other(everything)), *percentile_interval(usable, level), p)


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Bounds of a share of n independent rows (Wilson 1927, by scipy). They hold near 0 and 1 (Brown, Cai, DasGupta
    2001, Statistical Science 16)."""
    from scipy.stats import binomtest

    bounds = binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(bounds.low), float(bounds.high)


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """The exact interval of a share, k of n (Clopper and Pearson 1934); 0 to 1 where n is 0."""
    from scipy.stats import beta

    if n == 0:
        return Interval(0.0, 0.0, 1.0)
    tail = (1.0 - level) / 2
    low = 0.0 if k == 0 else float(beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(1 - tail, k + 1, n - k))
    return Interval(k / n, low, high)


def percentile_interval(draws: Floats, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of the draws [n] that are not nan; nan where there is none."""
    usable = draws[~np.isnan(draws)]
    if not len(usable):
        return float("nan"), float("nan")
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ppi_mean(
    labels: ArrayLike, predictions: ArrayLike, rest: ArrayLike, *, level: float = 0.95, power_tuned: bool = True
) -> Interval:
    """Prediction-powered interval of a mean: Angelopoulos et al., Science 382 (2023), p. 669; with the power-tuned
    weight of "PPI++" (Angelopoulos, Duchi, Zrnic 2023, arXiv:2311.01453).

    labels [n]: people's, of units drawn at random; predictions [n]: the judge's on those; rest [m]: the judge's on
    the other units. The judge need not be right: its bias is measured where people graded and taken off. Where it is
    no help its weight falls to 0, which leaves the classical interval; `power_tuned=False` fixes the weight at 1.
    Units are independent: for rows of queries give one value a query, such as its nDCG@10.

    Raises:
        InputError: fewer than 2 units of a kind, columns that do not fit, nan.
    """
    sample = _Powered.of(labels, predictions, rest)
    weight = sample.weight() if power_tuned else 1.0
    return _around(sample.mean(weight), sample.variance(weight), level)


@dataclass(frozen=True, slots=True)
class _Powered:
    """labels [n], predictions [n], rest [m]: see `ppi_mean`."""

    labels: Floats
    predictions: Floats
    rest: Floats

    @classmethod
    def of(cls, labels: ArrayLike, predictions: ArrayLike, rest: ArrayLike) -> _Powered:
        y, f, g = finite(labels, "labels"), finite(predictions, "predictions"), finite(rest, "the rest")
        same_length(y, f)
        if min(len(y), len(g)) < 2:
            raise InputError(f"{len(y)} graded units and {len(g)} others: at least 2 of each are needed")
        return cls(y, f, g)

    def weight(self) -> float:
        """The weight of the predictions that makes the variance least, within 0 to 1 (PPI++, power tuning)."""
        spread = float(np.var(np.concatenate([self.predictions, self.rest])))
        together = float(np.cov(self.labels, self.predictions)[0, 1])
        best = together / ((1 + len(self.labels) / len(self.rest)) * spread) if spread > 0 else 0.0
        return min(1.0, max(0.0, best))

    def mean(self, weight: float) -> float:
        return float(weight * self.rest.mean() + (self.labels - weight * self.predictions).mean())

    def variance(self, weight: float) -> float:
        """Of `mean`."""
        of_rest = weight**2 * float(np.var(self.rest, ddof=1)) / len(self.rest)
        return of_rest + float(np.var(self.labels - weight * self.predictions, ddof=1)) / len(self.labels)


def _around(estimate: float, variance: float, level: float) -> Interval:
    _check(1, level)
    reach = NormalDist().inv_cdf(0.5 + level / 2) * variance**0.5
    return Interval(estimate, estimate - reach, estimate + reach)


def _resamples(g: Ints, n: int, seed: int) -> Iterator[Ints]:
    """Row numbers of each resample; none where there are fewer than two groups."""
    members = np.split(np.argsort(g, kind="stable"), np.cumsum(np.bincount(g))[:-1])
    generator = np.random.default_rng(seed)
    if len(members) > 1:
        for _ in range(n):
            yield np.concatenate([members[code] for code in generator.integers(0, len(members), len(members))])


def _check(n: int, level: float) -> None:
    if n < 1 or not 0.0 < level < 1.0:
        raise InputError(f"{n} resamples at level {level}: use at least 1, and a level between 0 and 1, such as 0.95")
