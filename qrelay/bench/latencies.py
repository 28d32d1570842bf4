"""Latencies: quantiles of exact values, and counts in narrow buckets that can be stored and pooled.

Quantiles are by nearest rank: the smallest value that at least a share q of all values does not exceed (definition 1
of Hyndman and Fan, The American Statistician 50, 1996). It is always a value that occurred.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qrelay.errors import InputError

_GROWTH: Final = math.log(1.02)
_LEAST_S: Final = 1e-6


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


def bucketed(values: Iterable[float]) -> dict[int, int]:
    """Counts of seconds by bucket: bucket b holds (1.02^(b-1), 1.02^b] microseconds, so that any quantile of pooled
    counts is within 1% (as in DDSketch, Masson et al., VLDB 2019). Below a microsecond: bucket 0."""
    return dict(sorted(Counter(map(_bucket, values)).items()))


def pooled_quantile(counts: Iterable[Mapping[int, int]], q: float) -> float | None:
    """The q-quantile in seconds, by nearest rank and within 1%, of all buckets together; None of nothing."""
    pooled: Counter[int] = Counter()
    for each in counts:
        pooled.update(each)
    rank, seen = math.ceil(round(q * pooled.total(), 9)), 0
    for bucket in sorted(pooled):
        seen += pooled[bucket]
        if seen >= rank:
            return _LEAST_S * math.exp((bucket - 0.5) * _GROWTH)
    return None


def _bucket(seconds: float) -> int:
    return math.ceil(math.log(seconds / _LEAST_S) / _GROWTH) if seconds > _LEAST_S else 0
