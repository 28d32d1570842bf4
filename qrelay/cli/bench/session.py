"""What every benchmark command does around its measuring: a first request, the levels, the report."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from qrelay.bench.data import Source
from qrelay.bench.folder import write
from qrelay.bench.load import Target, closed_loop, replay
from qrelay.bench.probe import CLIENT
from qrelay.bench.report import Level, Probe, Report, as_json
from qrelay.bench.running import Plan
from qrelay.bench.sweeps import best_of, capacity_of, rates_of, sweep_closed, sweep_open
from qrelay.bench.table import WIDTH, show, state
from qrelay.cli.bench.options import LoadPlan
from qrelay.config import ServiceSettings
from qrelay.errors import ConfigError, InputError
from qrelay.parsing import flat
from qrelay.settings.secrets import masked

Say = Callable[[Level], None]


def need_extra() -> None:
    """Before anything is measured: what draws the diagrams and computes the intervals.

    Raises:
        ConfigError: not installed.
    """
    absent = [name for name in ("jinja2", "matplotlib", "numpy", "scipy") if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(f"a benchmark's report needs {', '.join(absent)}: pip install 'qrelay[bench]'")


async def first_request(target: Target, numbers: Iterator[int], errors: Mapping[str, str], hint: str = "") -> None:
    """One request before all others: what cannot work at all should say so at once. errors: texts by reason, as the
    target keeps them; hint: what to do beside.

    Raises:
        InputError: no item of it succeeded.
    """
    answer = await target.send(next(numbers))
    if not answer.ok and not answer.refused:
        why = "; ".join(f"{reason}: {errors.get(reason, 'no text')}" for reason in answer.failed) or "no answer"
        raise InputError(f"the first request to the {target.name} failed, nothing was measured: {why}{hint}")


def started_hint(*, fake: bool) -> str:
    """What to do where the first request to something that was started here failed; nothing where it was a fake."""
    if fake:
        return ""
    return (
        "\nIt was started with the settings in force: give --config or --data-dir for an installation's own, and "
        "--collection for one of its corpora (QRELAY_RETRIEVER__INDEX_DIR=FOLDER for its indexes alone); or "
        "--service-time for the fake."
    )


async def levels(target: Target, plan: LoadPlan, probe: Probe, numbers: Iterator[int], say: Say) -> list[Level]:
    """The plan's closed loops, then its open ones, or its trace; with a trace only those closed loops that were asked
    for."""
    found = [] if plan.trace and not plan.concurrency else await _closed(target, plan, probe, numbers, say)
    if plan.trace:
        found.append(await replay(target, plan.trace, plan.policy, probe, numbers))
        say(found[-1])
        return found
    if plan.rates is None:
        return found
    rates = plan.rates or rates_of(best_of(found))
    most = None if plan.concurrency else capacity_of(found)
    opened = sweep_open(target, rates, plan.policy, probe, numbers, seed=plan.seed, progress=say, capacity=most)
    return [*found, *await opened]


async def _closed(target: Target, plan: LoadPlan, probe: Probe, numbers: Iterator[int], say: Say) -> list[Level]:
    if not plan.concurrency:
        return await sweep_closed(target, plan.policy, probe, numbers, progress=say)
    found = []
    for concurrency in plan.concurrency:
        found.append(await closed_loop(target, concurrency, plan.policy, probe, numbers))
        say(found[-1])
    return found


def progress(console: Console) -> Say:
    """A line a level, as it is done."""

    def say(level: Level) -> None:
        load = f"{level.concurrency} at once" if level.kind == "closed" else f"{level.rate:.1f}/s due"
        latency = level.latency_s
        times = f"p50 {latency.p50 * 1000:.0f} ms  p99 {latency.p99 * 1000:.0f} ms" if latency else "nothing answered"
        failed = sum(level.failed.values())
        beside = "".join(
            f"  {count} {what}" for count, what in ((failed, "failed"), (level.refused, "refused")) if count
        )
        good = f"  {level.goodput.value:.1%} good" if level.goodput else ""
        held = "" if level.stable and not level.saturated else f"  ({state(level)})"
        console.print(f"{load:>14}: {level.throughput.value:8.1f}/s  {times}{good}{beside}{held}", highlight=False)

    return say


def settings_of(plan: LoadPlan, **others: Any) -> dict[str, Any]:
    """The run's settings for the report."""
    played = {"trace": asdict(plan.trace) | {"offsets": len(plan.trace.offsets)}} if plan.trace else {}
    return {"policy": asdict(plan.policy), "quick": plan.quick, "seed": plan.seed, **played, **others}


def settings_in_force(service: str, plan: Plan) -> ServiceSettings:
    """The effective settings of a service that is started here."""
    from qrelay.settings.sections import settings_of as class_of

    settings: type[ServiceSettings] = class_of(service)
    return plan.settings.settings(settings, service)


def changed_settings(service: str, plan: Plan) -> dict[str, Any]:
    """Which settings of a service differ from their defaults, flat by dotted name. Folders and addresses are left
    out: they name places, not what was measured."""
    effective = settings_in_force(service, plan)
    default = dict(flat(type(effective)().model_dump()))
    given = flat(masked(effective.model_dump()))
    return {name: value for name, value in given if value != default.get(name) and not _place(value)}


def _place(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and ("/" in value or value.startswith("127.0.0.1:")))


def typed() -> str:
    """The command as typed, of paths only the last part, without passwords."""
    words = [Path(word).name if "/" in word and "://" not in word else word for word in sys.argv[1:]]
    return " ".join(["qrelay", *masked(words)])


def general_notes(plan: LoadPlan, found: list[Level], source: Source, sent: int) -> list[str]:
    """What a reader must know of any run beside what its table warns of: a quick look, items that were sent again,
    a busy load generator. sent: items."""
    notes = []
    distinct = source.describe().get("distinct")
    if distinct and sent > distinct:
        notes.append(f"{sent} items of {distinct} different ones were sent: each about {sent / distinct:.1f} times.")
    if plan.quick:
        notes.append("A quick look: short windows; the figures are no measurement.")
    if busy := [level for level in found if _client_cores(level) > 0.8]:
        notes.append(
            f"The load generator used over 0.8 cores on {len(busy)} of {len(found)} levels: it may be what limits."
        )
    return notes


def _client_cores(level: Level) -> float:
    used = level.usage.get(CLIENT)
    seconds = sum(window.seconds for window in level.windows)
    return used.cpu_seconds / seconds if used and used.cpu_seconds and seconds else 0.0


def finish(report: Report, out: Path | None, as_machine: bool, console: Console) -> None:
    """Write the folder and print the table, or the JSON."""
    folder = out or Path(f"bench-{report.service}-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    try:
        write(report, folder)
    except OSError as error:
        raise InputError(f"--out {folder}: {error.strerror}; give a folder that can be written") from error
    if as_machine:
        click.echo(as_json(report))
    else:
        show(report, Console(width=None if sys.stdout.isatty() else WIDTH))
    console.print(f"report: {folder}", highlight=False)


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
