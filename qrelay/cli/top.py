"""`qrelay top`: what flows, what waits, what fails and what it costs, live.

Two sources: JetStream (lag of each queue) and every service's /metrics (rates, batch sizes, cache hits,
missing judgments, tokens). Rates are differences between two looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group
from rich.live import Live

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.client.feeding import nats_settings
from qrelay.config import NatsSettings
from qrelay.errors import QrelayError
from qrelay.output import Rows, echo_json
from qrelay.rundir import endpoints
from qrelay.runtime.client import get_info
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.servicer import ON_HOLD
from qrelay.runtime.topology import Queue, QueueStats
from qrelay.settings.publish import DETAIL
from qrelay.settings.sections import CONSOLE

_CONNECT_S = 3.0
_SERVICES = ("retriever", "reranker", "judge", "sink")
_QUEUES = {"retriever": Queue.QUERIES, "reranker": Queue.RETRIEVED, "judge": Queue.RERANKED, "sink": Queue.JUDGED}


@dataclass(frozen=True, slots=True)
class Look:
    """One look at everything: samples by service, lag by queue, when (monotonic seconds)."""

    at: float
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    queues: Mapping[Queue, QueueStats] = field(default_factory=dict)
    problem: str = ""
    holds: Mapping[str, str] = field(default_factory=dict)
    """What a service waits for, by its name."""
    published: Mapping[str, str] = field(default_factory=dict)
    """How publishing stands, by collection."""
    console: str = ""
    """The console's URL; "": it does not run."""


def scrape(address: str) -> dict[str, float]:
    """One service's samples, summed over the labels that are not in the name: `name{outcome=x}` or `name`."""
    totals: dict[str, float] = {}
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=2) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                outcome = sample.labels.get("outcome")
                name = f"{sample.name}{{{outcome}}}" if outcome else sample.name
                totals[name] = totals.get(name, 0.0) + sample.value
    except Exception:  # also what HTTP's and Prometheus' parsers raise at another service's answer
        return {}
    return totals


async def look(data_dir: Path, broker: JetStreamBroker | QrelayError) -> Look:
    """Ask every running service and the broker; an error in its place says why there is none."""
    found = endpoints(data_dir)
    names = [name for name in _SERVICES if name in found]
    samples = await asyncio.gather(*(asyncio.to_thread(scrape, found[name].metrics) for name in names))
    queues, problem = {}, ""
    try:
        if isinstance(broker, QrelayError):
            raise broker
        queues = {stats.queue: stats for stats in await broker.stats()}
    except QrelayError as error:
        problem = str(error)
    metrics = dict(zip(names, samples, strict=True))
    waiting = [name for name in names if metrics[name].get("qrelay_on_hold_until_seconds")]
    said = await asyncio.gather(*(asyncio.to_thread(held_up, name, found[name].grpc) for name in waiting))
    published = {}
    if "qrelay_published_change" in metrics.get("sink", {}):
        published = await asyncio.to_thread(publishing, found["sink"].grpc)
    console = found[CONSOLE].grpc if CONSOLE in found else ""
    holds = dict(zip(waiting, said, strict=True))
    return Look(time.monotonic(), metrics, queues, problem, holds, published, console)


def publishing(address: str) -> dict[str, str]:
    """What the sink says of publishing, by collection."""
    with contextlib.suppress(QrelayError):
        details = get_info("sink", address, timeout_s=2.0).details
        return {name.removeprefix(DETAIL): each for name, each in details.items() if name.startswith(DETAIL)}
    return {}


def held_up(service: str, address: str) -> str:
    """What a service says that it waits for."""
    with contextlib.suppress(QrelayError):
        return get_info(service, address, timeout_s=2.0).details.get(ON_HOLD, "")
    return ""


def summary(before: Look, now: Look) -> dict[str, Any]:
    """What is shown: a row a service, and the totals. Rates are per second since `before`."""
    elapsed = max(now.at - before.at, 1e-9)

    def rate(service: str, name: str) -> float:
        return (_value(now, service, name) - _value(before, service, name)) / elapsed

    rows = []
    for service in _SERVICES:
        queue = now.queues.get(_QUEUES[service])
        batches = _value(now, service, "qrelay_batch_items_count")
        rows.append({
            "service": service,
            "up": service in now.metrics,
            "ready": _value(now, service, "qrelay_ready") > 0,
            "on_hold": now.holds.get(service),
            "lag": queue.lag if queue else None,
            "held": queue.held if queue else None,
            "per_second": round(rate(service, "qrelay_items_total{ok}"), 2),
            "mean_batch": round(_value(now, service, "qrelay_batch_items_sum") / batches, 1) if batches else None,
            "ok": int(_value(now, service, "qrelay_items_total{ok}")),
            "retried": int(_value(now, service, "qrelay_items_total{retried}")),
            "dead_lettered": int(_value(now, service, "qrelay_items_total{dead_lettered}")),
        })  # fmt: skip
    judge = {name: int(_value(now, "judge", f"qrelay_judgments_total{{{name}}}"))
             for name in ("graded", "cached", "missing")}  # fmt: skip
    return {"services": rows, "judgments": judge, "problem": now.problem, "published": dict(now.published),
            "console": now.console or None,
            "judgments_per_second": round(rate("judge", "qrelay_judgments_total{graded}"), 2),
            "prompt_tokens": int(_value(now, "judge", "qrelay_prompt_tokens_total")),
            "prompt_tokens_per_second": round(rate("judge", "qrelay_prompt_tokens_total"), 1)}  # fmt: skip


def _value(at: Look, service: str, name: str) -> float:
    return at.metrics.get(service, {}).get(name, 0.0)


def render(state: Mapping[str, Any]) -> Group:
    """The table and the judge's line."""
    rows = []
    for row in state["services"]:
        name = row["service"] + _state(row)
        values = (row[key] for key in ("lag", "held", "per_second", "mean_batch", "ok", "retried", "dead_lettered"))
        rows.append((name, *("-" if value is None else str(value) for value in values)))
    judged = state["judgments"]
    line = (f"judgments: {judged['graded']} graded ({state['judgments_per_second']}/s), {judged['cached']} from "
            f"the cache, {judged['missing']} missing; {state['prompt_tokens']} LLM tokens "
            f"({state['prompt_tokens_per_second']}/s)")  # fmt: skip
    headings = ("service", "lag", "held", "items/s", "mean batch", "done", "retried", "dead letters")
    holds = [f"{row['service']} is on hold {row['on_hold']}" for row in state["services"] if row["on_hold"]]
    published = [f"publishing {name} to {text}" for name, text in state["published"].items()]
    console = [f"console: {state['console']}"] if state["console"] else []
    table = Rows(headings, rows, right=headings[1:], frame=False)
    return Group(table, line, *holds, *published, *console, state["problem"])


def _state(row: Mapping[str, Any]) -> str:
    if not row["ready"]:
        return " (not ready)" if row["up"] else " (down)"
    return "" if row["on_hold"] is None else " (on hold)"


@click.command(epilog=example("qrelay top --once"))
@data_dir_option()
@config_option()
@click.option("--nats", "nats_url", help="NATS URL.  [default: the one in --data-dir, else the settings']")
@click.option("--interval", default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Show one interval and return.")
@json_option()
def top(
    data_dir: Path, config: Path | None, nats_url: str | None, interval: float, once: bool, as_json: bool
) -> None:
    """Show lag, rates, batch sizes, cache hits, missing judgments, dead letters and tokens, live.

    With sink.publish.repo also, of each collection: what was published last and when, what is due next, and what
    publishing waits for.
    """
    settings = nats_settings(nats_url, data_dir, config)
    try:
        asyncio.run(_show(data_dir, settings, interval, once or as_json, as_json))
    except KeyboardInterrupt:
        return


async def _show(data_dir: Path, settings: NatsSettings, interval: float, once: bool, as_json: bool) -> None:
    """Look after look. On a terminal in place; on a pipe one table after another, flushed."""
    console = Console()
    broker = await _connected(settings)
    before = await look(data_dir, broker)
    with contextlib.ExitStack() as closing:
        show: Callable[[Group], None] = console.print
        if console.is_terminal and not as_json:
            live = closing.enter_context(Live(console=console, auto_refresh=False, screen=not once))
            show = partial(live.update, refresh=True)
        while True:
            await asyncio.sleep(interval)
            if isinstance(broker, QrelayError):
                broker = await _connected(settings)
            now = await look(data_dir, broker)
            state = summary(before, now)
            if as_json:
                echo_json(state)
            else:
                show(render(state))
            if once:
                break
            before = now
    if isinstance(broker, JetStreamBroker):
        await broker.close()


async def _connected(settings: NatsSettings) -> JetStreamBroker | QrelayError:
    """A connection, or why there is none now; the next look asks again."""
    try:
        return await JetStreamBroker.connect(settings, name="top", timeout_s=_CONNECT_S)
    except QrelayError as error:
        return error
