"""Prediction-powered means: people's values of a sample of units, a judge's of all of them.

    found = powered_mean(people, judge_there, judge_elsewhere)      # a value a query, such as its nDCG@10
    found.interval, found.people_only, found.needed(width=0.05)

The judge need not be right: what it is off by is measured on the sample and taken off (Angelopoulos et al.,
"Prediction-powered inference", Science 382, 2023; power tuning: "PPI++", arXiv:2311.01453). With the weight that has
the least variance this is the regression estimator of survey sampling (Cochran, Sampling Techniques, 3rd ed. 1977,
sections 7.1 and 12.6), and from tens of units what estimating the weight costs must be counted: the variance is the
jackknife's and the quantile Student's, where the papers have the residuals' variance and the normal's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from qrelay.errors import InputError
from qrelay.stats.columns import Floats, finite, same_length
from qrelay.stats.intervals import Interval, checked_level

Target = Literal["population", "these"]
"""Of what the mean is: of the population that all units were drawn from, or of just these units."""
_LEAST: Final = 3
_MOST: Final = 0.9
"""Share of the predictions' spread that one unit may have: beyond it, that unit alone decides the slope."""


@dataclass(frozen=True, slots=True)
class Powered:
    """interval: of the mean; people_only: the same from people's values alone (Student's); correlation: of both on
    the sample, 0 where one is constant; weight: of the judge's values; graded, units: how many; residual: standard
    deviation of what the judge does not explain; spread: of people's values, as far as all predictions tell it."""

    interval: Interval
    people_only: Interval
    correlation: float
    weight: float
    graded: int
    units: int
    residual: float
    spread: float
    target: Target
    level: float

    @property
    def width(self) -> float:
        """Of the interval."""
        return self.interval.high - self.interval.low

    def width_with(self, graded: int) -> float:
        """The width to expect with so many units graded, of the same number of units."""
        within = self.residual**2 * (1 / graded - 1 / self.units) * (1 + 1 / max(1, graded - 3))
        between = self.spread**2 / self.units if self.target == "population" else 0.0
        return 2 * _t(self.level, graded - 2) * math.sqrt(within + between)

    def needed(self, width: float) -> int | None:
        """How many units must be graded in all for an interval of at most this width, as far as can be expected;
        None where grading all of them would not do: more units are needed."""
        if self.width <= width:
            return self.graded
        more = range(max(self.graded + 1, _LEAST), self.units + 1)
        return next((count for count in more if self.width_with(count) <= width), None)


def powered_mean(
    labels: ArrayLike, predictions: ArrayLike, rest: ArrayLike, *, target: Target = "population", level: float = 0.95
) -> Powered:
    """The mean of people's values over all units.

    labels [n]: people's, of units drawn at random; predictions [n]: the judge's on those; rest [m]: the judge's on
    the other units, which may be none. Units are independent: for rows of queries give one value a query. Errors of
    the judge may be of any size and sign. With "these" the n units were drawn without replacement from the n + m.

    The estimate is mean(labels) + weight * (mean of all predictions - mean(predictions)), the weight the slope of the
    least-squares line through the sample; 0 where that is negative (by chance, or because the predictions were fitted
    to these labels) or one unit alone decides it. Its variance given the N = n + m units is the jackknife's (leaving
    out one graded unit after the other; in closed form HC3 of MacKinnon and White, Journal of Econometrics 29, 1985),
    times 1 - n/N. For "population" the variance of labels over N comes on top: the residuals' and weight^2 times that
    of all predictions. Student's quantile has n - 2 degrees of freedom, n - 1 with the weight 0. With many units the
    width is sqrt(1 - r^2) of people's own for "these" and sqrt(1 - r^2 (1 - n/N)) for "population", with r the
    correlation.

    Raises:
        InputError: fewer than 3 graded units, columns that do not fit, nan.
    """
    if np.size(labels) < _LEAST:
        raise InputError(
            f"{np.size(labels)} units are graded in whole: at least {_LEAST} are needed for an interval, better 20"
        )
    y, f = finite(labels, "labels"), finite(predictions, "predictions")
    same_length(y, f)
    everything = np.concatenate([f, finite(rest, "the rest")]) if np.size(rest) else f
    n, units, of_y = len(y), len(everything), float(np.var(y, ddof=1))
    weight, tilt = _slope(y, f)
    apart, freedom = float(everything.mean() - f.mean()), n - 2 if weight else n - 1
    errors = y - y.mean() - weight * (f - f.mean())
    residual = float(errors @ errors) / freedom
    everywhere = residual + weight**2 * float(np.var(everything, ddof=1))
    variance = _jackknife(errors, f, tilt, apart) * (1 - n / units)
    variance += everywhere / units if target == "population" else 0.0
    alone = of_y * (1 / n - 1 / units if target == "these" else 1 / n)
    return Powered(
        _student(float(y.mean()) + weight * apart, variance, freedom, level),
        _student(float(y.mean()), alone, n - 1, level),
        float(np.corrcoef(y, f)[0, 1]) if of_y and np.ptp(f) else 0.0,
        weight, n, units, math.sqrt(residual), math.sqrt(everywhere), target, level,
    )  # fmt: skip


def _slope(y: Floats, f: Floats) -> tuple[float, Floats]:
    """The weight, and by how much each y [n] moves it: 0 where it is not estimated."""
    around = f - f.mean()
    spread = float(around @ around)
    constant = spread <= 1e-12 * len(f) * (1.0 + float(f.mean()) ** 2)
    if constant or float(np.max(around**2)) > _MOST * spread or float(around @ y) <= 0:
        return 0.0, np.zeros(len(f))
    return float(around @ y) / spread, around / spread


def _jackknife(errors: Floats, f: Floats, tilt: Floats, apart: float) -> float:
    """The variance of the estimate over samples: (n - 1)/n times the sum of squares of how far it moves where a unit
    is left out. errors [n]: of the line through the sample; tilt: see `_slope`; apart: mean of all predictions less
    the sample's."""
    n = len(errors)
    moved = (1 / n + apart * tilt) * errors / (1 - 1 / n - (f - f.mean()) * tilt)
    return float(moved @ moved) * (n - 1) / n


def _student(estimate: float, variance: float, freedom: float, level: float) -> Interval:
    reach = _t(level, freedom) * math.sqrt(variance)
    return Interval(estimate, estimate - reach, estimate + reach)


def _t(level: float, freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(max(1.0, freedom), 0.5 + checked_level(level) / 2))


def sampled_mean(values: Floats, errors: Floats, *, target: Target = "population", level: float = 0.95) -> Interval:
    """The interval of the mean of units of which parts were graded by chance. values [N]: each unit's estimate;
    errors [N]: the variance of each that the choice of parts causes, by its known chances. "these": only that choice
    is by chance. "population": the units are too, and the spread of the values holds both. Student's quantile has
    N - 1 degrees of freedom; Satterthwaite's many fewer for "these" made 97 to 98% of 95.

    Raises:
        InputError: fewer than 3 units, columns that do not fit, nan.
    """
    y, v = finite(values, "values"), finite(errors, "errors")
    same_length(y, v)
    n = len(y)
    if n < _LEAST:
        raise InputError(f"{n} queries: at least {_LEAST} are needed for an interval")
    spread = float(np.var(y, ddof=1)) if target == "population" else float(v.mean())
    return _student(float(y.mean()), spread / n, n - 1, level)
