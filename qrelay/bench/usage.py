"""What the measured processes used, from their own counters read before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol

_BATCH_METRICS: Final = ("qrelay_batch_items", "qrelay_grpc_batch_items")
_QUEUE_METRICS: Final = ("qrelay_queue_seconds",)
_COMPUTE_METRICS: Final = ("qrelay_compute_seconds", "qrelay_grpc_compute_seconds")


@dataclass(frozen=True, slots=True)
class Histogram:
    """A Prometheus histogram, or the difference of two readings of one.

    bounds [n]: rising upper bounds without +Inf; counts [n + 1]: observations of each bucket alone, the last one
    above all bounds; sum: of all observations.
    """

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    sum: float

    @classmethod
    def cumulative(cls, buckets: Mapping[float, float], total: float) -> Histogram:
        """From what /metrics shows: `le` (+Inf included) to the cumulative count, and the sum."""
        edges = sorted(buckets)
        below = [0.0, *(buckets[edge] for edge in edges)]
        counts = tuple(after - before for before, after in pairwise(below))
        return cls(tuple(edge for edge in edges if edge != float("inf")), counts, total)

    @property
    def count(self) -> float:
        """Observations."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Mean of the observations; None where there are none."""
        return self.sum / self.count if self.count > 0 else None

    def since(self, earlier: Histogram | None) -> Histogram:
        """What came after `earlier`; everything where that is None, has other bounds, or a restart set the counters
        back."""
        if earlier is None or earlier.bounds != self.bounds or earlier.count > self.count:
            return self
        counts = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        return Histogram(self.bounds, counts, self.sum - earlier.sum)

    def quantile(self, q: float) -> float | None:
        """The q-quantile, values spread evenly within a bucket as Prometheus' histogram_quantile does; the largest
        bound where it lies above; None where nothing was observed."""
        rank, seen, low = q * self.count, 0.0, 0.0
        if not self.bounds or self.count <= 0:
            return None
        for high, count in zip(self.bounds, self.counts, strict=False):
            if count > 0 and seen + count >= rank:
                return low + (high - low) * max(0.0, rank - seen) / count
            seen, low = seen + count, high
        return self.bounds[-1]


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment. Counters run from its start; None: not known (another machine, no metrics)."""

    cpu_seconds: float | None = None
    rss_mib: float | None = None
    peak_rss_mib: float | None = None
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    """By metric name without suffix, such as qrelay_batch_items; labels summed."""


Reading = Mapping[str, Sample]
"""Samples of one moment by process name: `judge`, or `judge-2` where there are several."""


class Probe(Protocol):
    """Where readings come from."""

    def read(self) -> Reading:
        """All processes now. Called in a thread between windows, so it may block; a process that does not answer is
        left out."""
        ...


class NoProbe:
    """Nothing is known of the measured processes."""

    def read(self) -> Reading:
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True)
class Spread:
    """Quantiles of a Prometheus histogram, interpolated within its buckets: as fine as these are."""

    count: float
    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None

    @classmethod
    def of(cls, histogram: Histogram) -> Spread:
        """Of the observations of `histogram`."""
        return cls(histogram.count, histogram.mean, *(histogram.quantile(q) for q in (0.5, 0.9, 0.99)))


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process used for the items of a level; None: not known."""

    cpu_seconds: float | None = None
    cpu_seconds_per_1000: float | None = None
    """A thousand answered items of the level, whichever process answered them."""
    peak_rss_mib: float | None = None
    """Since the process started, where it says so; else the largest that was seen between windows."""
    mean_batch: float | None = None
    batch_sizes: Histogram | None = None
    queue_s: Spread | None = None
    compute_s_per_batch: Spread | None = None
    compute_s_per_item: float | None = None


def usage(readings: Sequence[Reading], items: int) -> dict[str, Usage]:
    """By process name, from the readings at the bounds of the windows (first to last), over `items` answered
    in between. Without two readings there is nothing to tell: empty."""
    if len(readings) < 2:
        return {}
    first, last = readings[0], readings[-1]
    return {
        name: _used(first.get(name), sample, _peak(name, readings), items) for name, sample in sorted(last.items())
    }


def cpu_between(before: Reading, after: Reading) -> dict[str, float]:
    """CPU-seconds by process name between two readings, where both know them."""
    spent = {name: _cpu(before.get(name), sample) for name, sample in after.items()}
    return {name: seconds for name, seconds in spent.items() if seconds is not None}


def _used(before: Sample | None, after: Sample, peak: float | None, items: int) -> Usage:
    cpu = _cpu(before, after)
    batches = _grown(before, after, _BATCH_METRICS)
    queue, compute = _grown(before, after, _QUEUE_METRICS), _grown(before, after, _COMPUTE_METRICS)
    return Usage(
        cpu_seconds=cpu,
        cpu_seconds_per_1000=None if cpu is None or items == 0 else 1000 * cpu / items,
        peak_rss_mib=peak,
        mean_batch=batches.mean if batches else None,
        batch_sizes=batches,
        queue_s=Spread.of(queue) if queue else None,
        compute_s_per_batch=Spread.of(compute) if compute else None,
        compute_s_per_item=compute.sum / batches.sum if compute and batches and batches.sum > 0 else None,
    )


def _cpu(before: Sample | None, after: Sample) -> float | None:
    """None where a side is not known, or a restart set the counter back."""
    if before is None or before.cpu_seconds is None or after.cpu_seconds is None:
        return None
    spent = after.cpu_seconds - before.cpu_seconds
    return spent if spent >= 0 else None


def _grown(before: Sample | None, after: Sample, names: tuple[str, ...]) -> Histogram | None:
    """The first of these metrics that was observed in between: a service works for the queue or for callers."""
    for name in names:
        if name in after.histograms:
            grown = after.histograms[name].since(before.histograms.get(name) if before else None)
            if grown.count > 0:
                return grown
    return None


def _peak(name: str, readings: Sequence[Reading]) -> float | None:
    samples = [reading[name] for reading in readings if name in reading]
    seen = [value for sample in samples for value in (sample.peak_rss_mib, sample.rss_mib) if value is not None]
    return max(seen, default=None)
