"""Answers on their way into windows, and windows into a level."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from qrelay.bench.estimates import mean_interval
from qrelay.bench.latencies import Quantiles, nearest_rank
from qrelay.bench.report import Estimate, LateStarts, Level, Window
from qrelay.bench.usage import Probe, Reading, cpu_between, usage
from qrelay.bench.windows import WindowPolicy, keeps_up

_LATE_S: Final = 0.01


def _doubles() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Stretch:
    """What happened between two moments, exactly."""

    began: float
    items: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    arrived: int = 0
    capped: int = 0
    good: int = 0
    latencies: array[float] = field(default_factory=_doubles)
    lateness: array[float] = field(default_factory=_doubles)

    def window(self, ended: float, cpu_seconds: Mapping[str, float], limit_s: float | None) -> Window:
        """Closed at `ended`, in figures. limit_s: whether and what good requests are."""
        return Window(
            seconds=ended - self.began,
            requests=len(self.latencies),
            items=self.items,
            failed=dict(self.failed),
            refused=self.refused,
            arrived=self.arrived or None,
            latency_s=Quantiles.of(self.latencies),
            cpu_seconds=cpu_seconds,
            good=None if limit_s is None else self.good,
        )


class Recorder:
    """Collects answers into the current stretch."""

    def __init__(self, limit_s: float | None = None) -> None:
        """limit_s: what a good request takes at most."""
        self._limit_s = math.inf if limit_s is None else limit_s
        self._clock = asyncio.get_running_loop().time
        self._now = Stretch(self._clock())
        self._changed = asyncio.Event()

    def arrived(self, capped: bool = False) -> None:
        """A request is due; `capped`: it is not sent, as too many are outstanding."""
        self._now.arrived += 1
        self._now.capped += capped

    def started(self, late_s: float) -> None:
        """A request left, so many seconds after it was due."""
        self._now.lateness.append(late_s)

    def answered(self, items: int, failed: Mapping[str, int], refused: int, latency_s: float) -> None:
        """A request came back."""
        now = self._now
        now.items += items
        now.failed.update(failed)
        now.refused += refused
        now.good += not refused and not sum(failed.values()) and latency_s <= self._limit_s
        now.latencies.append(latency_s)
        self._changed.set()

    async def fill(self, seconds: float, policy: WindowPolicy) -> None:
        """Wait until the current stretch is so long and has `min_requests` answers, at most `longest_s`."""
        await self._until(self._now.began + seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._now.began + policy.longest_s):
                while len(self._now.latencies) < policy.min_requests:
                    self._changed.clear()
                    await self._changed.wait()

    def cut(self) -> tuple[Stretch, float]:
        """End the current stretch and begin the next; the one that ended, and when."""
        done, now = self._now, self._clock()
        self._now = Stretch(now)
        return done, now

    def rest(self) -> Stretch:
        """What came since the last cut."""
        return self._now

    async def _until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self._clock()))


async def measure(
    recorder: Recorder, policy: WindowPolicy, probe: Probe, until: asyncio.Future[Any] | None = None
) -> Measured:
    """Warm up, then windows until `policy.is_over`. `until`: no warm-up, and windows until this is done."""
    if until is None:
        await recorder.fill(policy.warm_up_s, policy)
        recorder.cut()
    stretches: list[Stretch] = []
    windows: list[Window] = []
    readings = [await asyncio.to_thread(probe.read)]
    while not windows or not (policy.is_over(windows) if until is None else until.done()):
        await recorder.fill(policy.window_s, policy)
        stretch, ended = recorder.cut()
        readings.append(await asyncio.to_thread(probe.read))
        stretches.append(stretch)
        windows.append(stretch.window(ended, cpu_between(readings[-2], readings[-1]), policy.limit_s))
    stable = policy.is_stable(windows) if until is None else bool(windows)
    return Measured(windows, stretches, readings, stable, policy.limit_s)


@dataclass(frozen=True, slots=True)
class Measured:
    """The windows of one level [n], what was in them exactly [n], and the readings at their bounds [n + 1]."""

    windows: Sequence[Window]
    stretches: Sequence[Stretch]
    readings: Sequence[Reading]
    stable: bool
    limit_s: float | None = None

    def closed(self, concurrency: int, unanswered: int) -> Level:
        """The level of a closed loop."""
        return replace(self._level(), concurrency=concurrency, unanswered=unanswered)

    def opened(self, rate: float, rest: Stretch, waited: Sequence[float], capacity: float | None = None) -> Level:
        """The level of an open loop. rest: what was answered after the last window; waited: seconds that those never
        answered had waited; capacity: as `keeps_up`."""
        level = self._level()
        capped = sum(stretch.capped for stretch in self.stretches)
        latencies = [*_joined(stretch.latencies for stretch in self.stretches), *rest.latencies, *waited]
        return replace(
            level,
            kind="open",
            rate=rate,
            offered=_offered(self.windows),
            latency_s=Quantiles.of(latencies),
            late_starts=_late_starts(_joined(stretch.lateness for stretch in self.stretches)),
            unanswered=len(waited),
            capped=capped,
            saturated=bool(waited or capped or not keeps_up(self.windows, rate, capacity)),
            goodput=self._goodput(rest, len(waited) + capped),
        )

    def _level(self) -> Level:
        windows = self.windows
        items = sum(window.items for window in windows)
        failed: Counter[str] = Counter()
        for window in windows:
            failed.update(window.failed)
        return Level(
            kind="closed",
            concurrency=None,
            rate=None,
            throughput=_throughput(windows),
            offered=None,
            latency_s=Quantiles.of(_joined(stretch.latencies for stretch in self.stretches)),
            requests=sum(window.requests for window in windows),
            items=items,
            failed=dict(failed),
            refused=sum(window.refused for window in windows),
            windows=tuple(self.windows),
            stable=self.stable,
            usage=usage(self.readings, items),
            limit_s=self.limit_s,
            goodput=self._goodput(Stretch(0.0), 0),
        )

    def _goodput(self, rest: Stretch, never: int) -> Estimate | None:
        """The share of good requests, its interval over windows. never: those without an answer."""
        due = sum(window.requests for window in self.windows) + len(rest.latencies) + never
        if self.limit_s is None or not due:
            return None
        value = (sum(window.good or 0 for window in self.windows) + rest.good) / due
        found = mean_interval([(window.good or 0) / window.requests for window in self.windows if window.requests])
        if found is None:
            return Estimate(value)
        return Estimate(value, max(0.0, value - found.half), min(1.0, value + found.half))


def _throughput(windows: Sequence[Window]) -> Estimate:
    """Items a second over all of these windows, with the interval of their mean."""
    value = sum(window.items for window in windows) / sum(window.seconds for window in windows)
    found = mean_interval([window.throughput for window in windows])
    if found is None:
        return Estimate(value)
    return Estimate(value, max(0.0, value - found.half), value + found.half)


def _offered(windows: Sequence[Window]) -> float | None:
    """Items that were due a second: requests due times the items of an answered one; None where none was answered."""
    answered = sum(window.requests for window in windows)
    items = sum(window.items + window.refused + sum(window.failed.values()) for window in windows)
    arrived = sum(window.arrived or 0 for window in windows)
    return arrived * items / answered / sum(window.seconds for window in windows) if answered else None


def _late_starts(lateness: Sequence[float]) -> LateStarts | None:
    if not lateness:
        return None
    ordered = sorted(lateness)
    late = sum(seconds > _LATE_S for seconds in ordered)
    return LateStarts(len(ordered), late, nearest_rank(ordered, 0.99), ordered[-1])


def _joined(parts: Iterable[array[float]]) -> array[float]:
    whole = _doubles()
    for part in parts:
        whole.extend(part)
    return whole
