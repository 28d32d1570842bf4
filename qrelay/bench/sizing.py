"""How many machines so many queries take, computed from benchmark reports.

A report says what one replica on one machine does at most. Of that only a share (`utilisation`) is planned for, so
that queues stay short and a lost replica can be made up for. With r = queries / seconds:

    replicas       = ceil(r / (utilisation * throughput of one))
    machine-hours  = queries / (utilisation * throughput of one) / 3600
    cost           = machine-hours * price of one hour

The pipeline's services work side by side, so each is sized alone; the slowest sets the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qrelay.bench.report import Report
from qrelay.bench.table import number
from qrelay.errors import InputError

MEMORY_MARGIN = 1.3
"""Memory to request, of the largest that was seen."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one service needs. Rates in queries/s, cores and MiB a replica; None: not known."""

    service: str
    throughput: float
    """Of one replica, as measured."""
    replicas: int
    machine_hours: float
    cores: float | None
    memory_mib: float | None
    cost: float | None
    """In the currency of the price."""


@dataclass(frozen=True, slots=True)
class Plan:
    """queries: how many; hours: within which; utilisation: share of the measured throughput planned for, 0 to 1;
    prices: of one machine-hour by service; weights: by service, what a query costs in items of its report (a judge
    measured with 5 passages a set costs 5 for a query of 25)."""

    queries: int = 1_000_000
    hours: float = 24.0
    utilisation: float = 0.7
    prices: Mapping[str, float] | None = None
    weights: Mapping[str, float] | None = None


def size(reports: Sequence[Report], plan: Plan) -> list[Need]:
    """A row a report, in their order.

    Raises:
        InputError: a plan that cannot be; a report without a closed-loop level, of the whole pipeline, or of a judge
            that answered from its cache.
    """
    if plan.queries < 1 or not plan.hours > 0 or not 0 < plan.utilisation <= 1:
        raise InputError("a plan needs at least one query, hours above 0 and a utilisation above 0, up to 1")
    unknown = {*(plan.prices or {}), *(plan.weights or {})} - {report.service for report in reports}
    if unknown:
        raise InputError(f"there is no report of {', '.join(sorted(unknown))}: give one, or leave its price out")
    return [_need(report, plan) for report in reports]


def _need(report: Report, plan: Plan) -> Need:
    best = report.best()
    if report.service == "pipeline":
        raise InputError("a pipeline's report cannot size its services: give the reports of the services")
    if best is None or not best.throughput.value > 0:
        raise InputError(f"the report of {report.service} has no closed-loop level that answered: run it again")
    if cached := report.extra.get("judgments", {}).get("cached_share"):
        raise InputError(
            f"{cached:.1%} of the judgments in the judge's report came from the cache, or from the same pair asked "
            "at the same time, so it does not say what a judgment takes: measure with QRELAY_JUDGE__CACHE=:none: and "
            "more recorded queries than are asked at once"
        )
    throughput = best.throughput.value / (plan.weights or {}).get(report.service, 1.0)
    planned = plan.utilisation * throughput
    hours = plan.queries / planned / 3600
    usage = best.usage.get(report.service)
    cpu, rss = (usage.cpu_seconds_per_1000, usage.peak_rss_mib) if usage else (None, None)
    price = (plan.prices or {}).get(report.service)
    return Need(
        service=report.service,
        throughput=throughput,
        replicas=math.ceil(hours / plan.hours),
        machine_hours=hours,
        cores=None if cpu is None else cpu / 1000 * best.throughput.value,
        memory_mib=None if rss is None else rss * MEMORY_MARGIN,
        cost=None if price is None else hours * price,
    )


def markdown(needs: Sequence[Need], plan: Plan) -> str:
    """The rows as a Markdown table."""
    lines = [
        f"{plan.queries:,} queries within {plan.hours:g} hours, planned for {plan.utilisation:.0%} of the measured "
        "throughput:",
        "",
        "| service | queries/s, one replica | replicas | machine-hours | cores used | memory to request | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for need in needs:
        throughput = number(need.throughput)
        cores = "" if need.cores is None else f"{need.cores:.1f}"
        memory = "" if need.memory_mib is None else f"{need.memory_mib:,.0f} MiB"
        cost = "" if need.cost is None else f"{need.cost:,.2f}"
        lines.append(
            f"| {need.service} | {throughput} | {need.replicas:,} | {need.machine_hours:,.1f} | {cores} | "
            f"{memory} | {cost} |"
        )
    total = [need.cost for need in needs if need.cost is not None]
    hours = sum(need.machine_hours for need in needs)
    lines.append(f"| all | | | {hours:,.1f} | | | {f'{sum(total):,.2f}' if total else ''} |")
    return "\n".join(lines)
