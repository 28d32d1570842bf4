"""What flows, what waits, what fails and what it costs: looks at a running installation.

For `qrelay top` and the console:

    overview = Overview(data_dir, nats, name="top")
    state = await overview.state()               # plain data; rates are differences between two looks

Two sources: JetStream (lag of each queue) and every service's /metrics (rates, batch sizes, cache hits, missing
judgments, tokens, budget).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from qrelay.config import PLAIN, NatsSettings, Transport
from qrelay.errors import BackendUnavailable, QrelayError
from qrelay.rundir import endpoints
from qrelay.runtime.client import get_info
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.lookout import metrics_of
from qrelay.runtime.servicer import ON_HOLD
from qrelay.runtime.topology import Queue, QueueStats
from qrelay.settings.publish import DETAIL
from qrelay.settings.secrets import masked
from qrelay.settings.sections import CONSOLE

SERVICES: Final[tuple[str, ...]] = ("retriever", "reranker", "judge", "sink")
PERIODS: Final = ("run", "day")
"""Of a budget."""
_QUEUES: Final = {
    "retriever": Queue.QUERIES,
    "reranker": Queue.RETRIEVED,
    "judge": Queue.RERANKED,
    "sink": Queue.JUDGED,
}
_NAMED: Final = ("outcome", "period")
"""Labels that stay apart; samples are summed over the others."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at everything: samples by service, lag by queue, when (monotonic seconds)."""

    at: float
    metrics: Mapping[str, Mapping[str, float] | None] = field(default_factory=dict)
    """None: the service runs, and its figures could not be read."""
    queues: Mapping[Queue, QueueStats] = field(default_factory=dict)
    problem: str = ""
    holds: Mapping[str, str] = field(default_factory=dict)
    """What a service waits for, by its name."""
    published: Mapping[str, str] = field(default_factory=dict)
    """How publishing stands, by collection."""
    console: str = ""
    """The console's URL; "": it does not run."""


def scrape(address: str, transport: Transport = PLAIN) -> dict[str, float] | None:
    """One service's samples, summed over the labels that are not in the name: `name{x}`, of an outcome or a budget's
    period x, or `name`. None: it did not answer, or not in Prometheus' format."""
    totals: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(metrics_of(address, 2.0, transport)):
            for sample in family.samples:
                found = next((sample.labels[label] for label in _NAMED if label in sample.labels), "")
                name = f"{sample.name}{{{found}}}" if found else sample.name
                totals[name] = totals.get(name, 0.0) + sample.value
    except Exception:  # also what HTTP's and Prometheus' parsers raise at another service's answer
        return None
    return totals


async def look(data_dir: Path, broker: JetStreamBroker | QrelayError, transport: Transport = PLAIN) -> Look:
    """Ask every running service and the broker; an error in its place says why there is none."""
    found = endpoints(data_dir)
    names = [name for name in SERVICES if name in found]
    samples = await asyncio.gather(*(asyncio.to_thread(scrape, found[name].metrics, transport) for name in names))
    queues, problem = {}, ""
    try:
        if isinstance(broker, QrelayError):
            raise broker
        queues = {stats.queue: stats for stats in await broker.stats()}
    except QrelayError as error:
        problem = str(masked(str(error)))
    metrics = dict(zip(names, samples, strict=True))
    waiting = [name for name in names if (metrics[name] or {}).get("qrelay_on_hold_until_seconds")]
    said = await asyncio.gather(*(asyncio.to_thread(held_up, name, found[name].grpc, transport) for name in waiting))
    published = {}
    if "qrelay_published_change" in (metrics.get("sink") or {}):
        published = await asyncio.to_thread(publishing, found["sink"].grpc, transport)
    console = found[CONSOLE].grpc if CONSOLE in found else ""
    holds = dict(zip(waiting, said, strict=True))
    return Look(time.monotonic(), metrics, queues, problem, holds, published, console)


def publishing(address: str, transport: Transport) -> dict[str, str]:
    """What the sink says of publishing, by collection."""
    with contextlib.suppress(QrelayError):
        details = get_info("sink", address, 2.0, transport).details
        return {name.removeprefix(DETAIL): each for name, each in details.items() if name.startswith(DETAIL)}
    return {}


def held_up(service: str, address: str, transport: Transport) -> str:
    """What a service says that it waits for."""
    with contextlib.suppress(QrelayError):
        return get_info(service, address, 2.0, transport).details.get(ON_HOLD, "")
    return ""


def summary(before: Look | None, now: Look) -> dict[str, Any]:
    """What is shown: a row a service, and the totals. None: not known, because the service's figures could not be
    read, now or (of rates, which are per second) at the look `before`."""

    def rate(service: str, name: str) -> float | None:
        if before is None:
            return None
        since, value = _value(before, service, name), _value(now, service, name)
        if since is None or value is None:
            return None
        return round(max(value - since, 0.0) / max(now.at - before.at, 1e-9), 2)  # less: it was started anew

    rows = []
    for service in SERVICES:
        queue = now.queues.get(_QUEUES[service])
        ready = _value(now, service, "qrelay_ready")
        rows.append({
            "service": service,
            "up": service in now.metrics,
            "ready": None if ready is None else ready > 0,
            "on_hold": now.holds.get(service),
            "lag": queue.lag if queue else None,
            "held": queue.held if queue else None,
            "per_second": rate(service, "qrelay_items_total{ok}"),
            "mean_batch": _mean_batch(now, service),
            **{name: _count(now, service, f"qrelay_items_total{{{name}}}")
               for name in ("ok", "retried", "dead_lettered")},
        })  # fmt: skip
    judge = {name: _count(now, "judge", f"qrelay_judgments_total{{{name}}}")
             for name in ("graded", "cached", "missing")}  # fmt: skip
    return {"services": rows, "judgments": judge, "problem": now.problem, "published": dict(now.published),
            "console": now.console or None,
            "judgments_per_second": rate("judge", "qrelay_judgments_total{graded}"),
            "prompt_tokens": _count(now, "judge", "qrelay_prompt_tokens_total"),
            "prompt_tokens_per_second": rate("judge", "qrelay_prompt_tokens_total"),
            "price_per_million_tokens": _value(now, "judge", "qrelay_budget_price"),
            "budget": _budget(now)}  # fmt: skip


def _mean_batch(now: Look, service: str) -> float | None:
    batches = _value(now, service, "qrelay_batch_items_count")
    return round((_value(now, service, "qrelay_batch_items_sum") or 0) / batches, 1) if batches else None


def _budget(now: Look) -> dict[str, dict[str, int | None]]:
    """period -> its limit and what is spent of it, in prompt tokens, None: not counted yet; without a limit, none."""
    found: dict[str, dict[str, int | None]] = {}
    for period in PERIODS:
        if limit := _count(now, "judge", f"qrelay_budget_tokens{{{period}}}"):
            left = (now.metrics["judge"] or {}).get(f"qrelay_budget_left_tokens{{{period}}}")
            found[period] = {"limit": limit, "spent": None if left is None else limit - int(left)}
    return found


def _value(at: Look, service: str, name: str) -> float | None:
    """0 where the service has counted none yet; None where its figures are not known."""
    samples = at.metrics.get(service)
    return None if samples is None else samples.get(name, 0.0)


def _count(at: Look, service: str, name: str) -> int | None:
    found = _value(at, service, name)
    return None if found is None else int(found)


class Overview:
    """The state of one installation, for whoever asks; use from one event loop.

    patience_s: seconds that a look waits for a connection that is being made, None: as long as that takes. fresh_s: a
    state that is younger is told again.
    """

    def __init__(
        self,
        data_dir: Path,
        nats: Callable[[], NatsSettings],
        *,
        name: str,
        patience_s: float | None,
        fresh_s: float = 0.0,
        transport: Transport = PLAIN,
    ) -> None:
        self._data_dir, self._nats, self._name = data_dir, nats, name
        self._patience_s, self._fresh_s, self._transport = patience_s, fresh_s, transport
        self._looking = asyncio.Lock()
        self._connecting: asyncio.Task[JetStreamBroker | QrelayError] | None = None
        self._last: Look | None = None
        self._told: dict[str, Any] = {}

    async def state(self) -> dict[str, Any]:
        """What `summary` makes of a look now and the one before."""
        async with self._looking:
            if self._last is None or time.monotonic() - self._last.at >= self._fresh_s:
                now = await look(self._data_dir, await self._broker(), self._transport)
                self._told, self._last = summary(self._last, now), now
            return self._told

    async def _broker(self) -> JetStreamBroker | QrelayError:
        """A connection, or why there is none now; the next look asks again."""
        task = self._connecting or asyncio.ensure_future(_connected(self._nats(), self._name))
        self._connecting = task
        await asyncio.wait([task], timeout=self._patience_s)
        if not task.done():
            return BackendUnavailable("the queues' server has not answered yet")
        found = task.result()
        if isinstance(found, QrelayError):
            self._connecting = None
        return found

    async def close(self) -> None:
        """Disconnects."""
        if not (task := self._connecting):
            return
        if not task.done():
            task.cancel()
        elif isinstance(found := task.result(), JetStreamBroker):
            await found.close()


async def _connected(settings: NatsSettings, name: str) -> JetStreamBroker | QrelayError:
    try:
        return await JetStreamBroker.connect(settings, name=name, attempts=1)
    except QrelayError as error:
        return error
