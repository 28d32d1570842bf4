"""How sure a figure is: bootstraps over queries, and intervals of shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from qrelay.errors import InputError
from qrelay.stats.columns import Floats, Ints, codes

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
    """Bounds of a share of n independent rows (Wilson 1927). They hold near 0 and 1 (Brown, Cai, DasGupta 2001,
    Statistical Science 16). By its formula: importing SciPy for it would cost the console 60 MB and seconds."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle, half = successes + z * z / 2, z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    low, high = (middle - half) / (n + z * z), (middle + half) / (n + z * z)
    return low if successes else 0.0, high if successes < n else 1.0


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


def _resamples(g: Ints, n: int, seed: int) -> Iterator[Ints]:
    """Row numbers of each resample; none where there are fewer than two groups."""
    members = np.split(np.argsort(g, kind="stable"), np.cumsum(np.bincount(g))[:-1])
    generator = np.random.default_rng(seed)
    if len(members) > 1:
        for _ in range(n):
            yield np.concatenate([members[code] for code in generator.integers(0, len(members), len(members))])


def _check(n: int, level: float) -> None:
    if n < 1:
        raise InputError(f"{n} resamples: use at least 1, usually {RESAMPLES}")
    checked_level(level)


def checked_level(level: float) -> float:
    """The level. Raises InputError: it is not between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise InputError(f"level {level}: use one between 0 and 1, such as 0.95")
    return level
