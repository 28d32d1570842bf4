"""The broker port on NATS JetStream. The streams, their settings and reasons: `topology.py`.

Connecting retries for ever and never fails the process: a service is ready when its model is loaded, and
works on the queue when NATS answers. `_translated` turns every foreign error into one of qrelay's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from qrelay.config import NatsSettings
from qrelay.errors import BackendTimeout, BackendUnavailable, ConfigError, Overloaded, Oversized, QrelayError
from qrelay.runtime.broker import admit
from qrelay.runtime.topology import Queue, QueueStats
from qrelay.settings.secrets import masked

log = logging.getLogger(__name__)

_STREAM_FULL = (10077, 10148)  # "maximum messages/bytes exceeded", and its clustered form
_ACK_TIMEOUT_S = 5.0
_GONE = (nats.js.errors.NotFoundError, nats.js.errors.ServiceUnavailableError, nats.errors.NoRespondersError)
"""What a fetch says of a stream or consumer that was deleted, or whose server lost its store: mostly a bare 503."""


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """Foreign errors as qrelay's; a test asserts that none of nats-py's classes is left out."""
    try:
        yield
    except QrelayError:
        raise
    except nats.js.errors.APIError as error:
        if error.err_code in _STREAM_FULL or "exceeded" in (error.description or ""):
            raise Overloaded(f"{what}: the stream is full, its consumers have to catch up first") from error
        raise BackendUnavailable(f"{what}: JetStream answered {error.code} {error.description}") from error
    except nats.errors.MaxPayloadError as error:
        raise Oversized(
            f"{what}: above the NATS server's max_payload; raise it and nats.max_message_bytes"
        ) from error
    except (nats.errors.TimeoutError, TimeoutError) as error:
        raise BackendTimeout(f"{what}: NATS did not answer in time") from error
    except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
        raise BackendUnavailable(f"{what}: {type(error).__name__}: {error}") from error


class _Client(Client):
    """nats-py takes a message with a header `Status` for the server's own word, and `fetch` fails over it. A stored
    message has an address for its ack; the server's words have none."""

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        if headers and reply.startswith(b"$JS.ACK."):
            headers.pop("Status", None)
        built: Msg = super()._build_message(sid, subject, reply, data, headers)
        return built


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
        with _translated("ack"):
            await self._message.ack_sync(timeout=_ACK_TIMEOUT_S)

    async def retry(self, delay_s: float) -> None:
        """nak with a delay in seconds."""
        with _translated("retry"):
            await self._message.nak(delay=delay_s)

    async def heartbeat(self) -> None:
        """in_progress: restart the ack_wait clock."""
        with _translated("heartbeat"):
            await self._message.in_progress()


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as it lies in a stream; nobody's delivery. `sequence` is its place, from 1."""

    sequence: int
    subject: str
    payload: bytes
    headers: Mapping[str, str]


class JetStreamBroker:
    """A connection that declares the streams once and then publishes and fetches.

    Use `await JetStreamBroker.connect(settings)`, or as an async context manager. A service owns the streams: it
    brings them to its settings. Whoever else connects (a feed on somebody's laptop) creates what is absent and
    changes nothing, or its own defaults would undo the installation's.
    """

    def __init__(self, client: Client, settings: NatsSettings, *, owner: bool = False) -> None:
        self._client = client
        self._settings = settings
        self._owner = owner
        self._js: JetStreamContext = client.jetstream(timeout=settings.publish_timeout_s)
        self._subscriptions: dict[Queue, JetStreamContext.PullSubscription] = {}

    @classmethod
    async def connect(
        cls, settings: NatsSettings, *, name: str, timeout_s: float | None = None, owner: bool = False
    ) -> Self:
        """Connect and declare the streams; wait for ever when `timeout_s` is None. `owner`: see the class.

        Raises:
            BackendUnavailable: no server answered within `timeout_s` seconds.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await cls._connect(settings, name, owner)
        except TimeoutError:
            raise BackendUnavailable(
                f"no NATS server answers at {masked(settings.url)}: start one with `qrelay up`, or set nats.url"
            ) from None

    @classmethod
    async def _connect(cls, settings: NatsSettings, name: str, owner: bool) -> Self:
        client = _Client()
        await client.connect(
            servers=_servers(settings.url),
            name=f"qrelay-{name}",
            user_credentials=str(settings.credentials) if settings.credentials else None,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=20,
            pending_size=64 * 1024**2,
            error_cb=_log_error,
            disconnected_cb=_log_disconnected,
            reconnected_cb=_log_reconnected,
        )
        broker = cls(client, settings, owner=owner)
        while True:
            try:
                await broker.declare()
                return broker
            except QrelayError as error:
                log.warning("streams not declared yet, trying again", extra={"error": str(error)})
                await asyncio.sleep(1.0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def declare(self) -> None:
        """Create every stream and consumer that is absent; the owner also updates those that stand otherwise."""
        with _translated("declare streams"):
            for queue in Queue:
                await self._declare_stream(queue)
                if self._owner or not await self._has_consumer(queue):
                    await self._js.add_consumer(queue.stream, self._consumer_config(queue))

    async def _declare_stream(self, queue: Queue) -> None:
        config = self._stream_config(queue)
        try:
            await self._js.add_stream(config)
        except nats.js.errors.BadRequestError:  # exists with other values: only the owner brings it to its own
            if self._owner:
                await self._js.update_stream(config)

    async def _has_consumer(self, queue: Queue) -> bool:
        try:
            await self._js.consumer_info(queue.stream, queue.consumer)
        except nats.js.errors.NotFoundError:
            return False
        return True

    def _stream_config(self, queue: Queue) -> StreamConfig:
        settings = self._settings
        return StreamConfig(
            name=queue.stream,
            subjects=[queue.subjects],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=settings.max_stream_bytes,
            duplicate_window=settings.duplicate_window_s,
            num_replicas=settings.replicas,
        )

    def _consumer_config(self, queue: Queue) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=queue.consumer,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._settings.ack_wait_s,
            max_deliver=-1,
            max_ack_pending=self._settings.max_ack_pending,
        )

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str], msg_id: str) -> None:
        """Publish and await the stream's acknowledgement."""
        headers = {**headers, "Nats-Msg-Id": msg_id}
        admit(subject, len(payload), self._settings.max_message_bytes)
        with _translated(f"publish to {subject}"):
            if len(payload) + _header_bytes(headers) > self._client.max_payload:  # the server would hang up
                raise nats.errors.MaxPayloadError
            try:
                await self._js.publish(subject, payload, timeout=self._settings.publish_timeout_s, headers=headers)
            except nats.js.errors.NoStreamResponseError:
                if self._owner:  # the next try finds it
                    await self.declare()
                raise

    async def fetch(self, queue: Queue, max_items: int, timeout_s: float) -> Sequence[JetStreamMessage]:
        """What is there now, else the first to come within the timeout, else none."""
        with _translated(f"fetch from {queue.stream}"):
            try:
                subscription = self._subscriptions.get(queue)
                if subscription is None:
                    subscription = await self._js.pull_subscribe_bind(queue.consumer, stream=queue.stream)
                    self._subscriptions[queue] = subscription
                messages = await subscription.fetch(max_items, timeout=max(timeout_s, 0.001))
            except (nats.errors.TimeoutError, TimeoutError):
                if not self._client.is_connected:  # nobody was asked
                    raise BackendUnavailable(f"no NATS server answers at {self._settings.url}") from None
                return []
            except _GONE:
                self._subscriptions.pop(queue, None)
                await self.declare()  # what is declared anew is empty
                return []
            return [JetStreamMessage(message) for message in messages]

    async def stored(self, queue: Queue, collection: str) -> AsyncIterator[StoredMessage]:
        """What lies in a queue for a collection, oldest first, held messages included, consuming nothing.

        One request a message, one message in memory: about 0.25 ms each on a local server. A message that is acked
        before its turn is not seen; one that is stored meanwhile is.
        """
        subject, sequence = queue.subject(collection), 1
        while True:
            with _translated(f"read {queue.stream}"):
                try:
                    found = await self._js.get_msg(queue.stream, seq=sequence, subject=subject, next=True)
                except nats.js.errors.NotFoundError:
                    return
            if found.seq is None:
                return
            yield StoredMessage(found.seq, found.subject or "", found.data or b"", found.headers or {})
            sequence = found.seq + 1

    async def stats(self) -> Sequence[QueueStats]:
        """Every queue's load, from the server."""
        with _translated("read consumer state"):
            return [await self._queue_stats(queue) for queue in Queue]

    async def _queue_stats(self, queue: Queue) -> QueueStats:
        consumer = await self._js.consumer_info(queue.stream, queue.consumer)
        stream = await self._js.stream_info(queue.stream)
        return QueueStats(
            queue,
            pending=consumer.num_pending or 0,
            held=consumer.num_ack_pending or 0,
            redelivered=consumer.num_redelivered or 0,
            bytes=stream.state.bytes,
        )

    async def close(self) -> None:
        """Flush and disconnect."""
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self._client.flush(timeout=2)
        await self._client.close()


def _header_bytes(headers: Mapping[str, str]) -> int:
    """What headers take of the server's max_payload: a line each, between the protocol's line and an empty one."""
    lines = ("NATS/1.0", *(f"{name}: {value}" for name, value in headers.items()), "")
    return sum(len(line.encode()) + 2 for line in lines)


def _servers(url: str) -> list[str]:
    """Each server's address. Raises ConfigError: what stands there is none."""
    servers = url.split(",")
    for server in servers:
        try:
            parts = urlsplit(server)
            whole = bool(parts.hostname) and (parts.port or 1) > 0 and not parts.path.strip("/") and not parts.query
        except ValueError:
            whole = False
        if not whole:
            raise ConfigError(
                f"nats.url {masked(url)} is no nats://[USER:PASSWORD@]HOST:PORT: write odd characters of a password "
                "as %XX"
            )
    return servers


async def _log_error(error: Exception) -> None:
    log.warning("NATS: %s", error)


async def _log_disconnected() -> None:
    log.info("NATS: disconnected")


async def _log_reconnected() -> None:
    log.info("NATS: reconnected")
