"""An in-memory broker for tests: JetStream's behaviour in one process, with faults on demand.

It has what pipeline tests need from JetStream: work queues, unacked messages that return,
deliveries counted from 1, deduplication by message id, a byte limit that refuses. `Faults` injects what
goes wrong in production: lost acknowledgements, duplicate deliveries, reordering, refused publishes.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from qrelay.errors import BackendTimeout, BackendUnavailable, Overloaded
from qrelay.runtime.broker import admit
from qrelay.runtime.topology import Queue, QueueStats


@dataclass(slots=True)
class Faults:
    """Probabilities (0 to 1) of each accident at each operation, drawn from a seeded generator."""

    publish_unconfirmed: float = 0.0
    """The message is stored but its acknowledgement is lost."""
    publish_refused: float = 0.0
    """The message is not stored."""
    ack_lost: float = 0.0
    """The ack does not arrive: the message will be delivered again."""
    duplicate_delivery: float = 0.0
    """A message is delivered twice at once."""
    reorder: float = 0.0
    """A message goes behind those that came after it."""
    seed: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def strikes(self, probability: float) -> bool:
        """Whether this accident happens now."""
        return probability > 0 and self._random.random() < probability


@dataclass(slots=True)
class _Stored:
    subject: str
    payload: bytes
    headers: Mapping[str, str]
    published_at: datetime
    deliveries: int = 0
    done: bool = False


class MemoryMessage:
    """One delivery of a stored message."""

    def __init__(self, broker: MemoryBroker, queue: Queue, stored: _Stored) -> None:
        self._broker, self._queue, self._stored = broker, queue, stored
        stored.deliveries += 1
        self.attempt = stored.deliveries
        self.subject = stored.subject
        self.payload = stored.payload
        self.headers = stored.headers
        self.published_at = stored.published_at

    async def ack(self) -> None:
        """Remove the message, unless the fault "ack_lost" strikes."""
        if self._broker.faults.strikes(self._broker.faults.ack_lost):
            raise BackendTimeout("the ack was not confirmed (injected)")
        self._stored.done = True
        self._broker.forget(self._queue, self._stored)

    async def retry(self, delay_s: float) -> None:
        """Return the message after `delay_s` seconds."""
        self._broker.give_back(self._queue, self._stored, delay_s)

    async def heartbeat(self) -> None:
        """Nothing to do: in memory a held message stays held until `redeliver_held`."""


class MemoryBroker:
    """See the module. `redeliver_held()` plays the ack_wait that ran out after a crash."""

    def __init__(
        self,
        *,
        max_message_bytes: int = 1024**2,
        max_stream_bytes: int = 1024**3,
        faults: Faults | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.faults = faults or Faults()
        self._now = now
        self._max_message_bytes = max_message_bytes
        self._max_stream_bytes = max_stream_bytes
        self._queues: dict[Queue, deque[_Stored]] = {queue: deque() for queue in Queue}
        self._held: dict[Queue, list[_Stored]] = {queue: [] for queue in Queue}
        self._seen: set[tuple[Queue, str]] = set()
        self._arrived = asyncio.Condition()
        self._timers: set[asyncio.TimerHandle] = set()
        self._notices: set[asyncio.Future[None]] = set()

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str], msg_id: str) -> None:
        """Store the message once per `msg_id`."""
        queue = admit(subject, len(payload), self._max_message_bytes)
        if self.faults.strikes(self.faults.publish_refused):
            raise BackendUnavailable("publish refused (injected)")
        if (queue, msg_id) not in self._seen:
            stored = sum(len(message.payload) for message in self._queues[queue])
            if stored + len(payload) > self._max_stream_bytes:
                raise Overloaded(f"stream {queue.stream} is full ({self._max_stream_bytes} bytes)")
            self._seen.add((queue, msg_id))
            self._enqueue(queue, _Stored(subject, payload, dict(headers), self._now()))
            async with self._arrived:
                self._arrived.notify_all()
        if self.faults.strikes(self.faults.publish_unconfirmed):
            raise BackendTimeout("publish not confirmed (injected)")

    async def fetch(self, queue: Queue, max_items: int, timeout_s: float) -> Sequence[MemoryMessage]:
        """What is queued now, else the first to come within the timeout, else none."""
        waiting = self._queues[queue]
        if not waiting:
            try:
                async with asyncio.timeout(timeout_s), self._arrived:
                    await self._arrived.wait_for(lambda: bool(waiting))
            except TimeoutError:
                return []
        messages: list[MemoryMessage] = []
        while waiting and len(messages) < max_items:
            stored = waiting.popleft()
            if stored.done:
                continue
            self._held[queue].append(stored)
            messages.append(MemoryMessage(self, queue, stored))
            if self.faults.strikes(self.faults.duplicate_delivery):
                messages.append(MemoryMessage(self, queue, stored))
        return messages

    async def stats(self) -> Sequence[QueueStats]:
        """Every queue's load."""
        return [
            QueueStats(
                queue,
                pending=len(self._queues[queue]),
                held=len(self._held[queue]),
                redelivered=sum(message.deliveries > 1 for message in self._held[queue]),
                bytes=sum(len(message.payload) for message in [*self._queues[queue], *self._held[queue]]),
            )
            for queue in Queue
        ]

    async def close(self) -> None:
        """Stop the timers of delayed messages."""
        for timer in self._timers:
            timer.cancel()

    def redeliver_held(self, queue: Queue) -> None:
        """Put every held message back, as if its worker had died and ack_wait had run out."""
        held, self._held[queue] = self._held[queue], []
        for stored in held:
            self._enqueue(queue, stored)

    def forget(self, queue: Queue, stored: _Stored) -> None:
        """The message is done."""
        self._held[queue] = [message for message in self._held[queue] if message is not stored]

    def give_back(self, queue: Queue, stored: _Stored, delay_s: float) -> None:
        """Queue the message again after a delay."""
        self.forget(queue, stored)
        loop = asyncio.get_running_loop()
        self._timers.add(loop.call_later(delay_s, self._return, queue, stored))

    def _return(self, queue: Queue, stored: _Stored) -> None:
        self._enqueue(queue, stored)
        notice = asyncio.ensure_future(self._notify())
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)

    async def _notify(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()

    def _enqueue(self, queue: Queue, stored: _Stored) -> None:
        waiting = self._queues[queue]
        waiting.append(stored)
        if len(waiting) > 1 and self.faults.strikes(self.faults.reorder):
            waiting.rotate(1)
