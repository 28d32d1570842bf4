"""Quantiles of latencies, from exact values: a run has at most some hundred thousand, which needs no sketch.

Quantiles are by nearest rank: the smallest value that at least a share q of all values does not exceed (definition 1
of Hyndman and Fan, The American Statistician 50, 1996). It is always a value that occurred.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qrelay.errors import InputError


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of `count` values in seconds: quantiles by nearest rank, the largest and the mean."""

    count: int
    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    mean: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Quantiles | None:
        """Of exact values in any order; None where there are none."""
        ordered = sorted(values)
        if not ordered:
            return None
        p50, p90, p95, p99 = (nearest_rank(ordered, q) for q in (0.5, 0.9, 0.95, 0.99))
        return cls(len(ordered), p50, p90, p95, p99, ordered[-1], math.fsum(ordered) / len(ordered))


def nearest_rank(ordered: Sequence[float], q: float) -> float:
    """The q-quantile, 0 < q <= 1, of rising values.

    Raises:
        InputError: no values, or q outside.
    """
    if not ordered or not 0 < q <= 1:
        raise InputError(f"the {q}-quantile of {len(ordered)} values: give at least one value and q in (0, 1]")
    # The product of 0.95 and 100 is a little above 95: without rounding the rank would be one too high.
    return ordered[max(0, math.ceil(round(q * len(ordered), 9)) - 1)]
