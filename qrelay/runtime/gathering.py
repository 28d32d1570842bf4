"""Concurrent gRPC calls in one batch: calls that arrive while a batch computes gather, and go together when it ends.

Nobody waits for a clock without a reason. A call that arrives where nothing computes and nobody else is expected goes
at once. Expected are the callers of the batch that has just ended, who usually ask again a moment later: for them
the next batch waits `worker.max_delay_s` at most, and a quarter of the time that the last one took. A full batch
goes beside one that computes, up to `worker.batches_in_flight`.

A call is never divided, and calls of different options never meet. A call that was cancelled, or ran out of its
deadline, is left out of a batch that has not begun; a batch that nobody waits for any more is cancelled. Where a
batch of several calls raises, each of them is computed alone, so that one cannot fail the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from qrelay.config import WorkerSettings
from qrelay.errors import InternalError
from qrelay.runtime import telemetry
from qrelay.runtime.batcher import Batcher, BatchPolicy

log = logging.getLogger(__name__)

Options = TypeVar("Options", bound=Hashable)
Compute = Callable[[list[Any], Options], Awaitable[Sequence[Any]]]

_NOTHING: Final = object()
_PATIENCE: Final = 0.25
"""The next batch waits for expected callers this share of the last one's time, at most."""


class Computed(NamedTuple):
    """The answers to a call's records, in order. began: when the batch that it was in did, by the monotonic clock;
    seconds: how long all of that batch took."""

    answers: Sequence[Any]
    began: float
    seconds: float


async def computed(service: str, records: Sequence[Any], work: Awaitable[Sequence[Any]]) -> Computed:
    """What `work` answers to a batch of `records`, timed and counted.

    Raises:
        InternalError: not one answer a record.
    """
    began = time.monotonic()
    answers = await work
    seconds = time.monotonic() - began
    telemetry.GRPC_BATCH_ITEMS.labels(service).observe(len(records))
    telemetry.GRPC_COMPUTE_SECONDS.labels(service).observe(seconds)
    if len(answers) != len(records):
        raise InternalError(f"a core gave {len(answers)} answers to {len(records)} items")
    return Computed(answers, began, seconds)


@dataclass(eq=False, slots=True)
class _Call:
    records: list[Any]
    answered: asyncio.Future[Computed]

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for its answer."""
        return not self.answered.done()


class Calls:
    """See the module. Use from one event loop."""

    def __init__(
        self,
        service: str,
        settings: WorkerSettings,
        compute: Compute[Any],
        cost: Callable[[Any], int],
        *,
        queues: bool = False,
    ) -> None:
        """`compute` answers records that share their options; `cost` is a record's, as the stage counts it. queues:
        what computes has a queue of its own, so that nobody is expected, and no batch waits longer than
        `worker.max_delay_s` for those before it."""
        self._service, self._settings = service, settings
        self._compute, self._cost, self._queues = compute, cost, queues
        self._policy = BatchPolicy(settings.max_items, settings.max_cost, settings.max_bytes, settings.max_delay_s)
        self._gathered: dict[Hashable, Batcher[_Call]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._expected = 0
        """Calls that the next batch waits for, until `_patient_until` of the monotonic clock."""
        self._patient_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def answer(self, records: list[Any], options: Hashable = None) -> Computed:
        """The answers to one call's records, computed with those of other calls. Raises what `compute` raises."""
        call = _Call(records, asyncio.get_running_loop().create_future())
        batcher = self._gathered.setdefault(options, Batcher(self._policy))
        batcher.add(call, cost=sum(map(self._cost, records)), items=len(records))
        self._start_due()
        return await call.answered

    def _start_due(self) -> None:
        """Start every batch that should go now, and see to it that the next one is looked at in time."""
        while (options := next(filter(self._due, self._gathered), _NOTHING)) is not _NOTHING:
            batcher = self._gathered.pop(options)
            calls = [call for call in batcher.take() if call.wanted]
            if batcher:
                self._gathered[options] = batcher  # behind the others: no options starve
            if calls:
                self._start(calls, options)
        self._look_again()

    def _due(self, options: Hashable) -> bool:
        batcher = self._gathered[options]
        if not self._running:
            return self._queues or self._all_here() or batcher.full or time.monotonic() >= self._patient_until
        if self._queues:
            return batcher.ready()
        return batcher.full and len(self._running) < self._settings.batches_in_flight

    def _all_here(self) -> bool:
        return sum(map(len, self._gathered.values())) >= self._expected

    def _look_again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waits = [batcher.due_in() or 0.0 for batcher in self._gathered.values()] if self._queues else []
        if self._gathered and not self._running:
            waits.append(max(0.0, self._patient_until - time.monotonic()))
        if waits:
            self._timer = asyncio.get_running_loop().call_later(min(waits), self._start_due)

    def _start(self, calls: list[_Call], options: Hashable) -> None:
        began, left = time.monotonic(), len(calls)
        task = asyncio.create_task(self._run(calls, options))
        self._running.add(task)
        task.add_done_callback(lambda _: self._ended(task, calls, began))

        def gone(answered: asyncio.Future[Computed]) -> None:
            nonlocal left
            left -= answered.cancelled()
            if not left:
                task.cancel()

        for call in calls:
            call.answered.add_done_callback(gone)

    def _ended(self, task: asyncio.Task[None], calls: list[_Call], began: float) -> None:
        for call in calls:  # of a task that was cancelled
            call.answered.cancel()
        now = time.monotonic()
        self._running.discard(task)
        self._expected = len(calls) + sum(map(len, self._gathered.values()))
        self._patient_until = now + min(self._settings.max_delay_s, _PATIENCE * (now - began))
        self._start_due()

    async def _run(self, calls: list[_Call], options: Hashable) -> None:
        """Answer a batch of calls, together or, where that fails, each by itself."""
        if len(calls) > 1:
            try:
                await self._together(calls, options)
                return
            except Exception as error:
                log.warning("a batch of %d calls raised %s: each goes alone", len(calls), type(error).__name__)
        await asyncio.gather(*(self._alone(call, options) for call in calls if call.wanted))

    async def _together(self, calls: Sequence[_Call], options: Hashable) -> None:
        found = await self._computed([record for call in calls for record in call.records], options)
        at = 0
        for call in calls:
            own = found.answers[at : at + len(call.records)]
            at += len(own)
            if call.wanted:
                call.answered.set_result(found._replace(answers=own))

    async def _alone(self, call: _Call, options: Hashable) -> None:
        try:
            found = await self._computed(call.records, options)
        except Exception as error:
            if call.wanted:
                call.answered.set_exception(error)
        else:
            if call.wanted:
                call.answered.set_result(found)

    def _computed(self, records: list[Any], options: Hashable) -> Awaitable[Computed]:
        return computed(self._service, records, self._compute(records, options))
