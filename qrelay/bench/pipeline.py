"""The pipeline's benchmark: an installation of replicas, started here or running, and what is measured on it.

Everything is one query, fed as `qrelay feed` does and done when the ledger has it (targets/pipeline.py).

    efficiency   the pipeline's throughput over the judge's alone, through its queue and over gRPC
    scale        throughput with 1, 2, 4, … judges over that with the first number
    idle         CPU of each process while nothing streams, after the load
    accounting   what became of every query: by the broker's confirmations and the ledger's counts
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from qrelay.bench.data import Generated
from qrelay.bench.estimates import ratio_interval
from qrelay.bench.load import closed_loop
from qrelay.bench.probe import Process, Scraper, scrape
from qrelay.bench.report import Level
from qrelay.bench.running import Fleet, Plan
from qrelay.bench.targets.pipeline import JudgeQueueTarget, Ledger, Left, PipelineTarget
from qrelay.bench.targets.services import ServiceTarget
from qrelay.bench.targets.tasks import end
from qrelay.bench.windows import WindowPolicy
from qrelay.config import PLAIN, Transport
from qrelay.errors import QrelayError

LAG_EVERY_S: Final = 1.0
_SETTLED_S: Final = 2.0
_GRADES: Final = ("graded", "cached")
_GRPC_MOST: Final = 256
"""Simultaneous gRPC requests to a judge, below its grpc.max_pending_items."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How many processes of each service; one sink, the ledger's writer."""

    retrievers: int = 1
    rerankers: int = 1
    judges: int = 1

    def services(self) -> list[str]:
        """One entry a process, the end of the line first, so that the first query finds its whole way open."""
        counts = {"sink": 1, "judge": self.judges, "reranker": self.rerankers, "retriever": self.retrievers}
        return [service for service, count in counts.items() for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the pipeline is. `fleet`: None where it was running already."""

    nats_url: str
    sink: str
    processes: Callable[[], Mapping[str, Process]]
    fleet: Fleet | None = None
    transport: Transport = PLAIN
    nkey_seed: Path | None = None
    """Where its NATS has users."""


@contextlib.contextmanager
def started(shape: Shape, plan: Plan) -> Iterator[Installation]:
    """The shape's processes and NATS, ready; stopped at the end.

    Raises:
        SetupError: a process could not start, or ended by itself.
    """
    with Fleet(plan) as fleet:
        yield _start(fleet, shape)
        fleet.check()


def _start(fleet: Fleet, shape: Shape) -> Installation:
    found = fleet.start(shape.services())
    return Installation(fleet.nats_url, found["sink"].grpc, fleet.processes, fleet, fleet.transport)


@dataclass
class LagLog:
    """Messages not yet done in each queue, over time; `series` is plain JSON: columns of equal length."""

    series: dict[str, list[float]] = field(default_factory=lambda: {"seconds": []})

    @contextlib.asynccontextmanager
    async def watching(self, target: PipelineTarget) -> AsyncIterator[None]:
        """Sample every LAG_EVERY_S seconds inside the block."""
        task = asyncio.create_task(self._watch(target))
        try:
            yield
        finally:
            await end([task])

    async def _watch(self, target: PipelineTarget) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            with contextlib.suppress(QrelayError):
                stats = await target.broker.stats()
                self.series["seconds"].append(round(clock() - began, 1))
                for each in stats:
                    self.series.setdefault(each.queue.value, []).append(each.lag)
            await asyncio.sleep(LAG_EVERY_S)


def accounting(target: PipelineTarget, left: Left, added: Ledger, duplicates: float | None) -> dict[str, Any]:
    """What became of every query; see targets/pipeline.py for `left` and `added`.

    sent                   publications that the broker confirmed
    unconfirmed            publications that it never confirmed; unconfirmed_ended: stored all the same
    committed, dead        ends of queries of both kinds
    lost                   confirmed, and nowhere when the waiting was over
    of_others              rows that the collection gained besides: somebody else feeds it
    labelled_twice         judgments beyond one a pair: a set was committed twice, or several judges looked
    duplicates_recognised  sets that came to the sink again, which is harmless and expected after a kill
    """
    committed = len(target.commits)
    return {
        "sent": target.sent,
        "unconfirmed": len(left.unconfirmed),
        "unconfirmed_ended": len(left.ended),
        "committed": committed,
        "dead": target.dead,
        "lost": len(left.lost),
        "lost_ids": list(left.lost[:20]),
        "of_others": added.queries - committed,
        "labelled_twice": added.judgments - added.pairs,
        "judgments": added.judgments,
        "judgments_a_pair": added.judgments / added.pairs if added.pairs else None,
        "duplicates_recognised": duplicates,
    }


def duplicates(processes: Mapping[str, Process]) -> float | None:
    """Judged sets that reached the sink again, since it started; None where its metrics are not known."""
    sink = processes.get("sink")
    if sink is None or not sink.metrics:
        return None
    with contextlib.suppress(QrelayError):
        return scrape(sink.metrics, sink.transport).values.get("qrelay_commits_total{duplicate}", 0.0)
    return None


def cached_share(processes: Mapping[str, Process]) -> float | None:
    """Which share of the grades that the running judges gave since they started came from the cache; None where their
    metrics are not known."""
    totals: Counter[str] = Counter()
    for name, process in processes.items():
        if name.startswith("judge") and process.metrics:
            with contextlib.suppress(QrelayError):
                values = scrape(process.metrics, process.transport).values
                totals.update({kind: values.get(f"qrelay_judgments_total{{{kind}}}", 0) for kind in _GRADES})
    return totals["cached"] / totals.total() if totals.total() else None


async def idle(processes: Callable[[], Mapping[str, Process]], seconds: float) -> list[dict[str, Any]]:
    """CPU of each process over so many seconds in which nothing streams, in percent of one core."""
    await asyncio.sleep(_SETTLED_S)
    scraper = Scraper(processes, client=False)
    clock = asyncio.get_running_loop().time
    before, began = await asyncio.to_thread(scraper.read), clock()
    await asyncio.sleep(seconds)
    after, elapsed = await asyncio.to_thread(scraper.read), clock() - began
    rows = []
    for name, sample in after.items():
        earlier = before.get(name)
        if earlier and earlier.cpu_seconds is not None and sample.cpu_seconds is not None:
            share = (sample.cpu_seconds - earlier.cpu_seconds) / elapsed
            rows.append({"process": name, "percent of a core": round(100 * share, 3), "RSS MiB": sample.rss_mib})
    return rows


async def pipeline_level(
    installation: Installation, source: Any, concurrency: int, policy: WindowPolicy, numbers: Iterator[int]
) -> Level:
    """One closed loop over the whole pipeline."""
    async with PipelineTarget(
        installation.nats_url, installation.sink, source, transport=installation.transport
    ) as target:
        with Scraper(installation.processes) as probe:
            level = await closed_loop(target, concurrency, policy, probe, numbers)
        await target.settle(policy.longest_s)
    return level


def judge_alone(plan: Plan, judges: int, concurrency: int, policy: WindowPolicy, seed: int) -> dict[str, Level]:
    """The judges without the other services, on made sets: levels through the queue and through gRPC."""
    with Fleet(plan) as fleet:
        found = fleet.start(["judge"] * judges)
        addresses = ",".join(endpoint.grpc for endpoint in found.values())
        with Scraper(fleet.processes) as probe:
            queue = JudgeQueueTarget(fleet.nats_url, Generated("reranked", seed, tag="q"))
            grpc = ServiceTarget(
                "judge", f"ipv4:{addresses}", Generated("reranked", seed, tag="g"), transport=fleet.transport
            )
            levels = {
                "queue": asyncio.run(_level(queue, concurrency, policy, probe)),
                "grpc": asyncio.run(_level(grpc, min(concurrency, _GRPC_MOST * judges), policy, probe)),
            }
        fleet.check()
    return levels


async def _level(target: Any, concurrency: int, policy: WindowPolicy, probe: Scraper) -> Level:
    async with target:
        return await closed_loop(target, concurrency, policy, probe, itertools.count())


def efficiency(pipeline: Level, alone: Mapping[str, Level], ideal: float | None) -> list[dict[str, Any]]:
    """The pipeline's throughput over each of the judge's, with 95% intervals over windows. ideal: what the simulated
    service time allows, queries/s."""
    rows = [_ratio(f"judge alone, {endpoint}", pipeline, level) for endpoint, level in alone.items()]
    if ideal:
        value = pipeline.throughput.value / ideal
        rows.append({"against": "simulated time alone", "queries/s": ideal, "pipeline queries/s":
                     pipeline.throughput.value, "ratio": value, "low": None, "high": None})  # fmt: skip
    return rows


def _ratio(against: str, of: Level, to: Level) -> dict[str, Any]:
    value = of.throughput.value / to.throughput.value if to.throughput.value else None
    found = ratio_interval(_rates(of), _rates(to), value) if value else None
    return {
        "against": against,
        "queries/s": to.throughput.value,
        "pipeline queries/s": of.throughput.value,
        "ratio": value,
        "low": found.low if found else None,
        "high": found.high if found else None,
    }


def scale(
    plan: Plan, shape: Shape, counts: Sequence[int], each: int, policy: WindowPolicy, source: Any, say: Any
) -> list[dict[str, Any]]:
    """Throughput with so many judges, rising, in one installation that grows; `each`: queries in flight a judge.
    Ratios are to the first."""
    ordered, numbers = sorted(set(counts)), itertools.count()
    levels: list[Level] = []
    with Fleet(plan) as fleet:
        installation = _start(fleet, replace(shape, judges=ordered[0]))
        for count in ordered:
            fleet.start(["judge"] * (count - len(fleet.names("judge"))))
            levels.append(asyncio.run(pipeline_level(installation, source, each * count, policy, numbers)))
            say(levels[-1])
        fleet.check()
    rows = []
    for count, level in zip(ordered, levels, strict=True):
        ratio = _ratio(f"{ordered[0]}", level, levels[0])
        rows.append({"judges": count, "queries in flight": level.concurrency, "queries/s": level.throughput.value,
                     "low/s": level.throughput.low, "high/s": level.throughput.high, "stable": level.stable,
                     f"over {ordered[0]}": ratio["ratio"], "low": ratio["low"], "high": ratio["high"]})  # fmt: skip
    return rows


def _rates(level: Level) -> list[float]:
    return [window.throughput for window in level.windows]
