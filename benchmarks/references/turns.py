"""Two ways of doing the same work, by turns, so that a slow minute of the machine troubles both.

A round is one turn of each on the same items, and the order changes from round to round. The ratio is the median
over the rounds of bare seconds / service seconds: 1 means that the service adds nothing, 0.5 that it takes twice as
long as the bare library. Its interval is a bootstrap over the rounds. The first round is thrown away.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import psutil

Turn = Callable[[range], Awaitable[None] | None]
"""Does the items of these numbers, at once or when awaited."""
ROUNDS = 7


def median_interval(values: list[float], resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap's 95 % interval of the median."""
    draws = np.random.default_rng(seed).choice(values, (resamples, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(low), float(high)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads so far; without its children's."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def order_of(names: Sequence[str], number: int) -> list[str]:
    """Who comes when in a round: each comes first in turn."""
    return [names[(number + place) % len(names)] for place in range(len(names))]


@dataclass
class Timer:
    """What each way took, a figure a turn. clocks: name -> the time so far."""

    clocks: Mapping[str, Callable[[], float]] = field(
        default_factory=lambda: {"wall": time.perf_counter, "cpu": time.process_time}
    )
    spent: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """(clock, way) -> seconds."""

    @contextlib.contextmanager
    def timed(self, way: str) -> Iterator[None]:
        """A turn."""
        before = {clock: read() for clock, read in self.clocks.items()}
        yield
        for clock, read in self.clocks.items():
            self.spent.setdefault((clock, way), []).append(read() - before[clock])

    def total(self, way: str, clock: str = "wall") -> float:
        """Seconds of all turns."""
        return sum(self.spent[clock, way])

    def ratios(self, way: str, to: str, clock: str = "wall") -> list[float]:
        """Of each turn: what `way` took for what `to` took."""
        return [a / b for a, b in zip(self.spent[clock, way], self.spent[clock, to], strict=True)]


@dataclass
class Comparison:
    """One service beside one bare library. `seconds`: of each measured round."""

    service: str
    library: str
    unit: str
    items_per_round: int
    details: dict[str, Any] = field(default_factory=dict)
    service_seconds: list[float] = field(default_factory=list)
    library_seconds: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """The service's throughput as a share of the library's, a round each."""
        return [bare / ours for ours, bare in zip(self.service_seconds, self.library_seconds, strict=True)]

    def as_json(self) -> dict[str, Any]:
        """All of it, with rates (items/s, medians) and the ratio with its 95 % interval."""
        low, high = median_interval(self.ratios)
        return {
            **asdict(self),
            "service_rate": self.items_per_round / statistics.median(self.service_seconds),
            "library_rate": self.items_per_round / statistics.median(self.library_seconds),
            "ratio": statistics.median(self.ratios),
            "ratio_interval": [low, high],
        }


async def by_turns(comparison: Comparison, ours: Turn, bare: Turn, rounds: int = ROUNDS) -> Comparison:
    """Runs the rounds; fills the comparison's seconds. Each round has items of its own."""
    size = comparison.items_per_round
    for number in range(rounds + 1):
        items = range(number * size, (number + 1) * size)
        order = [(ours, comparison.service_seconds), (bare, comparison.library_seconds)]
        for turn, seconds in order if number % 2 else reversed(order):
            began = time.perf_counter()
            if (doing := turn(items)) is not None:
                await doing
            if number:
                seconds.append(time.perf_counter() - began)
    return comparison
