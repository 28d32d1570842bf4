"""The pipeline as stations, from the reports in docs/benchmarks, and what a rate of queries needs of each.

A stage's replica is a server: it works on one batch at a time. Its seconds a query are the inverse of its best
throughput, their variation is that of the latencies with one request outstanding (log-normal by p50 and p99). NATS
and PostgreSQL are stations too; the network counts bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.capacity.queueing import Wait, sojourn_quantile, waiting
from qrelay import wire
from qrelay.bench.data import Generated
from qrelay.bench.report import Report
from qrelay.runtime.topology import Queue

MOST = 100_000
_Z99 = 2.326
_HOPS = {Queue.QUERIES: "query", Queue.RETRIEVED: "retrieved", Queue.RERANKED: "reranked", Queue.JUDGED: "judged"}


@dataclass(frozen=True, slots=True)
class Station:
    """seconds: of a query in one server; cs2: their variation; price: of a server's hour; wall: what more servers of
    it take, where it is not simply a replica."""

    name: str
    seconds: float
    cs2: float = 1.0
    price: float = 0.0
    moves: str = "replicas"
    spare: int = 1
    """Servers that may be lost while the rest still keeps up."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a station needs at a rate. alone: queries a second of one server."""

    station: Station
    servers: int
    load: float
    wait: Wait
    alone: float

    @property
    def cost_hour(self) -> float:
        """Of all its servers."""
        return self.servers * self.station.price


def need(station: Station, rate: float, wait_s: float) -> Need:
    """The fewest servers with which 99% of the queries wait at most `wait_s` at this station, and which keep up where
    `spare` of them are lost."""
    least = math.floor(rate * station.seconds) + 1
    for servers in range(max(least, 1), MOST):
        wait = waiting(rate, station.seconds, servers, station.cs2)
        if wait.quantile(0.99) <= wait_s and (servers - station.spare) > rate * station.seconds:
            return Need(station, servers, rate * station.seconds / servers, wait, 1 / station.seconds)
    raise ValueError(f"{station.name}: more than {MOST} servers for {rate:g} queries/s")


def passage(needs: list[Need], q: float) -> float:
    """Seconds of a query from end to end, the q-quantile, without what batching adds."""
    services = [(each.station.seconds, each.station.cs2) for each in needs]
    return sojourn_quantile(services, [each.wait for each in needs], q)


def of_report(report: Report, weight: float = 1.0) -> Station:
    """A stage from its own report. weight: items of the report that a query costs."""
    best, first = report.best(), min((level for level in report.levels if level.concurrency), key=_outstanding)
    if best is None or first.latency_s is None:
        raise ValueError(f"the report of {report.service} has no closed loop: run `qrelay bench {report.service}`")
    spread = math.log(max(1.0, first.latency_s.p99 / first.latency_s.p50)) / _Z99
    return Station(report.service, weight / best.throughput.value, math.expm1(spread**2))


def _outstanding(level: object) -> int:
    return getattr(level, "concurrency", None) or 0


def nats_of(pipeline: Report, cores: float, copies: int) -> Station:
    """nats-server: the processor time that a query's four messages took it, on a server of so many cores, for each
    copy of them."""
    best = pipeline.best()
    used = best.usage["nats-server"].cpu_seconds_per_1000 if best else None
    if not used:
        raise ValueError("the pipeline's report does not know what NATS used: run `qrelay bench pipeline`")
    return Station("NATS", copies * used / 1000 / cores, 1.0, moves="servers, queues apart")


def bytes_a_query() -> Mapping[Queue, int]:
    """Of a query's message in each queue, as a made one has it: 100 candidates of some 1 KB, 40 kept, 25 judged."""
    return {queue: len(wire.encode(wire.from_proto(Generated(kind).item(7)))[0]) for queue, kind in _HOPS.items()}


def network(rate: float, replicas: int) -> tuple[float, float]:
    """Gbit/s through the NATS servers: from and to services, and between the servers of a stream's copies."""
    bits = 8 * rate * sum(bytes_a_query().values()) / 1e9
    return 2 * bits, (replicas - 1) * bits
