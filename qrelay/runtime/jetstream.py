"""The broker port on NATS JetStream. The streams, their settings and reasons: `topology.py`.

Connecting retries for ever and never fails the process: a service is ready when its model is loaded, and
works on the queue when NATS answers. `declaring.py` declares the streams, `natserrors.py` translates foreign errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from qrelay.config import NatsSettings, Transport, plain_nats
from qrelay.errors import BackendUnavailable, ConfigError, QrelayError
from qrelay.progress import step
from qrelay.runtime import declaring
from qrelay.runtime.broker import admit
from qrelay.runtime.natserrors import UNDECLARED, translated
from qrelay.runtime.topology import Queue, QueueStats, queue_of
from qrelay.security.tls import client_context
from qrelay.settings.secrets import masked

log = logging.getLogger(__name__)

_ACK_TIMEOUT_S = 5.0
_LOOK_S = 1.0
_PING_S = 5
"""A server that does not answer three of these (stopped, cut off) is left for another: after 15 s."""
_GONE = (nats.js.errors.NotFoundError, nats.js.errors.ServiceUnavailableError, nats.errors.NoRespondersError)
"""What a fetch says of a stream or consumer that was deleted, or whose server lost its store: mostly a bare 503."""


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

    def __init__(self, client: Client, settings: NatsSettings, *, owner: bool = False) -> None:
        self._client = client
        self._settings = settings
        self._owner = owner
        self._js: JetStreamContext = client.jetstream(timeout=settings.publish_timeout_s)
        self._subscriptions: dict[Queue, JetStreamContext.PullSubscription] = {}

    @classmethod
    async def connect(
        cls,
        settings: NatsSettings,
        *,
        name: str,
        timeout_s: float | None = None,
        owner: bool = False,
        failed: Callable[[Exception], None] = lambda _: None,
    ) -> Self:
        """Connect, and declare the streams or find them; wait for ever when `timeout_s` is None. `owner`: see the
        class; `failed` hears why a server that answers has no queues yet. A wait for them is a step of its own.

        Raises:
            ConfigError: the server allows less than the settings need, or the address or credentials are none.
            BackendUnavailable: no server answered within `timeout_s` seconds, or the queues are not declared.
        """
        heard: list[Exception] = []
        servers = _servers(settings.url)
        if settings.credentials and not settings.credentials.is_file():
            raise ConfigError(f"nats.credentials {settings.credentials} is no file: give the path of a .creds file")
        tls = _tls(servers, settings.transport)
        client = _Client()
        broker = None
        try:
            async with asyncio.timeout(timeout_s):
                await _connected(client, servers, settings.credentials, name, heard, tls)
                broker = cls(client, settings, owner=owner)
                heard.clear()
                await broker._ready(heard, failed)
                return broker
        except BaseException as error:
            with contextlib.suppress(nats.errors.Error, OSError):
                await client.close()
            if not isinstance(error, TimeoutError):
                raise
            raise _why_not(settings, heard, reached=broker is not None) from None

    async def _ready(self, heard: list[Exception], failed: Callable[[Exception], None]) -> None:
        """Declare the queues, or look for them, until they are there."""
        with contextlib.ExitStack() as waiting:
            while True:
                try:
                    if self._owner:
                        await self.declare()
                    else:
                        await declaring.look(self._js, self._settings, self._client.max_payload)
                    return
                except QrelayError as error:
                    if not heard or str(error) != str(heard[-1]):
                        if self._owner:
                            log.warning("the queues are not declared yet, trying again: %s", error)
                        waiting.close()
                        waiting.enter_context(step(f"waiting: {error}"))
                    heard[:] = [error]
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
        """After nobody answered for a queue: declare all again where it is gone. Where it stands, its servers are
        choosing a leader, and are left alone. A limit in the way is no fault of the message that met it."""
        if not self._owner:
            raise BackendUnavailable(UNDECLARED)
        try:
            await self._js.consumer_info(queue.stream, queue.consumer)
        except nats.js.errors.NotFoundError:
            log.warning("%s is gone: declaring the queues again", queue.stream)
        else:
            raise BackendUnavailable(f"{queue.stream} is declared, and none of its servers answers for now")
        try:
            await self.declare()
        except ConfigError as error:
            raise BackendUnavailable(str(error)) from error

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str], msg_id: str) -> None:
        """Publish and await the stream's acknowledgement."""
        headers = {**headers, "Nats-Msg-Id": msg_id}
        admit(subject, len(payload), self._settings.max_message_bytes)
        with translated(f"publish to {subject}"):
            if len(payload) + _header_bytes(headers) > self._client.max_payload:  # the server would hang up
                raise nats.errors.MaxPayloadError
            try:
                await self._js.publish(subject, payload, timeout=self._settings.publish_timeout_s, headers=headers)
            except nats.js.errors.NoStreamResponseError:
                if self._owner:  # the next try finds it
                    await self._restore(queue_of(subject))
                raise

    async def fetch(self, queue: Queue, max_items: int, timeout_s: float) -> Sequence[JetStreamMessage]:
        """What is there now, else the first to come within the timeout, else none."""
        with translated(f"fetch from {queue.stream}"):
            try:
                return await self._fetch(queue, max_items, timeout_s)
            except _GONE:
                await self._forget(queue)
                await self._restore(queue)
            try:
                return await self._fetch(queue, max_items, timeout_s)
            except _GONE:
                await self._forget(queue)
                raise BackendUnavailable(f"{queue.stream} is declared, and none of its servers answers yet") from None

    async def _fetch(self, queue: Queue, max_items: int, timeout_s: float) -> Sequence[JetStreamMessage]:
        try:
            subscription = self._subscriptions.get(queue)
            if subscription is None:
                subscription = await self._js.pull_subscribe_bind(queue.consumer, stream=queue.stream)
                self._subscriptions[queue] = subscription
            messages = await subscription.fetch(max_items, timeout=max(timeout_s, 0.001))
        except (nats.errors.TimeoutError, TimeoutError):
            if not self._client.is_connected:  # nobody was asked
                raise BackendUnavailable(f"no NATS server answers at {masked(self._settings.url)}") from None
            return []
        return [JetStreamMessage(message) for message in messages]

    async def _forget(self, queue: Queue) -> None:
        if subscription := self._subscriptions.pop(queue, None):
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def stored(self, queue: Queue, collection: str) -> AsyncIterator[StoredMessage]:
        """What lies in a queue for a collection, oldest first, held messages included, consuming nothing.

        One request a message, one message in memory: about 0.25 ms each on a local server. A message that is acked
        before its turn is not seen; one that is stored meanwhile is.
        """
        subject, sequence = queue.subject(collection), 1
        while True:
            with translated(f"read {queue.stream}"):
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
        with translated(f"erase in {queue.stream}"), contextlib.suppress(nats.js.errors.NotFoundError):
            await self._js.delete_msg(queue.stream, sequence)

    async def stats(self) -> Sequence[QueueStats]:
        """Every queue's load, from the server."""
        with translated("read consumer state"):
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


def _tls(servers: list[str], transport: Transport) -> ssl.SSLContext | None:
    """What a URL that begins with tls:// asks for; None: plain text. Raises ConfigError."""
    if not transport.insecure and (found := plain_nats(",".join(servers))):
        raise ConfigError(f"{'; '.join(found)}; or say insecure: true")
    if not any(server.startswith("tls://") for server in servers):
        return None
    if not transport.tls.enabled:
        raise ConfigError("nats.url asks for certificates: set tls (certificate, key, authority)")
    logging.getLogger("asyncio").addFilter(_tells)
    return client_context(transport.tls)


def _tells(record: logging.LogRecord) -> bool:
    """asyncio remarks on how nats-py closes a connection with TLS, each time; nothing is wrong."""
    return "eof_received()" not in str(record.msg)


async def _connected(
    client: Client,
    servers: list[str],
    credentials: Path | None,
    name: str,
    heard: list[Exception],
    tls: ssl.SSLContext | None,
) -> None:
    """Connects, however long it takes; `heard` gets what a server says against it."""

    async def log_error(error: Exception) -> None:
        log.warning("NATS: %s", error)
        if isinstance(error, nats.errors.Error | ssl.SSLError):
            heard[:] = [error]

    await client.connect(
        servers=servers,
        tls=tls,
        name=f"qrelay-{name}",
        user_credentials=str(credentials) if credentials else None,
        allow_reconnect=True,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        ping_interval=_PING_S,
        max_outstanding_pings=2,
        pending_size=64 * 1024**2,
        error_cb=log_error,
        disconnected_cb=_log_disconnected,
        reconnected_cb=_log_reconnected,
    )


def _why_not(settings: NatsSettings, heard: Sequence[Exception], *, reached: bool) -> QrelayError:
    """The error of a connection that was not to be had in time."""
    if heard and isinstance(heard[-1], QrelayError):
        return heard[-1]
    said = f" ({heard[-1]})" if heard else ""
    if reached:
        return BackendUnavailable(f"NATS at {masked(settings.url)} does not answer JetStream's requests{said}")
    return BackendUnavailable(
        f"no NATS server answers at {masked(settings.url)}{said}: start one with `qrelay up`, or set nats.url"
    )


async def _log_disconnected() -> None:
    log.info("NATS: disconnected")


async def _log_reconnected() -> None:
    log.info("NATS: reconnected")
