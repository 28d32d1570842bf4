"""The queue's worker for a stage: pull -> batch -> handle -> publish -> ack.

The order is the guarantee. The output is stored in the next queue before the input is acked, so a worker
that dies at any moment leaves its messages to be delivered again; output ids are deterministic, so the
repetition is recognised. A message ends in exactly one of: acked with its output stored, acked with a
dead letter stored, or not acked and delivered again, `max_attempts` times at most.

Nothing stops a stage. A message that none can take goes through its batch with a refusal in place of an answer.
A batch that raises is tried again item by item, so that one bad item does not take its neighbours along.
Whatever else fails, the message is given back at once: heartbeats would hold it for ever.

A message may kill the process, with all that it holds. So one that was delivered twice before is handled with
nothing beside it, and a worker begins, and goes on after such a message, with one at a time, until one comes that is
not under suspicion. What waits for an answer that is ordered (AnswersPending) was handled and killed nothing: the
others go on beside it.

A batch waits `max_delay_s` for company only while another is handled, and goes when that one ends. What comes to
empty hands goes at once: the queue was empty behind it.

Back-pressure: a full next queue makes `publish` wait; the worker then holds what it has, heartbeats, and
fetches no more. It does the same where a stage raises OnHold, or answers items with it (no budget, no database, an
endpoint that asks for a pause), until it can continue; that is not an attempt, and the other items go on. Where it
cannot in this run, it drains and ends.

No dead letter is dead-lettered: what lies in their queue and is none, or cannot be recorded, is recorded as the
original of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace

from qrelay import wire
from qrelay.config import WorkerSettings
from qrelay.errors import BrokerDenied, InternalError, OnHold, Overloaded, Oversized, QrelayError, TransientError
from qrelay.holds import Hold
from qrelay.runtime import faults, telemetry
from qrelay.runtime.batcher import Batcher, BatchPolicy
from qrelay.runtime.broker import Broker, Message
from qrelay.runtime.dead_letters import (
    REPLAY_HEADER,
    dead_letter,
    letter_subject,
    message_id,
    query_of,
    replays,
    unreadable,
    without_original,
)
from qrelay.runtime.fitting import without_largest_text
from qrelay.runtime.reading import read
from qrelay.runtime.stage import Record, Stage, Work
from qrelay.runtime.stall import Stall
from qrelay.runtime.topology import Queue
from qrelay.runtime.trace import closed
from qrelay.runtime.translate import Fate, as_qrelay_error, fate
from qrelay.types import DeadLetter, TraceStep

log = logging.getLogger(__name__)

_IDLE_FETCH_S = 1.0
_PUBLISH_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)
_SUSPECT_FROM = 3
"""From this delivery on a message may be what ended the process before: it is handled alone."""
_HOLD_LINE_S = 600.0
"""A hold that goes on is logged again after so long."""


@dataclass(eq=False, slots=True)
class _Held:
    """A message in this worker's hands. `refusal`: why no stage sees it."""

    message: Message
    record: Record
    refusal: QrelayError | None = None
    done: bool = False


class StageWorker:
    """Runs one stage over one broker until stopped. See the module for the guarantee."""

    def __init__(
        self,
        stage: Stage,
        broker: Broker,
        settings: WorkerSettings,
        *,
        replica: str = "local",
        fingerprint: str = "",
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`clock` measures seconds; `now` gives UTC times."""
        self._stage = stage
        self._broker = broker
        self._settings = settings
        self._replica = replica
        self._fingerprint = fingerprint
        self._clock = clock
        self._now = now
        policy = BatchPolicy(settings.max_items, settings.max_cost, settings.max_bytes, settings.max_delay_s)
        self._batcher: Batcher[_Held] = Batcher(policy, clock)
        self._held: dict[_Held, None] = {}  # in the order of their delivery
        self._tasks: set[asyncio.Task[None]] = set()
        self._resting: set[asyncio.Task[Any] | None] = set()
        """Those whose messages were all handled as far as can be for now."""
        self._rests = asyncio.Event()
        self._wary = True
        """Whether the next message is fetched alone: the worker begins, or the last one was under suspicion."""
        self._stall = Stall(clock)
        self._stopping = asyncio.Event()
        self._stopped_at = 0.0
        self._drained: Counter[str] = Counter()
        """Since the stop: messages held then or taken after, and how many had each outcome."""
        self.on_hold: Hold | None = None
        """Why it waits, from the first batch that had to until one that had waited is handled."""
        self._hold_logged_at = 0.0
        self._denied: BrokerDenied | None = None
        self.gave_up = False
        """Whether the drain ended with batches still being handled; their threads may compute on."""

    def stop(self) -> None:
        """Fetch no more; `run` then finishes what is held within drain_s seconds from now and returns the rest."""
        if not self._stopping.is_set():
            self._stopped_at, self._drained["held"] = self._clock(), len(self._held)
            self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`, then drain. Raises BrokerDenied: the broker does not let this service do its work."""
        heartbeat = asyncio.create_task(self._heartbeat())
        try:
            while not self._stopping.is_set():
                await self._fetch_once()
                await self._dispatch()
        finally:
            await self._drain()
            heartbeat.cancel()

        if self._denied:
            raise self._denied

    def _give_up(self, error: BrokerDenied) -> None:
        """Stop, and end `run` with this error: no waiting helps."""
        self._denied = error
        self.stop()

    @property
    def name(self) -> str:
        """The stage's."""
        return self._stage.name

    @property
    def stalled(self) -> str:
        """Why this stage has neither fetched nor published for `stalled_after_s`; empty where it gets on."""
        return self._stall.lasts(self._settings.stalled_after_s)

    async def _fetch_once(self) -> None:
        due_in = self._batcher.due_in()
        wait_s = _IDLE_FETCH_S if due_in is None else min(due_in, _IDLE_FETCH_S)
        if not self._batcher.room or wait_s == 0:
            return
        try:
            room = 1 if self._wary else self._batcher.room
            messages = await self._broker.fetch(self._stage.source, room, wait_s)
        except BrokerDenied as error:
            self._give_up(error)
            return
        except Exception as error:
            self._stall.failed("cannot fetch", error)
            log.warning("cannot fetch", extra={"stage": self._stage.name, "error": str(error)})
            await asyncio.sleep(_IDLE_FETCH_S)
            return
        self._stall.ended()
        self._batcher.patient = True  # until all of them are decoded, full batches alone go
        for held in [self._hold(message) for message in messages]:
            self._wary = self._suspect(held.message)
            if self._wary:
                await self._clear()
            self._accept(held)
            await (self._clear() if self._wary else self._dispatch())
            # before the next is decoded: what waits stays within one batch's bytes
        self._batcher.patient = bool(self._tasks)

    def _suspect(self, message: Message) -> bool:
        """Whether it may be what ended the process before, and a stage is to see it again."""
        return _SUSPECT_FROM <= message.attempt <= self._settings.max_attempts

    def _accept(self, held: _Held) -> None:
        """Decode a message and have it wait for its batch, with its refusal where no stage can take it."""
        found = read(held.message, self._stage, self._settings.max_attempts)
        held.record, held.refusal = found.record, found.refusal
        if held.refusal and self._stage.source is Queue.DLQ:  # the ledger takes it as the original of a dead letter
            held.record, held.refusal = self._letter(held, held.refusal), None
        self._batcher.add(held, cost=found.cost, size=found.size)

    async def _dispatch(self) -> None:
        while self._batcher.ready() and await self._slot():
            self._start()

    def _start(self) -> None:
        if batch := self._batcher.take():
            task = asyncio.create_task(self._handle(batch))
            self._tasks.add(task)
            task.add_done_callback(self._batch_done)

    async def _clear(self) -> None:
        """Handle what waits, and wait until nothing is being handled, or the worker stops."""
        while self._batcher and await self._slot():
            self._start()
        stopping = asyncio.ensure_future(self._stopping.wait())
        while (busy := self._tasks - self._resting) and not self._stopping.is_set():
            self._rests.clear()
            rests = asyncio.ensure_future(self._rests.wait())
            await asyncio.wait({*busy, stopping, rests}, return_when=asyncio.FIRST_COMPLETED)
            rests.cancel()
        stopping.cancel()

    async def _slot(self) -> bool:
        """Waits for a place for one more batch. False: told to stop before there was one."""
        if len(self._tasks) >= self._settings.batches_in_flight:
            stopping = asyncio.ensure_future(self._stopping.wait())
            while len(self._tasks) >= self._settings.batches_in_flight and not stopping.done():
                await asyncio.wait({*self._tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
        return not self._stopping.is_set()

    def _batch_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks and not self._stopping.is_set():
            self._start()  # what waited for company
        if not task.cancelled() and (error := task.exception()):
            log.error("batch failed", exc_info=error)

    async def _handle(self, batch: Sequence[_Held]) -> None:
        arrived, waited = self._now(), False
        refused = [(held, held.refusal) for held in batch if held.refusal is not None]
        await self._settle_all(refused, arrived, 0.0)  # first: a neighbour may kill
        batch = [held for held in batch if held.refusal is None]
        while batch:
            started = self._clock()
            outcomes = await self._outcomes(batch)
            on_hold = {each: error for each, error in zip(batch, outcomes, strict=True) if isinstance(error, OnHold)}
            ready = [pair for pair in zip(batch, outcomes, strict=True) if pair[0] not in on_hold]
            compute_s = self._clock() - started
            if ready:
                self._measure(len(ready), compute_s)
            await self._settle_all(ready, arrived, compute_s)
            if waited and not on_hold:
                self._go_on()
            waited = bool(on_hold)
            if on_hold and not await self._rest(list(on_hold.values())):
                await self._settle_all(list(on_hold.items()), arrived, 0.0)
                return
            batch = list(on_hold)

    def _measure(self, items: int, compute_s: float) -> None:
        name = self._stage.name
        telemetry.BATCHES.labels(name).inc()
        telemetry.BATCH_ITEMS.labels(name).observe(items)
        telemetry.COMPUTE_SECONDS.labels(name).observe(compute_s)

    async def _settle_all(
        self, batch: Sequence[tuple[_Held, Record | QrelayError | None]], arrived: datetime, compute_s: float
    ) -> None:
        await asyncio.gather(
            *(
                self._settle(held, outcome, (arrived - held.message.published_at).total_seconds(), compute_s)
                for held, outcome in batch
            )
        )

    async def _outcomes(self, batch: Sequence[_Held]) -> list[Record | QrelayError | None]:
        """The stage's answer for each item; a batch that raises is tried again one by one."""
        works = [
            Work(held.record, held.message.attempt, held.message.attempt >= self._settings.max_attempts)
            for held in batch
        ]
        try:
            outcomes = list(await self._stage.handle(works))
            if len(outcomes) != len(works):
                raise InternalError(f"stage {self._stage.name} answered {len(outcomes)} of {len(works)} items")
            return [as_qrelay_error(each) if isinstance(each, BaseException) else each for each in outcomes]
        except OnHold as error:
            return [error] * len(batch)
        except BaseException as error:  # a library in Rust panics with something that is no Exception
            if _ends_us(error):
                raise
            if len(batch) == 1:
                return [as_qrelay_error(error)]
            log.warning("batch of %d failed, trying one by one", len(batch), extra={"error": type(error).__name__})
            return [(await self._outcomes([held]))[0] for held in batch]

    async def _rest(self, errors: Sequence[OnHold]) -> bool:
        """As `_wait_out`, for the longest of them."""
        task = asyncio.current_task()
        if task and all(each.handled for each in errors):
            self._resting.add(task)
            self._rests.set()
        try:
            return await self._wait_out(max(errors, key=_wait_s))
        finally:
            self._resting.discard(task)

    async def _wait_out(self, error: OnHold) -> bool:
        """Whether to try again; until then this batch is held. False: the worker stops before."""
        if error.retry_after_s is None:
            log.warning("stopping: %s", error, extra={"stage": self._stage.name})
            self.stop()
        else:
            self._show_hold(error, error.retry_after_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(error.retry_after_s):
                await self._stopping.wait()
        return not self._stopping.is_set()

    def _show_hold(self, error: OnHold, seconds: float) -> None:
        """In the log when it begins, changes or has gone on for long; in GetInfo and the metrics while it lasts."""
        hold, before = Hold.lasting(seconds, str(error), error.reason, self._now()), self.on_hold
        self.on_hold = before.going_on(hold) if before else hold
        telemetry.ON_HOLD.labels(self._stage.name).set(hold.until.timestamp())
        new = before is None or before.reason != error.reason
        if new or self._clock() - self._hold_logged_at >= _HOLD_LINE_S:
            log.warning("pausing for %.0f s, %s", seconds, self.on_hold, extra={"stage": self._stage.name})
            self._hold_logged_at = self._clock()

    def _go_on(self) -> None:
        if self.on_hold is not None:
            log.info("going on after a pause, %s", self.on_hold, extra={"stage": self._stage.name})
            self.on_hold = None
            telemetry.ON_HOLD.labels(self._stage.name).set(0.0)

    async def _settle(
        self, held: _Held, outcome: Record | QrelayError | None, queue_s: float, compute_s: float
    ) -> None:
        telemetry.QUEUE_SECONDS.labels(self._stage.name).observe(max(0.0, queue_s))
        try:
            context = telemetry.remote_context(held.message.headers)
            with telemetry.span(f"{self._stage.name} process", context, trace.SpanKind.CONSUMER) as span:
                span.set_attribute("qrelay.query_id", query_of(held.record).query_id)
                span.set_attribute("qrelay.attempt", held.message.attempt)
                if isinstance(outcome, QrelayError):
                    span.set_status(trace.StatusCode.ERROR, outcome.reason)
                    await self._fail(held, outcome)
                    return
                step = TraceStep(self._stage.name, self._replica, self._fingerprint, queue_s, compute_s)
                await self._succeed(held, outcome, step)
        except Exception as error:
            await self._retry(held, as_qrelay_error(error))

    async def _succeed(self, held: _Held, outcome: Record | None, step: TraceStep) -> None:
        if outcome is not None and self._stage.target is not None:
            try:
                await self._pass_on(held, outcome, step, self._stage.target)
            except Exception as error:
                await self._fail(held, as_qrelay_error(error))
                return
            faults.point("worker.publish.after")
        await self._finish(held, "ok")

    async def _pass_on(self, held: _Held, outcome: Record, step: TraceStep, target: Queue) -> None:
        if not isinstance(outcome, target.carries):
            raise InternalError(f"stage {self._stage.name} answered with a {type(outcome).__name__}")
        query, replay = query_of(outcome), replays(held.message.headers)
        msg_id = message_id(self._stage.name, query, replay)
        await self._publish(target.subject(query.collection), closed(outcome, step), msg_id, replay)

    async def _publish(self, subject: str, record: Record, msg_id: str, replay: str) -> None:
        """Publish until stored; a set above the message limit loses its largest texts until it fits. Only a message
        that can never be stored, or a drain, ends it otherwise."""
        dropped = 0
        while True:
            try:
                await self._publish_whole(subject, record, msg_id, replay)
                break
            except Oversized:
                smaller = without_largest_text(record)
                if smaller is None:
                    raise
                record, dropped = smaller, dropped + 1
        if dropped:
            telemetry.TEXTS_DROPPED.labels(self._stage.name).inc(dropped)
            log.warning(
                "above the message limit: sent without its %d largest texts; raise nats.max_message_bytes and the"
                " server's max_payload to keep them", dropped,
                extra={"stage": self._stage.name, "query_id": query_of(record).query_id},
            )  # fmt: skip

    async def _publish_whole(self, subject: str, record: Record, msg_id: str, replay: str) -> None:
        payload, headers = wire.encode(record)
        if replay:
            headers[REPLAY_HEADER] = replay
        telemetry.inject_context(headers)
        tries = 0
        while True:
            try:
                await self._broker.publish(subject, payload, headers, msg_id)
                self._stall.ended()
                return
            except BrokerDenied as error:
                self._give_up(error)
                raise
            except TransientError as error:
                if self._stopping.is_set() and tries > len(_PUBLISH_RETRY_S):
                    raise
                if not isinstance(error, Overloaded):  # back-pressure is no fault of this stage
                    self._stall.failed("cannot publish", error)
                delay_s = _PUBLISH_RETRY_S[min(tries, len(_PUBLISH_RETRY_S) - 1)]
                tries += 1
                if tries % 10 == 1:
                    log.warning("waiting to publish", extra={"subject": subject, "error": str(error)})
                await asyncio.sleep(delay_s)

    async def _fail(self, held: _Held, error: QrelayError) -> None:
        if isinstance(error, OnHold) and self._stopping.is_set():
            await self._release(held, held.message.retry(0), "returned")
            return
        draining = self._stopping.is_set() and isinstance(error, TransientError | BrokerDenied)
        last = held.message.attempt >= self._settings.max_attempts
        buried = fate(error) is Fate.DEAD_LETTER or (last and not draining)
        if buried and self._stage.source is not Queue.DLQ:
            await self._bury(held, error)
        else:
            await self._retry(held, error)

    async def _retry(self, held: _Held, error: QrelayError) -> None:
        attempt, delays = held.message.attempt, self._settings.retry_delays_s
        wanted = error.retry_after_s if isinstance(error, TransientError) else None
        delay_s = max(wanted or 0.0, delays[min(attempt - 1, len(delays) - 1)] if delays else 0.0)
        log.warning(
            "will try again",
            extra={"stage": self._stage.name, "attempt": attempt, "delay_s": delay_s, "reason": error.reason,
                   "query_id": query_of(held.record).query_id, "error": str(error)},
        )  # fmt: skip
        await self._release(held, held.message.retry(delay_s), "retried")

    async def _bury(self, held: _Held, error: QrelayError) -> None:
        """Store the dead letter, then ack the original: never the other way round."""
        letter = self._letter(held, error)
        try:
            await self._publish(letter_subject(letter), letter, letter.dead_letter_id, "")
        except Oversized:
            await self._publish(letter_subject(letter), without_original(letter), letter.dead_letter_id, "")
        await self._finish(held, "dead_lettered")

    def _letter(self, held: _Held, error: QrelayError) -> DeadLetter:
        letter = dead_letter(self._stage.name, held.message, query_of(held.record), error, self._now())
        log.error(
            "dead letter",
            extra={"stage": letter.stage, "query_id": letter.query_id, "reason": letter.reason,
                   "dead_letter_id": letter.dead_letter_id, "error": letter.detail},
        )  # fmt: skip
        return letter

    async def _finish(self, held: _Held, outcome: str) -> None:
        faults.point("worker.ack.before")
        await self._release(held, held.message.ack(), outcome)

    async def _release(self, held: _Held, answer: Awaitable[None], outcome: str) -> None:
        """Tell the broker; where it does not hear, the message comes back and the repetition is harmless."""
        try:
            await answer
        except Exception as error:
            outcome = "unconfirmed"
            log.warning("answer not confirmed, the message may come back", extra={"error": str(error)})
        finally:
            held.done = True
            self._held.pop(held, None)
            telemetry.HELD_ITEMS.labels(self._stage.name).set(len(self._held))
        telemetry.ITEMS.labels(self._stage.name, outcome).inc()
        if self._stopping.is_set():
            self._drained[outcome] += 1

    def _hold(self, message: Message) -> _Held:
        held = _Held(message, unreadable(message))
        self._held[held] = None
        if self._stopping.is_set():
            self._drained["held"] += 1
        telemetry.HELD_ITEMS.labels(self._stage.name).set(len(self._held))
        return held

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            for held in list(self._held):
                try:
                    await held.message.heartbeat()
                except Exception as error:
                    log.warning("heartbeat failed", extra={"error": str(error)})
                    break

    async def _drain(self) -> None:
        """Finish what is being handled; return at once what waits, and at the limit what is left."""
        self.stop()  # where the loop ended otherwise
        waiting = []
        while batch := self._batcher.take():
            waiting += batch
        for held in waiting:
            await self._release(held, held.message.retry(0), "returned")
        if self._tasks:
            left_s = self._stopped_at + self._settings.drain_s - self._clock()
            _done, late = await asyncio.wait(self._tasks, timeout=max(0.0, left_s))
            self.gave_up = bool(late)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for held in list(self._held):
            await self._release(held, held.message.retry(0), "returned")
        self._report_drain()

    def _report_drain(self) -> None:
        """What became of messages in flight. An unconfirmed one may have ended; if not, it comes back by itself."""
        count = self._drained
        log.info(
            "drained",
            extra={"stage": self._stage.name, "held": count["held"], "finished": count["ok"] + count["dead_lettered"],
                   "returned": count["returned"] + count["retried"], "unconfirmed": count["unconfirmed"],
                   "seconds": round(self._clock() - self._stopped_at, 3)},
        )  # fmt: skip


def _ends_us(error: BaseException) -> bool:
    """Whether it was raised to end this task or process, and not by a stage over an item."""
    task = asyncio.current_task()
    cancelled = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
    return cancelled or isinstance(error, KeyboardInterrupt)


def _wait_s(error: OnHold) -> float:
    return float("inf") if error.retry_after_s is None else error.retry_after_s
