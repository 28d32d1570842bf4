"""Load on a target: closed loop and open loop.

In a closed loop so many requests are outstanding at all times; the next one leaves when one is answered. It finds
what a service can do at most, and hides how long callers wait: while the service stalls, nothing is sent, so a stall
counts once. In an open loop requests arrive at random, as independent users send them (exponential gaps, a Poisson
process), or as they were recorded (`trace`), whether or not earlier ones are answered, and latency runs from the
moment a request was due. A stall then counts for every request that was due in it ("coordinated omission" is what
leaving them out is called).

All times are the running event loop's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from qrelay.bench.recording import Recorder, measure
from qrelay.bench.report import Level
from qrelay.bench.trace import Trace
from qrelay.bench.usage import Probe
from qrelay.bench.windows import WindowPolicy
from qrelay.errors import InputError


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the items of one request."""

    ok: int
    failed: Mapping[str, int] = field(default_factory=dict)
    """Items by reason of the error."""
    refused: int = 0
    """Items refused for load (RESOURCE_EXHAUSTED)."""


class Target(Protocol):
    """What is measured."""

    name: str

    async def send(self, number: int) -> Answer:
        """Send request `number` (0, 1, 2 …, never repeated in one run) and await its answer. A failed request is an
        answer too: whatever is raised ends the run."""
        ...


async def closed_loop(
    target: Target, concurrency: int, policy: WindowPolicy, probe: Probe, numbers: Iterator[int]
) -> Level:
    """Measure with `concurrency` requests outstanding at all times. `numbers` must not end.

    At the end requests on their way are awaited for `policy.drain_s`; they count nowhere.

    Raises:
        InputError: a concurrency below 1; what the target raises.
    """
    if concurrency < 1:
        raise InputError(f"concurrency {concurrency}: use at least 1")
    recorder = Recorder(policy.limit_s)
    async with _tasks() as group:
        stop = asyncio.Event()
        workers = {group.create_task(_worker(target, numbers, recorder, stop)) for _ in range(concurrency)}
        measured = await measure(recorder, policy, probe)
        stop.set()
        unanswered = await _finish(workers, policy.drain_s)
    return measured.closed(concurrency, unanswered)


async def open_loop(
    target: Target,
    rate: float,
    policy: WindowPolicy,
    probe: Probe,
    numbers: Iterator[int],
    seed: int = 0,
    *,
    capacity: float | None = None,
) -> Level:
    """Measure with requests due at random, `rate` a second on average; the same seed gives the same gaps. `numbers`
    must not end. capacity: requests a second that a closed loop found to be the most, None: not known.

    Raises:
        InputError: a rate that is not above 0; what the target raises.
    """
    if not rate > 0:
        raise InputError(f"rate {rate}: use requests a second above 0")
    recorder = Recorder(policy.limit_s)
    async with _tasks() as group:
        arrivals = _Arrivals(target, numbers, recorder, policy.max_outstanding, group)
        arriving = group.create_task(arrivals.run(_poisson(rate, seed)))
        measured = await measure(recorder, policy, probe)
        arriving.cancel()
        waited = await arrivals.drain(policy.drain_s)
    return measured.opened(rate, recorder.rest(), waited, capacity)


async def replay(target: Target, trace: Trace, policy: WindowPolicy, probe: Probe, numbers: Iterator[int]) -> Level:
    """Measure with requests due as they were recorded, from the first to the last: no warm-up, and windows until all
    are answered, or `policy.drain_s` after the last arrival. `numbers` must have as many.

    Raises:
        What the target raises.
    """
    recorder = Recorder(policy.limit_s)
    async with _tasks() as group:
        arrivals = _Arrivals(target, numbers, recorder, policy.max_outstanding, group)
        whole = group.create_task(arrivals.played(trace.gaps(), policy.drain_s))
        measured = await measure(recorder, replace(policy, min_requests=1), probe, whole)
    return replace(measured.opened(trace.rate, recorder.rest(), await whole), trace=str(trace))


def _poisson(rate: float, seed: int) -> Iterator[float]:
    gaps = random.Random(seed)
    while True:
        yield gaps.expovariate(rate)


async def _worker(target: Target, numbers: Iterator[int], recorder: Recorder, stop: asyncio.Event) -> None:
    clock = asyncio.get_running_loop().time
    while not stop.is_set():
        started = clock()
        answer = await target.send(next(numbers))
        recorder.answered(answer.ok, answer.failed, answer.refused, clock() - started)
        # A target that answers at once would otherwise never let anything else run.
        await asyncio.sleep(0)


class _Arrivals:
    """Requests of an open loop, each in its own task from the moment it is due."""

    def __init__(
        self, target: Target, numbers: Iterator[int], recorder: Recorder, most: int, group: asyncio.TaskGroup
    ) -> None:
        self._target, self._numbers, self._recorder, self._most, self._group = target, numbers, recorder, most, group
        self._clock = asyncio.get_running_loop().time
        self._due: dict[asyncio.Task[None], float] = {}

    async def run(self, gaps: Iterator[float]) -> None:
        """Send until cancelled, or the gaps end."""
        due = self._clock()
        for gap in gaps:
            due += gap
            await asyncio.sleep(max(0.0, due - self._clock()))
            if len(self._due) < self._most:
                self._recorder.arrived()
                task = self._group.create_task(self._send(next(self._numbers), due))
                self._due[task] = due
                task.add_done_callback(self._due.pop)
            else:
                self._recorder.arrived(capped=True)

    async def played(self, gaps: Iterator[float], drain_s: float) -> list[float]:
        """`run` to the end, then `drain`."""
        await self.run(gaps)
        return await self.drain(drain_s)

    async def drain(self, seconds: float) -> list[float]:
        """Await what is in flight for so long; of the requests left without an answer: the seconds waited so far."""
        due = dict(self._due)
        await _finish(set(due), seconds)
        return [self._clock() - at for task, at in due.items() if task.cancelled()]

    async def _send(self, number: int, due: float) -> None:
        self._recorder.started(self._clock() - due)
        answer = await self._target.send(number)
        self._recorder.answered(answer.ok, answer.failed, answer.refused, self._clock() - due)


async def _finish(tasks: set[asyncio.Task[None]], seconds: float) -> int:
    """Await these tasks for so long, cancel what is left; how many those were."""
    if not tasks:
        return 0
    _, left = await asyncio.wait(tasks, timeout=seconds)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return len(left)


@asynccontextmanager
async def _tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group that raises the first error itself and not a group of one."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
