"""Levels and reports with known figures."""

from __future__ import annotations

import random
from typing import Any

from qrelay.bench.latencies import Quantiles
from qrelay.bench.report import Estimate, LateStarts, Level, Report, Window
from qrelay.bench.usage import Histogram, Spread, Usage

ENVIRONMENT = {
    "cpu": "Test CPU",
    "cores_usable": 2,
    "qrelay": "0.1.0",
    "started": "a",
    "load_average_start": [0.1, 0, 0],
}


def level(concurrency: int | None = 4, rate: float | None = None, throughput: float = 100.0, **changes: Any) -> Level:
    """Three windows of 1 s with a little noise around `throughput`; `seed` and `noise` shape it."""
    gaps, noise = random.Random(changes.pop("seed", 0)), changes.pop("noise", 0.01)
    windows = tuple(_window(throughput * gaps.gauss(1, noise), gaps) for _ in range(changes.pop("windows", 3)))
    items = sum(window.items for window in windows)
    value = items / sum(window.seconds for window in windows)
    figures: dict[str, Any] = {
        "kind": "closed" if rate is None else "open",
        "concurrency": None if rate is not None else concurrency,
        "rate": rate,
        "throughput": Estimate(value, 0.9 * value, 1.1 * value),
        "offered": rate,
        "latency_s": windows[0].latency_s,
        "requests": sum(window.requests for window in windows),
        "items": items,
        "failed": {"malformed": 2},
        "refused": 1,
        "windows": windows,
        "stable": True,
        "usage": {"judge": used()},
        "late_starts": LateStarts(100, 0, 0.001, 0.002) if rate is not None else None,
    }
    return Level(**(figures | changes))


def used() -> Usage:
    sizes = Histogram.cumulative({1: 3, 8: 10, float("inf"): 10}, 31)
    return Usage(1.5, 5.25, 210.5, 3.1, sizes, Spread.of(sizes), Spread.of(sizes), 0.004)


def report(*levels: Level, **changes: Any) -> Report:
    figures: dict[str, Any] = {
        "service": "judge",
        "created": "2026-01-01T00:00:00+00:00",
        "command": "qrelay bench judge --quick",
        "settings": {"policy": {"window_s": 5.0}, "seed": 0},
        "environment": ENVIRONMENT,
        "levels": levels,
        "extra": {
            "efficiency": {"pipeline": 49.0, "ratio": 0.98},
            "scale": [{"judges": 1}, {"judges": 4, "ratio": 3.9}],
        },
        "notes": ("quick: windows of 1 s",),
    }
    return Report(**(figures | changes))


def _window(throughput: float, gaps: random.Random) -> Window:
    seconds = 1000.0
    items = round(throughput * seconds)
    latency = 4 / throughput * gaps.gauss(1, 0.01)
    found = Quantiles.of([latency * share / 50 for share in range(1, 101)])
    return Window(seconds, items, items, latency_s=found, cpu_seconds={"judge": items * 0.005 * gaps.gauss(1, 0.01)})
