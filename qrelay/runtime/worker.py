"""The queue's worker for a stage: pull -> batch -> handle -> publish -> ack.

The order is the guarantee. The output is stored in the next queue before the input is acked, so a worker
that dies at any moment leaves its messages to be delivered again; output ids are deterministic, so the
repetition is recognised. A message ends in exactly one of: acked with its output stored, acked with a
dead letter stored, or not acked and delivered again.

A batch that raises is tried again item by item, so that one bad item does not take its neighbours along.
Back-pressure: a full next queue makes `publish` wait; the worker then holds what it has, heartbeats, and
fetches no more. It does the same where a stage raises OnHold (no budget, no database), until it can continue; that is
not an attempt. Where it cannot in this run, it drains and ends.

A dead letter that cannot be recorded is never dead-lettered itself: it stays in its queue.
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

from opentelemetry import trace
from opentelemetry.context import Context

from qrelay import wire
from qrelay.config import WorkerSettings
from qrelay.errors import InternalError, MalformedInput, OnHold, Oversized, QrelayError, TransientError
from qrelay.runtime import faults, telemetry
from qrelay.runtime.batcher import Batcher, BatchPolicy
from qrelay.runtime.broker import Broker, Message
from qrelay.runtime.dead_letters import REPLAY_HEADER, dead_letter, exhausted, message_id, query_of, unreadable
from qrelay.runtime.fitting import without_largest_text
from qrelay.runtime.stage import Record, Stage, Work
from qrelay.runtime.topology import Queue
from qrelay.runtime.trace import closed
from qrelay.runtime.translate import Fate, as_qrelay_error, fate
from qrelay.types import TraceStep

log = logging.getLogger(__name__)

_IDLE_FETCH_S = 1.0
_PUBLISH_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(eq=False, slots=True)
class _Held:
    """A message in this worker's hands."""

    message: Message
    record: Record
    context: Context
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
    ) -> None:
        self._stage = stage
        self._broker = broker
        self._settings = settings
        self._replica = replica
        self._fingerprint = fingerprint
        self._clock = clock
        policy = BatchPolicy(settings.max_items, settings.max_cost, settings.max_bytes, settings.max_delay_s)
        self._batcher: Batcher[_Held] = Batcher(policy, clock)
        self._slots = asyncio.Semaphore(settings.batches_in_flight)
        self._held: set[_Held] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._stopped_at = 0.0
        self._drained: Counter[str] = Counter()
        """Since the stop: messages held then or taken after, and how many had each outcome."""
        self.gave_up = False
        """Whether the drain ended with batches still being handled; their threads may compute on."""

    def stop(self) -> None:
        """Fetch no more; `run` then finishes what is held within drain_s seconds from now and returns the rest."""
        if not self._stopping.is_set():
            self._stopped_at, self._drained["held"] = self._clock(), len(self._held)
            self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`, then drain."""
        heartbeat = asyncio.create_task(self._heartbeat())
        try:
            while not self._stopping.is_set():
                await self._fetch_once()
                await self._dispatch()
        finally:
            await self._drain()
            heartbeat.cancel()

    async def _fetch_once(self) -> None:
        due_in = self._batcher.due_in()
        wait_s = _IDLE_FETCH_S if due_in is None else due_in
        if not self._batcher.room or wait_s == 0:
            return
        try:
            messages = await self._broker.fetch(self._stage.source, self._batcher.room, wait_s)
        except TransientError as error:
            log.warning("cannot fetch", extra={"stage": self._stage.name, "error": str(error)})
            await asyncio.sleep(_IDLE_FETCH_S)
            return
        for message in messages:
            await self._accept(message)

    async def _accept(self, message: Message) -> None:
        context = telemetry.remote_context(message.headers)
        try:
            record = wire.decode(message.payload, message.headers)
        except MalformedInput as error:
            held = _Held(message, unreadable(message), context)
            self._hold(held)
            await self._bury(held, error)
            return
        held = _Held(message, record, context)
        self._hold(held)
        if message.attempt > self._settings.max_attempts and self._stage.source is not Queue.DLQ:
            await self._bury(held, exhausted(message.attempt - 1))
            return
        self._batcher.add(held, cost=self._stage.cost(record), size=len(message.payload))

    async def _dispatch(self) -> None:
        while self._batcher.ready() and await self._slot():
            task = asyncio.create_task(self._handle(self._batcher.take()))
            self._tasks.add(task)
            task.add_done_callback(self._batch_done)

    async def _slot(self) -> bool:
        """Takes a place for one more batch. False: told to stop before there was one."""
        if self._slots.locked():
            acquiring = asyncio.ensure_future(self._slots.acquire())
            stopping = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait({acquiring, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not acquiring.done():
                acquiring.cancel()
                return False
        else:
            await self._slots.acquire()
        if self._stopping.is_set():
            self._slots.release()
            return False
        return True

    def _batch_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()):
            log.error("batch left unsettled, its messages will be delivered again", exc_info=error)

    async def _handle(self, batch: Sequence[_Held]) -> None:
        started = self._clock()
        arrived = datetime.now(UTC)
        outcomes = await self._outcomes(batch)
        compute_s = self._clock() - started
        name = self._stage.name
        telemetry.BATCHES.labels(name).inc()
        telemetry.BATCH_ITEMS.labels(name).observe(len(batch))
        telemetry.COMPUTE_SECONDS.labels(name).observe(compute_s)
        settled = await asyncio.gather(
            *(
                self._settle(held, outcome, (arrived - held.message.published_at).total_seconds(), compute_s)
                for held, outcome in zip(batch, outcomes, strict=True)
            ),
            return_exceptions=True,
        )
        for error in settled:
            if error is not None:
                log.error("message left unsettled, it will be delivered again", exc_info=error)

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
            return outcomes
        except OnHold as error:
            return await self._outcomes(batch) if await self._wait_out(error) else [error] * len(batch)
        except Exception as error:
            if len(batch) == 1:
                return [as_qrelay_error(error)]
            log.warning("batch of %d failed, trying one by one", len(batch), extra={"error": str(error)})
            return [(await self._outcomes([held]))[0] for held in batch]

    async def _wait_out(self, error: OnHold) -> bool:
        """Whether to try again; until then this batch is held. False: the worker stops before."""
        if error.retry_after_s is None:
            log.warning("stopping: %s", error, extra={"stage": self._stage.name})
            self.stop()
        else:
            log.warning("pausing for %.0f s: %s", error.retry_after_s, error, extra={"stage": self._stage.name})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(error.retry_after_s):
                await self._stopping.wait()
        return not self._stopping.is_set()

    async def _settle(
        self, held: _Held, outcome: Record | QrelayError | None, queue_s: float, compute_s: float
    ) -> None:
        telemetry.QUEUE_SECONDS.labels(self._stage.name).observe(max(0.0, queue_s))
        with telemetry.tracer().start_as_current_span(
            f"{self._stage.name} process", context=held.context, kind=trace.SpanKind.CONSUMER
        ) as span:
            span.set_attribute("qrelay.query_id", query_of(held.record).query_id)
            span.set_attribute("qrelay.attempt", held.message.attempt)
            if isinstance(outcome, QrelayError):
                span.set_status(trace.StatusCode.ERROR, outcome.reason)
                await self._fail(held, outcome)
                return
            step = TraceStep(self._stage.name, self._replica, self._fingerprint, queue_s, compute_s)
            await self._succeed(held, outcome, step)

    async def _succeed(self, held: _Held, outcome: Record | None, step: TraceStep) -> None:
        if outcome is not None and self._stage.target is not None:
            query = query_of(outcome)
            replay = held.message.headers.get(REPLAY_HEADER, "")
            subject = self._stage.target.subject(query.collection)
            try:
                await self._publish(
                    subject, closed(outcome, step), message_id(self._stage.name, query, replay), replay
                )
            except QrelayError as error:
                await self._fail(held, error)
                return
            faults.point("worker.publish.after")
        await self._finish(held, "ok")

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
                return
            except TransientError as error:
                if self._stopping.is_set() and tries > len(_PUBLISH_RETRY_S):
                    raise
                delay_s = _PUBLISH_RETRY_S[min(tries, len(_PUBLISH_RETRY_S) - 1)]
                tries += 1
                if tries % 10 == 1:
                    log.warning("waiting to publish", extra={"subject": subject, "error": str(error)})
                await asyncio.sleep(delay_s)

    async def _fail(self, held: _Held, error: QrelayError) -> None:
        attempt = held.message.attempt
        if isinstance(error, OnHold) and self._stopping.is_set():
            await self._release(held, held.message.retry(0), "returned")
            return
        draining = self._stopping.is_set() and isinstance(error, TransientError)
        last = attempt >= self._settings.max_attempts and self._stage.source is not Queue.DLQ
        if fate(error) is Fate.DEAD_LETTER or (last and not draining):
            await self._bury(held, error)
            return
        delays = self._settings.retry_delays_s
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
        query = query_of(held.record)
        letter = dead_letter(self._stage.name, held.message, query, error)
        log.error(
            "dead letter",
            extra={"stage": letter.stage, "query_id": letter.query_id, "reason": letter.reason,
                   "dead_letter_id": letter.dead_letter_id, "error": letter.detail},
        )  # fmt: skip
        subject = Queue.DLQ.subject(query.collection or "unreadable")
        await self._publish(subject, letter, letter.dead_letter_id, "")
        await self._finish(held, "dead_lettered")

    async def _finish(self, held: _Held, outcome: str) -> None:
        faults.point("worker.ack.before")
        await self._release(held, held.message.ack(), outcome)

    async def _release(self, held: _Held, answer: Awaitable[None], outcome: str) -> None:
        """Tell the broker; where it does not hear, the message comes back and the repetition is harmless."""
        try:
            await answer
        except TransientError as error:
            outcome = "unconfirmed"
            log.warning("answer not confirmed, the message may come back", extra={"error": str(error)})
        finally:
            held.done = True
            self._held.discard(held)
            telemetry.HELD_ITEMS.labels(self._stage.name).set(len(self._held))
        telemetry.ITEMS.labels(self._stage.name, outcome).inc()
        if self._stopping.is_set():
            self._drained[outcome] += 1

    def _hold(self, held: _Held) -> None:
        self._held.add(held)
        if self._stopping.is_set():
            self._drained["held"] += 1
        telemetry.HELD_ITEMS.labels(self._stage.name).set(len(self._held))

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            for held in list(self._held):
                try:
                    await held.message.heartbeat()
                except TransientError as error:
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
