"""The broker port on NATS JetStream. The streams, their settings and reasons: `topology.py`.

Connecting retries for ever and never fails the process: a service is ready when its model is loaded, and
works on the queue when NATS answers. `declaring.py` declares the streams, `natserrors.py` translates foreign errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo

from qrelay.config import NatsSettings
from qrelay.errors import BackendUnavailable, BrokerDenied, ConfigError, QrelayError, TransientError
from qrelay.identity import require_collection
from qrelay.progress import step
from qrelay.runtime import declaring
from qrelay.runtime.broker import admit
from qrelay.runtime.lanes import Gone, LaneReader
from qrelay.runtime.natsaccounts import ack_subject, next_subject
from qrelay.runtime.natsclient import QueueClient, connected, options_of
from qrelay.runtime.natserrors import UNDECLARED, translated
from qrelay.runtime.topology import Queue, QueueStats, queue_of
from qrelay.settings.secrets import masked

log = logging.getLogger(__name__)

_ACK_TIMEOUT_S = 5.0
_LOOK_S = 1.0


class JetStreamMessage:
    """One delivery from JetStream."""

    def __init__(self, message: Msg) -> None:
        self._message = message
        self.subject = message.subject
        self.payload = message.data
        self.headers: Mapping[str, str] = message.headers or {}
        self.attempt = message.metadata.num_delivered
        self.published_at: datetime = message.metadata.timestamp.astimezone(UTC)

    async def ack(self) -> None:
        """Double-ack: returns when the server confirms."""
        with translated("ack"):
            await self._message.ack_sync(timeout=_ACK_TIMEOUT_S)

    async def retry(self, delay_s: float) -> None:
        """nak with a delay in seconds."""
        with translated("retry"):
            await self._message.nak(delay=delay_s)

    async def heartbeat(self) -> None:
        """in_progress: restart the ack_wait clock."""
        with translated("heartbeat"):
            await self._message.in_progress()


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as it lies in a stream; nobody's delivery. `sequence` is its place, from 1."""

    sequence: int
    subject: str
    payload: bytes
    headers: Mapping[str, str]


class JetStreamBroker:
    """A connection that finds or declares the streams once and then publishes and fetches.

    Use `await JetStreamBroker.connect(settings)`, or as an async context manager. A service owns the streams: it
    declares them with its settings, again where they are gone. Whoever else connects waits until they are there.
    """

    def __init__(self, client: QueueClient, settings: NatsSettings, *, owner: bool = False) -> None:
        self._client = client
        self._settings = settings
        self._owner = owner
        self._js: JetStreamContext = client.jetstream(timeout=settings.publish_timeout_s)
        self._readers: dict[Queue, LaneReader] = {}

    @classmethod
    async def connect(
        cls,
        settings: NatsSettings,
        *,
        name: str,
        attempts: int | None = None,
        owner: bool = False,
        failed: Callable[[Exception], None] = lambda _: None,
    ) -> Self:
        """Connect, and declare the streams or find them. attempts: at connecting, then at the queues; None: for ever.
        `owner`: see the class; `failed` hears why a server that answers has no queues yet. A wait for them is a step
        of its own.

        Raises:
            ConfigError: the server allows less than the settings need, or the address or credentials are none.
            BrokerDenied: the server does not let this user in, or not do this.
            BackendUnavailable: no server answers, or the queues are not declared.
            BackendTimeout: the server answers, and JetStream does not.
        """
        heard: list[Exception] = []
        options = options_of(settings, name)
        client = QueueClient()
        try:
            await connected(client, options, heard, attempts)
            broker = cls(client, settings, owner=owner)
            await broker._ready(attempts, failed)
            return broker
        except BaseException as error:
            with contextlib.suppress(nats.errors.Error, OSError):
                await client.close()
            if not isinstance(error, nats.errors.NoServersError):
                raise
            said = f" ({heard[-1]})" if heard else ""
            raise BackendUnavailable(
                f"no NATS server answers at {masked(settings.url)}{said}: start one with `qrelay up`, or set nats.url"
            ) from None

    async def _ready(self, attempts: int | None, failed: Callable[[Exception], None]) -> None:
        """Declare the queues, or look for them, until they are there. Raises the last attempt's error."""
        said = ""
        with contextlib.ExitStack() as waiting:
            for attempt in itertools.count(1):
                try:
                    if self._owner:
                        await self.declare()
                    else:
                        await declaring.look(self._js, self._settings, self._client.max_payload)
                    return
                except QrelayError as error:
                    self._client.require_allowed("$JS.API.")
                    if attempt == attempts:
                        raise
                    if str(error) != said:
                        said = str(error)
                        if self._owner:
                            log.warning("the queues are not declared yet, trying again: %s", error)
                        waiting.close()
                        waiting.enter_context(step(f"waiting: {error}"))
                    failed(error)
                    await asyncio.sleep(_LOOK_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def declare(self) -> None:
        """What the services own: see `declaring.declare`."""
        await declaring.declare(self._js, self._settings, self._client.max_payload)

    async def _restore(self, queue: Queue) -> None:
        """After nobody answered for a queue: declare all again where it is gone, or takes only the subjects of a
        version before. Where it stands, its servers are choosing a leader, and are left alone. A limit in the way is
        no fault of the message that met it."""
        if not self._owner:
            raise BackendUnavailable(UNDECLARED)
        try:
            await self._consumers(queue)
            takes = (await self._js.stream_info(queue.stream)).config.subjects or []
        except nats.js.errors.NotFoundError:
            takes = []
        if set(queue.subjects()) <= set(takes):
            raise BackendUnavailable(f"{queue.stream} is declared, and none of its servers answers for now")
        log.warning("%s is gone or of another version: declaring the queues again", queue.stream)
        try:
            await self.declare()
        except ConfigError as error:
            raise BackendUnavailable(str(error)) from error

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str], msg_id: str) -> None:
        """Publish and await the stream's acknowledgement."""
        headers = {**headers, "Nats-Msg-Id": msg_id}
        admit(subject, len(payload), self._settings.max_message_bytes)
        with self._translated(f"publish to {subject}", subject):
            if len(payload) + _header_bytes(headers) > self._client.max_payload:  # the server would hang up
                raise nats.errors.MaxPayloadError
            try:
                await self._js.publish(subject, payload, timeout=self._settings.publish_timeout_s, headers=headers)
            except nats.js.errors.NoStreamResponseError:
                if self._owner:  # the next try finds it
                    await self._restore(queue_of(subject))
                raise

    async def fetch(self, queue: Queue, max_items: int, timeout_s: float) -> Sequence[JetStreamMessage]:
        """What is there now, else the first to come within the timeout, else none; from every lane as much."""
        first = queue.lanes[0]
        with self._translated(f"fetch from {queue.stream}", next_subject(first)):
            self._client.require_allowed(next_subject(first), ack_subject(first))
            try:
                return await self._fetch(queue, max_items, timeout_s)
            except Gone:
                await self._restore(queue)
            try:
                return await self._fetch(queue, max_items, timeout_s)
            except Gone:
                raise BackendUnavailable(f"{queue.stream} is declared, and none of its servers answers yet") from None

    async def _fetch(self, queue: Queue, max_items: int, timeout_s: float) -> Sequence[JetStreamMessage]:
        reader = self._readers.setdefault(queue, LaneReader(self._client, queue))
        try:
            messages = await reader.take(max_items, timeout_s)
        except Gone:
            del self._readers[queue]
            with contextlib.suppress(nats.errors.Error):
                await reader.close()
            raise
        if not messages:
            if not self._client.is_connected:  # nobody was asked
                raise BackendUnavailable(f"no NATS server answers at {masked(self._settings.url)}")
            self._client.require_allowed(next_subject(queue.lanes[0]))
        return [JetStreamMessage(message) for message in messages]

    async def stored(self, queue: Queue, collection: str) -> AsyncIterator[StoredMessage]:
        """What lies in a queue for a collection, held messages included, consuming nothing: what is on the subject
        without a lane or stage, then the rest, each oldest first.

        One request a message, one message in memory: about 0.25 ms each on a local server. A message that is acked
        before its turn is not seen; one that is stored meanwhile is.
        """
        require_collection(collection)
        for subject in queue.all_of(collection):
            async for message in self._stored(queue, subject):
                yield message

    async def _stored(self, queue: Queue, subject: str) -> AsyncIterator[StoredMessage]:
        sequence = 1
        while True:
            with self._translated(f"read {queue.stream}", f"$JS.API.STREAM.MSG.GET.{queue.stream}"):
                try:
                    found = await self._js.get_msg(queue.stream, seq=sequence, subject=subject, next=True)
                except nats.js.errors.NotFoundError:
                    return
            if found.seq is None:
                return
            yield StoredMessage(found.seq, found.subject or "", found.data or b"", found.headers or {})
            sequence = found.seq + 1

    async def erase(self, queue: Queue, sequence: int) -> None:
        """Delete a message; the server writes other bytes over its own. One that is gone is none to delete."""
        with self._translated(f"erase in {queue.stream}", f"$JS.API.STREAM.MSG.DELETE.{queue.stream}"):
            with contextlib.suppress(nats.js.errors.NotFoundError):
                await self._js.delete_msg(queue.stream, sequence)

    async def stats(self) -> Sequence[QueueStats]:
        """Every queue's load, from the server."""
        with self._translated("read consumer state", "$JS.API."):
            return [await self._queue_stats(queue) for queue in Queue]

    async def _queue_stats(self, queue: Queue) -> QueueStats:
        consumers = await self._consumers(queue)
        stream = await self._js.stream_info(queue.stream)
        return QueueStats(
            queue,
            pending=sum(each.num_pending or 0 for each in consumers),
            held=sum(each.num_ack_pending or 0 for each in consumers),
            redelivered=sum(each.num_redelivered or 0 for each in consumers),
            bytes=stream.state.bytes,
        )

    async def _consumers(self, queue: Queue) -> Sequence[ConsumerInfo]:
        """Every lane's."""
        asked = (self._js.consumer_info(lane.stream, lane.consumer) for lane in queue.lanes)
        return list(await asyncio.gather(*asked))

    @contextlib.contextmanager
    def _translated(self, what: str, subject: str) -> Iterator[None]:
        """As `translated`; and what failed because this user may not do it is a BrokerDenied, which NATS tells apart
        from the request that waits for an answer."""
        try:
            with translated(what):
                yield
        except TransientError as error:
            try:
                self._client.require_allowed(subject)
            except BrokerDenied as denied:
                raise denied from error
            raise

    async def close(self) -> None:
        """Flush and disconnect."""
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self._client.flush(timeout=2)
        with contextlib.suppress(OSError):  # of a connection that the server is just ending
            await self._client.close()


def _header_bytes(headers: Mapping[str, str]) -> int:
    """What headers take of the server's max_payload: a line each, between the protocol's line and an empty one."""
    lines = ("NATS/1.0", *(f"{name}: {value}" for name, value in headers.items()), "")
    return sum(len(line.encode()) + 2 for line in lines)
