"""The model beside the pipeline: `qrelay bench pipeline` with services that sleep, so that two cores suffice.

A judge takes TOTAL_S times its number of replicas a query, so each number of them has the same capacity and the
machine the same work. Throughput: `--scale` in a closed loop, beside mean value analysis. Latency: an open loop at
shares of the capacity; the time of a lone query is measured, the waiting is the model's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.capacity.queueing import Demand, closed_throughput, waiting
from qrelay.bench.report import Level, Report, read

SCALE_S, IN_FLIGHT = 0.1, 20
"""A query in a judge of the closed loops, and queries in flight a judge."""
SHARES = (0.1, 0.5, 0.7, 0.85)
"""Of capacity; at the first one a query is nearly alone."""
TOTAL_S = 0.05
SMALL = {"QRELAY_JUDGE__WORKER__MAX_ITEMS": "1", "QRELAY_JUDGE__WORKER__BATCHES_IN_FLIGHT": "1"}
"""A judge that takes one query at a time holds none that another could begin."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside the model's."""

    replicas: int
    load: str
    unit: str
    measured: float
    model: float


def bench(out: Path, *arguments: str) -> Report:
    """The report of `qrelay bench pipeline`, from an earlier run where it is there."""
    if not (out / "report.json").exists():
        command = [sys.executable, "-m", "qrelay.cli.main", "bench", "pipeline", *arguments, "--out", str(out)]
        subprocess.run(command, env={**os.environ, **SMALL}, check=True, stdout=sys.stderr)
    return read(out)


def rows(out: Path, counts: Sequence[int], quick: Sequence[str]) -> Iterator[Row]:
    """All of both kinds. quick: options of each run."""
    scaled = bench(out / "scale", "--service-time", f"judge={SCALE_S}s", "--scale", ",".join(map(str, counts)),
                   "--concurrency", str(IN_FLIGHT), "--rates", "none", *quick)  # fmt: skip
    yield from throughputs(scaled)
    for count in counts:
        rates = ",".join(f"{share / TOTAL_S:g}" for share in SHARES)
        yield from latencies(count, bench(out / f"open-{count}", "--service-time", f"judge={TOTAL_S * count}s",
                                          "--judges", str(count), "--concurrency", "1", "--rates", rates,
                                          *quick))  # fmt: skip


def throughputs(report: Report) -> Iterator[Row]:
    """Closed loops: the judges are the one station, all else of a lone query is delay."""
    for row in report.extra["judges"]:
        count, in_flight = int(row["judges"]), int(row["queries in flight"])
        model = closed_throughput([Demand(SCALE_S, count)], in_flight)
        yield Row(count, f"closed, {in_flight} in flight", "queries/s", row["queries/s"], model)


def latencies(count: int, report: Report) -> Iterator[Row]:
    """Open loops: mean latency. The first level says what a query takes beside waiting."""
    opened = [level for level in report.levels if level.kind == "open" and level.latency_s]
    alone = _mean(opened[0]) - _wait(opened[0], count)
    for level in opened[1:]:
        share = _arrived(level) * TOTAL_S
        yield Row(count, f"open, {share:.0%} of capacity", "s", _mean(level), alone + _wait(level, count))


def _wait(level: Level, count: int) -> float:
    """By the model, at the rate that really came."""
    return waiting(_arrived(level), TOTAL_S * count, count, 0.0).mean


def _arrived(level: Level) -> float:
    """Queries a second, answered or not."""
    return sum(window.arrived or 0 for window in level.windows) / sum(window.seconds for window in level.windows)


def _mean(level: Level) -> float:
    return level.latency_s.mean if level.latency_s else 0.0


def as_json(found: Sequence[Row]) -> list[dict[str, Any]]:
    """For the report."""
    return [{**asdict(row), "ratio": row.measured / row.model} for row in found]
