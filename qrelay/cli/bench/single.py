"""`qrelay bench retriever|reranker|judge|sink`: one service alone, over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from qrelay.bench import environment
from qrelay.bench.data import COLLECTION, Generated, Source
from qrelay.bench.probe import Process, Scraper
from qrelay.bench.report import Level, Report
from qrelay.bench.running import Fleet, Plan, simulated
from qrelay.bench.targets.recorded import Recorded, read_queries, read_sets
from qrelay.bench.targets.services import ENDPOINTS, ServiceTarget
from qrelay.cli.bench import session
from qrelay.cli.bench.options import (
    Duration,
    LoadPlan,
    file_option,
    load_options,
    load_plan,
    output_options,
    request_options,
    start_options,
)
from qrelay.cli.group import example

_LEDGER: Final = "sink"
_HELP: Final = {
    "retriever": "Queries in, candidate sets out.",
    "reranker": "Sets of 100 candidates in, 40 ranked ones out, 25 of them marked for the judge.",
    "judge": "Sets of 25 marked passages in, judgments out; without a cache, unless QRELAY_JUDGE__CACHE names one.",
    "sink": "Judged sets in, committed to the ledger: give --data-dir or a configuration to choose which.",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the service is: `address`, or started here with `plan`."""

    address: str
    metrics: str
    plan: Plan
    service_time: float | None = None


@contextlib.contextmanager
def running(service: str, place: Place, console: Console) -> Iterator[tuple[str, Mapping[str, Process]]]:
    """Its gRPC address and what the probe reads; started and stopped here where there is no address."""
    if place.address:
        yield place.address, {service: Process(metrics=place.metrics, transport=place.plan.transport)}
        return
    with Fleet(place.plan) as fleet:
        console.print(f"starting the {service} here", highlight=False)
        endpoint = fleet.start([service])[service]
        yield endpoint.grpc, fleet.processes()
        fleet.check()


@dataclass
class Run:
    """One service's benchmark."""

    service: str
    place: Place
    source: Source
    items: int
    channels: int
    deadline_s: float
    plan: LoadPlan
    console: Console

    def report(self) -> Report:
        """Measure. Blocks until all levels are done.

        Raises:
            SetupError: the service could not be started, or ended.
            BackendUnavailable: nothing answers at the address.
            InputError: the first request failed.
        """
        machine = environment.begin()
        with running(self.service, self.place, self.console) as (address, processes):
            with Scraper(lambda: processes) as probe:
                target = ServiceTarget(
                    self.service, address, self.source, self.items, self.channels, self.deadline_s,
                    transport=self.place.plan.transport,
                )  # fmt: skip
                info, found, sent = asyncio.run(self._measure(target, probe))
        return Report(
            service=self.service,
            created=session.now(),
            command=session.typed(),
            settings=self._settings(info),
            environment=environment.end(machine),
            levels=tuple(found),
            extra=_judgments(target.tally) | ({"errors": target.errors} if target.errors else {}),
            notes=(
                *session.general_notes(self.plan, found, self.source, sent * self.items),
                *self._notes(target),
            ),
        )

    async def _measure(self, target: ServiceTarget, probe: Scraper) -> tuple[dict[str, Any], list[Level], int]:
        """What the service says of itself, the levels, and how many requests were sent."""
        numbers = itertools.count()
        async with target:
            info = await target.info()
            await session.first_request(target, numbers, target.errors, self._hint())
            found = await session.levels(target, self.plan, probe, numbers, session.progress(self.console))
        return info, found, next(numbers)

    def _hint(self) -> str:
        return "" if self.place.address else session.started_hint(fake=self.place.service_time is not None)

    def _settings(self, info: dict[str, Any]) -> dict[str, Any]:
        changed = {} if self.place.address else session.changed_settings(self.service, self.place.plan)
        return session.settings_of(
            self.plan,
            items_per_request=self.items,
            channels=self.channels,
            timeout_s=self.deadline_s,
            started_here=not self.place.address,
            simulated_service_time_s=self.place.service_time,
            data=self.source.describe(),
            models=info["models"],
            version=info["version"],
            service=changed,
        )

    def _notes(self, target: ServiceTarget) -> Iterator[str]:
        if target.tally["cached"]:
            share = target.tally["cached"] / target.tally["judgments"]
            yield (
                f"{share:.1%} of the judgments came from the cache, or from the same pair asked at the same time: "
                "these figures are not the model's alone."
            )
        yield (
            f"Latencies contain making the request here: {1000 * target.building[0] / target.building[1]:.2g} ms on "
            "average."
        )
        if self.place.address and not self.place.metrics:
            yield "Batches, CPU and memory of the service are unknown: give --metrics with its address."
        if self.place.service_time is not None:
            yield f"The model is a fake that takes {self.place.service_time * 1000:g} ms a query: simulated time."


def _judgments(tally: Counter[str]) -> dict[str, Any]:
    count = tally["judgments"]
    if not count:
        return {}
    return {"judgments": {"count": count, "cached_share": tally["cached"] / count,
                          "missing_share": tally["missing"] / count}}  # fmt: skip


def source_of(service: str, seed: int, collection: str, queries: Path | None, sets: Path | None) -> Source:
    """The items to send. The sink's get ids that no earlier run gave.

    Raises:
        InputError: a file that holds no such items.
    """
    kind, tag = ENDPOINTS[service].kind, f"{datetime.now(UTC):%m%d%H%M%S}" if service == _LEDGER else None
    if queries:
        return Recorded(kind, read_queries(queries, collection))
    if sets:
        return Recorded(kind, read_sets(sets, kind), tag=tag)
    return Generated(kind, seed, collection=collection, tag=tag or "")


def _command(service: str) -> click.Command:
    def run(address: str, metrics: str, service_time: float | None, collection: str, items_per_request: int,
            channels: int, timeout: float, config: Path | None, data_dir: Path | None, out: Path | None,
            as_json: bool, **given: Any) -> None:  # fmt: skip
        session.need_extra()
        queries, sets = given.pop("queries", None), given.pop("sets", None)
        source = source_of(service, given["seed"], collection, queries, sets)
        plan, console = load_plan(given), Console(stderr=True)
        times = {} if service_time is None else {service: service_time}
        place = Place(address, metrics, Plan(config, data_dir, simulated(times)), service_time)
        _check_place(place)
        job = Run(service, place, source, items_per_request, channels, timeout, plan, console)
        session.finish(job.report(), out, as_json, console)

    shown = example(f"qrelay bench {service} --service-time 20ms --quick" if service != _LEDGER else
                    f"qrelay bench {service} --quick --out bench-{service}")  # fmt: skip
    about = f"Measure the {service}. {_HELP[service]}"
    return click.command(service, help=about, epilog=shown)(_options(service)(run))


def _check_place(place: Place) -> None:
    if place.address and (place.service_time is not None or place.plan.data_dir):
        raise click.UsageError(
            "--service-time and --data-dir are for a service that is started here: leave them or --address out"
        )
    if place.metrics and not place.address:
        raise click.UsageError("--metrics goes with --address; a service that is started here is read anyway")


def _options(service: str) -> Any:
    decorators = [
        click.option("--address", default="", metavar="HOST:PORT",
                     help="gRPC address of a running one.  [default: one is started here]"),
        click.option("--metrics", default="", metavar="URL", help="Its /metrics, with --address."),
        click.option("--service-time", type=Duration(), help="Start it as a fake that takes this long a query.")
        if service != _LEDGER else click.option("--service-time", hidden=True, type=Duration()),
        click.option("--collection", default=COLLECTION, show_default=True, help="Collection of the items."),
        file_option("--queries", "Real queries, as `qrelay feed` reads them.  [default: generated ones]")
        if service == "retriever" else
        file_option("--sets", "Real items from `qrelay bench record`.  [default: generated ones]"),
        request_options(), load_options(), start_options(), output_options(),
    ]  # fmt: skip

    def apply(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


COMMANDS: Final = {service: _command(service) for service in ENDPOINTS}
