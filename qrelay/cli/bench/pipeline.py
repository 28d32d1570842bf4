"""`qrelay bench pipeline`: queries in, labels in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from qrelay.bench import environment
from qrelay.bench import pipeline as measuring
from qrelay.bench.data import COLLECTION, Generated, Source
from qrelay.bench.disturb import Disturbance, Limits, disturb
from qrelay.bench.pipeline import Installation, LagLog, Shape
from qrelay.bench.probe import Process, Scraper
from qrelay.bench.report import Level, Report
from qrelay.bench.running import Plan, simulated
from qrelay.bench.sweeps import best_of
from qrelay.bench.targets.pipeline import POLL_S, PipelineTarget
from qrelay.bench.targets.recorded import Recorded, read_queries
from qrelay.cli.bench import session
from qrelay.cli.bench.options import (
    Disturbances,
    Duration,
    LoadPlan,
    Numbers,
    ServiceTimes,
    file_option,
    load_options,
    load_plan,
    output_options,
    start_options,
)
from qrelay.cli.group import example
from qrelay.client.feeding import nats_settings
from qrelay.config import ServiceSettings
from qrelay.settings.sources import default_data_dir

_DOUBLES: Final = {"retriever": 0.0, "reranker": 0.0, "judge": 0.0}
_IN_FLIGHT: Final = 200
"""Queries in flight a judge where nothing else is said: more than its worker holds at once."""
_SETTLE_MARGIN_S: Final = 60.0


@dataclass
class Run:
    """One benchmark of the pipeline. running: an installation that is there; None: one is started."""

    shape: Shape
    plan: Plan
    load: LoadPlan
    source: Source
    console: Console
    running: Installation | None = None
    service_times: dict[str, float] = field(default_factory=dict)
    efficiency: bool = False
    scale: tuple[int, ...] = ()
    disturbances: tuple[Disturbance, ...] = ()
    idle_s: float = 0.0
    grace_s: float = 60.0
    extra: dict[str, Any] = field(default_factory=dict)

    def report(self) -> Report:
        """Measure all that was asked for. Blocks.

        Raises:
            SetupError: a process could not be started, or ended by itself.
            BackendUnavailable: NATS or the sink does not answer.
            InputError: the first query failed.
        """
        machine = environment.begin()
        with self._installed() as installation:
            found = asyncio.run(self._measure(installation))
        self._alone(found)
        if self.scale:
            each = max(self.load.concurrency, default=_IN_FLIGHT)
            self.extra["judges"] = measuring.scale(self.plan, self.shape, self.scale, each, self.load.policy,
                                                   self.source, session.progress(self.console))  # fmt: skip
        return Report(
            service="pipeline",
            created=session.now(),
            command=session.typed(),
            settings=self._settings(),
            environment=environment.end(machine),
            levels=tuple(found),
            extra=self.extra,
            notes=(
                *session.general_notes(self.load, found, self.source, self.extra["queries"]["sent"]),
                *self._notes(),
            ),
        )

    @contextlib.contextmanager
    def _installed(self) -> Iterator[Installation]:
        if self.running:
            yield self.running
            return
        self.console.print(f"starting {len(self.shape.services())} services and NATS here", highlight=False)
        with measuring.started(self.shape, self.plan) as installation:
            yield installation

    async def _measure(self, installation: Installation) -> list[Level]:
        """The levels; then, on the same installation, disturbances and idling, and what became of every query."""
        numbers, lag = itertools.count(), LagLog()
        async with PipelineTarget(
            installation.nats_url,
            installation.sink,
            self.source,
            transport=installation.transport,
            nkey_seed=installation.nkey_seed,
        ) as target:
            async with lag.watching(target):
                await session.first_request(target, numbers, target.errors, self._hint())
                with Scraper(installation.processes) as probe:
                    found = await session.levels(target, self.load, probe, numbers, session.progress(self.console))
                if self.disturbances and installation.fleet:
                    plan, limits = self.disturbances, self._limits()
                    disturbed = await disturb(installation.fleet, target, numbers, plan, limits)
                    self.extra |= {"disturbances": disturbed.pop("events"), "disturbed": disturbed}
                left = await target.settle(self._judge().nats.ack_wait_s + _SETTLE_MARGIN_S)
            processes = installation.processes()
            self.extra["queries"] = measuring.accounting(
                target, left, await target.added(), measuring.duplicates(processes)
            ) | {"cached_share": measuring.cached_share(processes)}
            if self.idle_s:
                self.extra["idle"] = await measuring.idle(installation.processes, self.idle_s)
            self.extra |= {"lag": lag.series} | ({"errors": target.errors} if target.errors else {})
        return found

    def _hint(self) -> str:
        return "" if self.running else session.started_hint(fake=bool(self.service_times))

    def _alone(self, found: list[Level]) -> None:
        if not self.efficiency:
            return
        best = best_of([level for level in found if level.kind == "closed"])
        self.console.print("the judge alone, through its queue and through gRPC", highlight=False)
        policy, seed, judges = self.load.policy, self.load.seed, self.shape.judges
        in_flight = max(best.concurrency or 1, _IN_FLIGHT * judges)  # what the judge can do at most
        alone = measuring.judge_alone(self.plan, judges, in_flight, policy, seed)
        for level in alone.values():
            session.progress(self.console)(level)
        time = self.service_times.get("judge")
        ideal = self.shape.judges / time if time else None
        self.extra["efficiency"] = measuring.efficiency(best, alone, ideal)
        self.extra["judge alone"] = [
            {"door": endpoint, "queries/s": level.throughput.value, "low": level.throughput.low,
             "high": level.throughput.high, "in flight": level.concurrency, "stable": level.stable}
            for endpoint, level in alone.items()
        ]  # fmt: skip

    def _limits(self) -> Limits:
        in_flight = max(self.load.concurrency, default=_IN_FLIGHT * self.shape.judges)
        return Limits(in_flight, self.load.policy.warm_up_s, self._judge().worker.drain_s, self.grace_s)

    def _judge(self) -> ServiceSettings:
        """Its settings where it is started here; else what is known of any service: the defaults."""
        if self.running:
            return ServiceSettings()
        return session.settings_in_force("judge", self.plan)

    def _settings(self) -> dict[str, Any]:
        services = {} if self.running else {
            service: session.changed_settings(service, self.plan)
            for service in ("retriever", "reranker", "judge", "sink")
        }  # fmt: skip
        return session.settings_of(
            self.load,
            shape=asdict(self.shape) if not self.running else "running already",
            simulated_service_time_s=self.service_times or None,
            poll_s=POLL_S,
            data=self.source.describe(),
            services=services,
        )

    def _notes(self) -> Iterator[str]:
        yield f"Commits are seen by asking the sink every {POLL_S * 1000:.0f} ms: latencies are up to that too long."
        if self.service_times:
            times = ", ".join(f"{service} {time * 1000:g} ms" for service, time in self.service_times.items())
            yield f"Models are fakes with simulated times a query: {times}."
        queries = self.extra["queries"]
        if queries["cached_share"]:
            yield (
                f"{queries['cached_share']:.1%} of the judgments came from the cache, or from the same pair asked at "
                "the same time: these figures are not the model's alone."
            )
        if queries["lost"] or queries["dead"]:
            yield f"NOT AS REQUIRED: {queries['lost']} queries lost, {queries['dead']} dead letters."
        if queries["unconfirmed"]:
            yield (
                f"The broker never confirmed {queries['unconfirmed']} of the queries; "
                f"{queries['unconfirmed_ended']} of them were stored nevertheless."
            )
        if queries["of_others"]:
            yield f"The collection gained {queries['of_others']} queries besides: somebody else feeds it."


def _source(queries: Path | None, collection: str, seed: int) -> Source:
    """Ids that no earlier run gave: the ledger knows those."""
    tag = f"{datetime.now(UTC):%m%d%H%M%S}"
    if queries:
        return Recorded("query", read_queries(queries, collection), tag=tag)
    return Generated("query", seed, collection=collection, tag=tag)


def _running(nats_url: str, sink: str, metrics: tuple[str, ...], plan: Plan) -> Installation | None:
    if bool(nats_url) != bool(sink):
        raise click.UsageError("--nats and --sink go together: both of a running installation, or neither")
    if metrics and not nats_url:
        raise click.UsageError("--metrics goes with --nats and --sink; what is started here is read anyway")
    found = {}
    for each in metrics:
        name, equals, url = each.partition("=")
        if not equals:
            raise click.UsageError(f"--metrics {each!r}: write judge=http://HOST:PORT/metrics")
        found[name] = Process(metrics=url, transport=plan.transport)
    if not nats_url:
        return None
    seed = nats_settings(nats_url, default_data_dir(plan.config), plan.config).nkey_seed
    return Installation(nats_url, sink, lambda: found, transport=plan.transport, nkey_seed=seed)


@click.command(epilog=example("qrelay bench pipeline --service-time judge=20ms --judges 2 --out bench-pipeline"))
@click.option("--nats", "nats_url", default="", metavar="URL", help="NATS of a running installation, with --sink.")
@click.option("--sink", default="", metavar="HOST:PORT", help="gRPC address of its sink.")
@click.option(
    "--metrics", multiple=True, metavar="NAME=URL", help="Its /metrics, such as judge=http://… (repeatable)."
)
@click.option("--retrievers", type=click.IntRange(1), default=1, show_default=True, help="Processes started here.")
@click.option("--rerankers", type=click.IntRange(1), default=1, show_default=True, help="The same.")
@click.option("--judges", type=click.IntRange(1), default=1, show_default=True, help="The same.")
@click.option("--service-time", type=ServiceTimes(), metavar="TIMES",
              help="Start fakes that take this long a query: 20ms (judge) or judge=20ms,reranker=2ms.")  # fmt: skip
@file_option("--queries", "Real queries, as `qrelay feed` reads them.  [default: generated ones]")
@click.option("--collection", default=COLLECTION, show_default=True, help="Collection of the queries.")
@click.option("--efficiency", is_flag=True, help="Measure the judge alone too; report the pipeline's share of it.")
@click.option("--scale", type=Numbers("1,2,4,8", whole=True), help="Throughput with each of these numbers of judges.")
@click.option("--disturb", type=Disturbances(), metavar="PLAN", help="Faults: kill:judge@10s,drain:judge@25s.")
@click.option("--grace", type=Duration(), default="60s", show_default=True,
              help="terminationGracePeriodSeconds: from SIGTERM to SIGKILL.")  # fmt: skip
@click.option("--idle", type=Duration(), default="0s", help="At the end, measure this long without load.")
@load_options()
@start_options()
@output_options()
def pipeline(nats_url: str, sink: str, metrics: tuple[str, ...], retrievers: int, rerankers: int, judges: int,
             service_time: dict[str, float] | None, queries: Path | None, collection: str, efficiency: bool,
             scale: tuple[float, ...] | None, disturb: tuple[Disturbance, ...] | None, grace: float, idle: float,
             config: Path | None, data_dir: Path | None, out: Path | None, as_json: bool, **given: Any,
             ) -> None:  # fmt: skip
    """Measure the whole pipeline, from a published query to its labels in the ledger.

    Without --nats and --sink everything is started here: NATS, a retriever, a reranker, judges and a sink, with the
    settings in force.
    """
    session.need_extra()
    times = {**_DOUBLES, **service_time} if service_time else {}
    plan = Plan(config, data_dir, simulated(times), queue=True)
    running = _running(nats_url, sink, metrics, plan)
    if running and (service_time or efficiency or scale or disturb or data_dir):
        raise click.UsageError(
            "--service-time, --efficiency, --scale, --disturb and --data-dir are for what is started here: leave "
            "--nats and --sink out"
        )
    load = load_plan(given)
    run = Run(
        Shape(retrievers, rerankers, judges),
        plan,
        load,
        _source(queries, collection, load.seed),
        Console(stderr=True),
        running,
        times,
        efficiency,
        tuple(int(count) for count in scale or ()),
        disturb or (),
        idle,
        grace,
    )
    session.finish(run.report(), out, as_json, run.console)
