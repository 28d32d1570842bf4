"""Replicas killed and drained under load: what they held, what became of it, and how long throughput suffers.

A steady closed loop runs; at given seconds of it one replica, the oldest of its service, gets SIGKILL or SIGTERM, and
a successor is started at once, as a Deployment would. After SIGTERM the process has the grace period; then it is
killed, as a kubelet would. In the end every query must be in the ledger or in the dead letters.

Recovery. Commits come in bursts (a batch at a time), so seconds are not compared one by one. Throughput is back at
the first moment t from which on every stretch up to the end of the observation has at least 95% of the undisturbed
rate, but for the unevenness that the undisturbed stretch showed itself. 0: it never fell. What is left to observe
after t must be long enough for a quarter less to show in spite of that unevenness; else recovery is not known.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qrelay.bench.probe import scrape
from qrelay.bench.running import Fleet
from qrelay.bench.targets.pipeline import PipelineTarget
from qrelay.bench.targets.tasks import end
from qrelay.errors import QrelayError

SIGNALS: Final = {"kill": signal.SIGKILL, "drain": signal.SIGTERM}
SERVICES: Final = ("retriever", "reranker", "judge", "sink")
TAIL_S: Final = 20.0
"""Seconds of load after the last disturbance."""
_STEP_S: Final = 0.25
_SHARE: Final = 0.95
_VISIBLE: Final = 0.25
_LEAST_S: Final = 2.0
_BEFORE_S: Final = 5


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One replica of `service`, `at_s` seconds after the measured part began."""

    action: str
    service: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """in_flight: queries on their way at any time; drain_s: the service's worker.drain_s; grace_s: seconds from
    SIGTERM until it is killed; tail_s: seconds of load after the last disturbance."""

    in_flight: int
    warm_up_s: float
    drain_s: float
    grace_s: float
    tail_s: float = TAIL_S


async def disturb(
    fleet: Fleet, target: PipelineTarget, numbers: Iterator[int], plan: Sequence[Disturbance], limits: Limits
) -> dict[str, Any]:
    """Run the load and the disturbances; plain JSON, a record a disturbance and throughput a second. What was sent is
    left to `target.settle`."""
    workers = [asyncio.create_task(_worker(target, numbers)) for _ in range(limits.in_flight)]
    try:
        await asyncio.sleep(limits.warm_up_s)
        began = time.monotonic()
        events = [asyncio.create_task(_event(fleet, each, began, limits)) for each in plan]
        await asyncio.sleep(max(0.0, began + plan[-1].at_s + limits.tail_s - time.monotonic()))
        ended = time.monotonic()
        records = await asyncio.gather(*events)
    finally:
        await end(workers)
    return _report(records, list(target.commits), began, ended, limits)


async def _worker(target: PipelineTarget, numbers: Iterator[int]) -> None:
    while True:
        await target.send(next(numbers))


async def _event(fleet: Fleet, each: Disturbance, began: float, limits: Limits) -> dict[str, Any]:
    """The disturbance at its time; what is known of the replica afterwards."""
    await asyncio.sleep(max(0.0, began + each.at_s - time.monotonic()))
    return await asyncio.to_thread(_carry_out, fleet, each, began, limits)


def _carry_out(fleet: Fleet, each: Disturbance, began: float, limits: Limits) -> dict[str, Any]:
    victim = fleet.names(each.service)[0]
    held = _held(fleet, victim)
    fleet.signal(victim, SIGNALS[each.action])
    at = time.monotonic()
    successor = fleet.launch(each.service)
    code = fleet.wait_ended(victim, limits.grace_s)
    exit_s = time.monotonic() - at
    if code is None:
        fleet.signal(victim, signal.SIGKILL)
    fleet.wait_ready([successor])
    return {
        "action": each.action,
        "replica": victim,
        "at_s": round(at - began, 2),
        "held_at_signal": held,
        "exit_code": code,
        "exit_s": round(exit_s, 3),
        **(_drained(fleet, victim, each.service, limits) if each.action == "drain" else {}),
        "successor": successor,
        "successor_ready_s": round(time.monotonic() - at, 2),
    }


def _held(fleet: Fleet, name: str) -> float | None:
    """Messages in its hands, by its own gauge."""
    endpoint = fleet.endpoint(name)
    with contextlib.suppress(QrelayError):
        return scrape(endpoint.metrics, fleet.transport).values.get("qrelay_held_items", 0.0) if endpoint else None
    return None


def _drained(fleet: Fleet, name: str, stage: str, limits: Limits) -> dict[str, Any]:
    """What the service's log says of its drain; `drained` is empty where it says nothing."""
    entries = [entry for entry in fleet.log_entries(name) if entry.get("message") == "drained"]
    mine = next((entry for entry in entries if entry.get("stage") == stage), {})
    words = ("held", "finished", "returned", "unconfirmed", "seconds")
    return {
        "drained": {word: mine[word] for word in words if word in mine},
        "drain_limit_s": limits.drain_s,
        "grace_s": limits.grace_s,
    }


def _report(
    records: Sequence[dict[str, Any]], commits: Sequence[float], began: float, ended: float, limits: Limits
) -> dict[str, Any]:
    """Recovery of each, observed until the next disturbance or the end; and commits a second, the last part of a
    second left out."""
    before = began + records[0]["at_s"]
    rate = _count(commits, began, before) / (before - began)
    starts = [began + record["at_s"] for record in records]
    for record, start, until in zip(records, starts, [*starts[1:], ended], strict=True):
        record["recovered_s"] = recovery_s(commits, (began, before), start, until)
        record["observed_s"] = round(until - start, 1)
    per_second = [_count(commits, began + i, began + i + 1) for i in range(int(ended - began))]
    around = {
        f"{record['action']} {record['replica']}": per_second[max(0, int(record["at_s"]) - _BEFORE_S) :][
            : 4 * _BEFORE_S
        ]
        for record in records
    }
    return {
        "in_flight": limits.in_flight,
        "undisturbed_per_second": rate,
        "seconds": ended - began,
        "mean_per_second": _count(commits, began, ended) / (ended - began),
        "events": list(records),
        "commits_per_second": per_second,
        "commits_around": around,
    }


def recovery_s(
    commits: Sequence[float], undisturbed: tuple[float, float], start: float, until: float
) -> float | None:
    """Seconds from `start` until throughput is back, see the module; None: not before `until`. `commits` rise."""
    first, last = undisturbed
    rate = _count(commits, first, last) / (last - first)
    slack = _unevenness(commits, first, last, rate)
    times = list(_steps(start, until))
    behind = [_SHARE * rate * (at - start) - _count(commits, start, at) for at in times]
    most = list(itertools.accumulate(reversed(behind), max))[::-1]
    enough_s = max(_LEAST_S, slack / (_VISIBLE * rate)) if rate else float("inf")
    for at, now, ever_after in zip(times, behind, most, strict=True):
        if ever_after - now <= slack and until - at >= enough_s:
            return round(at - start, 2)
    return None


def _unevenness(commits: Sequence[float], first: float, last: float, rate: float) -> float:
    """The most commits by which a stretch of the undisturbed part falls short of its rate."""
    ahead = [_count(commits, first, at) - rate * (at - first) for at in _steps(first, last)]
    peaks = itertools.accumulate(ahead, max)
    return max((peak - value for peak, value in zip(peaks, ahead, strict=True)), default=0.0)


def _steps(start: float, until: float) -> Iterator[float]:
    for i in range(int((until - start) / _STEP_S) + 1):
        yield start + i * _STEP_S


def _count(commits: Sequence[float], first: float, last: float) -> int:
    return bisect.bisect_left(commits, last) - bisect.bisect_left(commits, first)
