"""95% intervals over windows.

A level has 3 to 12 windows. So few make a percentile bootstrap much too narrow (of three values it covers about 75%
where it says 95%), so the intervals are Student's t over windows; for ratios Welch's t (Biometrika 34, 1947) over the
logarithms, as rates and latencies vary in proportion. Windows of one level are taken as independent; that holds where
they are much longer than a request.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Final

LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and half the width of its interval."""

    value: float
    half: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio and its interval; without bounds where a side has fewer than two windows."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 1."""
        return self.low is not None and self.high is not None and not self.low <= 1.0 <= self.high


def mean_interval(values: Sequence[float]) -> Mean | None:
    """Student's interval of the mean; None for fewer than two values. Needs scipy."""
    if len(values) < 2:
        return None
    return Mean(fmean(values), _t(len(values) - 1) * math.sqrt(variance(values) / len(values)))


def ratio_interval(of: Sequence[float], to: Sequence[float], value: float | None = None) -> Ratio | None:
    """Mean of `of` over that of `to`, one value a window, and Welch's interval on the logarithms. `value`: the ratio
    where it is known better, as of all windows together; the interval lies around it. None where a value is not above
    0: there is no ratio. Needs scipy."""
    if not of or not to or min(*of, *to) <= 0:
        return None
    one, other = ([math.log(value) for value in values] for values in (of, to))
    middle = math.log(value) if value is not None else fmean(one) - fmean(other)
    if len(one) < 2 or len(other) < 2:
        return Ratio(math.exp(middle))
    a, b = variance(one) / len(one), variance(other) / len(other)
    if a + b == 0:
        return Ratio(math.exp(middle), math.exp(middle), math.exp(middle))
    freedom = (a + b) ** 2 / (a**2 / (len(one) - 1) + b**2 / (len(other) - 1))
    half = _t(freedom) * math.sqrt(a + b)
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def _t(freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))
