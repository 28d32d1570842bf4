"""An in-memory broker for tests: JetStream's behaviour in one process, with faults on demand.

It has what pipeline tests need from JetStream: work queues with lanes that are read in turn, unacked messages that
return after `ack_wait_s` without a heartbeat, deliveries counted from 1, deduplication by message id for a while, a
byte limit that refuses. `Faults` injects what goes wrong in production: lost acknowledgements, duplicate deliveries,
reordering, refused publishes. Every clock is the event loop's, so a loop with simulated time simulates these too.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
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


@dataclass(slots=True, eq=False)
class _Stored:
    number: int
    subject: str
    payload: bytes
    headers: Mapping[str, str]
    published_at: datetime
    deliveries: int = 0
    due: float = math.inf
    """While it is held: when it is delivered again, by the event loop's clock."""
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
        self._broker.forget(self._queue, self._stored)

    async def retry(self, delay_s: float) -> None:
        """Return the message after `delay_s` seconds."""
        self._broker.hold(self._queue, self._stored, delay_s)

    async def heartbeat(self) -> None:
        """Restart the ack_wait clock."""
        self._broker.hold(self._queue, self._stored)


class MemoryBroker:
    """See the module. `redeliver_held()` plays the ack_wait that ran out after a crash, at once."""

    def __init__(
        self,
        *,
        max_message_bytes: int = 1024**2,
        max_stream_bytes: int = 1024**3,
        ack_wait_s: float = math.inf,
        duplicate_window_s: float = 600.0,
        faults: Faults | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`ack_wait_s`: after so many seconds without ack or heartbeat a held message is delivered again; without it
        only `redeliver_held` does that."""
        self.faults = faults or Faults()
        self._now = now
        self._max_message_bytes = max_message_bytes
        self._max_stream_bytes = max_stream_bytes
        self._ack_wait_s = ack_wait_s
        self._duplicate_window_s = duplicate_window_s
        self._count = 0
        self._lanes: dict[Queue, dict[str, deque[_Stored]]] = {queue: {} for queue in Queue}
        """Those that had messages, by consumer; the next to give one comes first."""
        self._held: dict[Queue, dict[int, _Stored]] = {queue: {} for queue in Queue}
        self._seen: dict[tuple[Queue, str], float] = {}
        self._arrived = {queue: asyncio.Event() for queue in Queue}

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str], msg_id: str) -> None:
        """Store the message once per `msg_id`."""
        admit(subject, len(payload), self._max_message_bytes)
        self.store(subject, payload, headers, msg_id)
        if self.faults.strikes(self.faults.publish_unconfirmed):
            raise BackendTimeout("publish not confirmed (injected)")

    def store(self, subject: str, payload: bytes, headers: Mapping[str, str], msg_id: str) -> None:
        """What the server does, whoever publishes: a stream takes any token for a collection."""
        queue = _stream(subject)
        if self.faults.strikes(self.faults.publish_refused):
            raise BackendUnavailable("publish refused (injected)")
        now = asyncio.get_running_loop().time()
        if now - self._seen.get((queue, msg_id), -math.inf) > self._duplicate_window_s:
            if self._bytes(queue) + len(payload) > self._max_stream_bytes:
                raise Overloaded(f"stream {queue.stream} is full ({self._max_stream_bytes} bytes)")
            self._seen[queue, msg_id] = now
            self._count += 1
            self._enqueue(queue, _Stored(self._count, subject, payload, dict(headers), self._now()))

    async def fetch(self, queue: Queue, max_items: int, timeout_s: float) -> Sequence[MemoryMessage]:
        """What is queued now, else the first to come within the timeout, else none."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout_s
        while not (messages := self._take(queue, max_items)) and loop.time() < give_up:
            self._arrived[queue].clear()
            due = min([stored.due for stored in self._held[queue].values()], default=math.inf)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(give_up, due)):
                    await self._arrived[queue].wait()
        return messages

    def _take(self, queue: Queue, max_items: int) -> list[MemoryMessage]:
        now = asyncio.get_running_loop().time()
        for late in [stored for stored in self._held[queue].values() if stored.due <= now]:
            self._return(queue, late)
        messages = list[MemoryMessage]()
        while len(messages) < max_items and (stored := self._next(queue)):
            self._held[queue][stored.number] = stored
            stored.due = now + self._ack_wait_s
            messages.append(MemoryMessage(self, queue, stored))
            if self.faults.strikes(self.faults.duplicate_delivery):
                messages.append(MemoryMessage(self, queue, stored))
        return messages

    def _next(self, queue: Queue) -> _Stored | None:
        """The next message, of the lane whose turn it is."""
        lanes = self._lanes[queue]
        for consumer in list(lanes):
            lanes[consumer] = lane = lanes.pop(consumer)
            while lane:
                if not (stored := lane.popleft()).done:
                    return stored
        return None

    async def stats(self) -> Sequence[QueueStats]:
        """Every queue's load."""
        return [
            QueueStats(
                queue,
                pending=sum(not message.done for message in self._waiting(queue)),
                held=len(self._held[queue]),
                redelivered=sum(message.deliveries > 1 for message in self._held[queue].values()),
                bytes=self._bytes(queue),
            )
            for queue in Queue
        ]

    def _bytes(self, queue: Queue) -> int:
        return sum(len(message.payload) for message in [*self._waiting(queue), *self._held[queue].values()])

    def _waiting(self, queue: Queue) -> Iterator[_Stored]:
        return (message for lane in self._lanes[queue].values() for message in lane)

    async def close(self) -> None:
        """Nothing to do."""

    def redeliver_held(self, queue: Queue) -> None:
        """Put every held message back, as if its worker had died and ack_wait had run out."""
        for stored in [*self._held[queue].values()]:
            self._return(queue, stored)

    def forget(self, queue: Queue, stored: _Stored) -> None:
        """The message is done."""
        stored.done = True
        self._held[queue].pop(stored.number, None)

    def hold(self, queue: Queue, stored: _Stored, seconds: float | None = None) -> None:
        """A message that is held stays so for so many more seconds, by default `ack_wait_s`; then it comes again."""
        if stored.number not in self._held[queue]:
            return
        stored.due = asyncio.get_running_loop().time() + (self._ack_wait_s if seconds is None else seconds)
        if seconds is not None:
            self._arrived[queue].set()  # who waits for a message learns of this moment

    def _return(self, queue: Queue, stored: _Stored) -> None:
        del self._held[queue][stored.number]
        self._enqueue(queue, stored)

    def _enqueue(self, queue: Queue, stored: _Stored) -> None:
        lane = next(lane.consumer for lane in queue.lanes if lane.takes(stored.subject))
        waiting = self._lanes[queue].setdefault(lane, deque())
        waiting.append(stored)
        if len(waiting) > 1 and self.faults.strikes(self.faults.reorder):
            waiting.rotate(1)
        self._arrived[queue].set()


def _stream(subject: str) -> Queue:
    """The queue whose stream takes a subject. Raises BackendUnavailable: none does."""
    found = next((queue for queue in Queue if queue.takes(subject)), None)
    if found is None or any(map(str.isspace, subject)):
        raise BackendUnavailable(f"publish to {subject[:80]!r}: no stream has this subject")
    return found
