"""A figure of the check: value, low, high (95%) and n; nan where there is none. Means draw whole queries anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from qrelay.stats.columns import codes
from qrelay.stats.intervals import Interval, Statistic, cluster_bootstrap, wilson

_RESAMPLES: Final = 500
"""Bounds are read to two digits; on a million pairs each resample costs a tenth of a second."""
Figure = dict[str, Any]


def figure(statistic: Statistic, groups: ArrayLike) -> Figure:
    """A statistic of rows [n], of which those of one group are drawn together; `n`: groups."""
    if not len(np.asarray(groups)):
        return _shown(Interval(*[float("nan")] * 3), 0)
    return _shown(cluster_bootstrap(statistic, groups, n=_RESAMPLES), int(codes(groups).max()) + 1)


def mean(values: Sequence[float]) -> Figure:
    """The mean of what each query has, or nan; `n`: queries that have it."""
    known = np.array([each for each in values if not np.isnan(each)])
    return figure(lambda i: float(known[i].mean()), np.arange(len(known)))


def mean_by(values: ArrayLike, groups: ArrayLike) -> Figure:
    """The mean of values [n], each of a group."""
    known = np.asarray(values, np.float64)
    return figure(lambda i: float(known[i].mean()), groups)


def share(flags: Sequence[bool]) -> Figure:
    """The share of rows that are so, with Wilson's interval, which holds where none is; rows taken as independent."""
    n, value = len(flags), float(np.mean(flags)) if flags else float("nan")
    low, high = wilson(sum(flags), n) if n else (value, value)
    return _shown(Interval(value, low, high), n)


def _shown(interval: Interval, n: int) -> Figure:
    return {"value": interval.estimate, "low": interval.low, "high": interval.high, "n": n}
