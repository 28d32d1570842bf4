"""`qrelay top`: what `qrelay/runtime/overview.py` sees, live in a terminal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.client.feeding import nats_settings
from qrelay.config import NatsSettings
from qrelay.output import Rows, echo_json
from qrelay.progress import on_terminal
from qrelay.runtime.overview import Overview


def render(state: Mapping[str, Any]) -> Group:
    """The table and the judge's line."""
    rows = []
    for row in state["services"]:
        name = row["service"] + _state(row)
        values = (row[key] for key in ("lag", "held", "per_second", "mean_batch", "ok", "retried", "dead_lettered"))
        rows.append((name, *("-" if value is None else str(value) for value in values)))
    known = {name: "-" if value is None else value for name, value in {**state, **state["judgments"]}.items()}
    line = (f"judgments: {known['graded']} graded ({known['judgments_per_second']}/s), {known['cached']} from "
            f"the cache, {known['missing']} missing; {known['prompt_tokens']} LLM tokens "
            f"({known['prompt_tokens_per_second']}/s)")  # fmt: skip
    headings = ("service", "lag", "held", "items/s", "mean batch", "done", "retried", "dead letters")
    holds = [f"{row['service']} is on hold {row['on_hold']}" for row in state["services"] if row["on_hold"]]
    published = [f"publishing {name} to {text}" for name, text in state["published"].items()]
    console = [f"console: {state['console']}"] if state["console"] else []
    table = Rows(headings, rows, right=headings[1:], frame=False)
    budget = [_spent(period, each) for period, each in state["budget"].items()]
    return Group(table, line, *budget, *holds, *published, *console, state["problem"])


def _spent(period: str, found: Mapping[str, int | None]) -> str:
    spent = "not counted yet" if found["spent"] is None else f"{found['spent']} spent"
    return f"budget: {spent} of {found['limit']} LLM tokens a {period}"


def _state(row: Mapping[str, Any]) -> str:
    if row["ready"] is None:
        return " (figures unknown)" if row["up"] else " (down)"
    if not row["ready"]:
        return " (not ready)"
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
    overview = Overview(data_dir, lambda: settings, name="top", patience_s=None, transport=settings.transport)
    await overview.state()
    with contextlib.ExitStack() as closing:
        show: Callable[[Group], None] = console.print
        if on_terminal(console) and not as_json:
            live = closing.enter_context(Live(console=console, auto_refresh=False, screen=not once))
            show = partial(live.update, refresh=True)
        while True:
            await asyncio.sleep(interval)
            state = await overview.state()
            if as_json:
                echo_json(state)
            else:
                show(render(state))
            if once:
                break
    await overview.close()
