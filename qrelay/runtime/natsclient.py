"""A client of NATS as qrelay connects: by whom, for how long, and what the server does not allow.

NATS refuses a subject in a message of its own, while the request waits for an answer that nobody gives. `QueueClient`
remembers what was refused, so that whoever waited is told.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from contextlib import suppress
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport
from nats.aio.transport import Transport as NatsTransport

from qrelay.addresses import host_of, plain_nats
from qrelay.config import NatsSettings, Transport
from qrelay.errors import BrokerDenied, ConfigError
from qrelay.runtime import telemetry
from qrelay.runtime.natsaccounts import identity
from qrelay.security.tls import client_context
from qrelay.settings.secrets import masked

log = logging.getLogger(__name__)

ATTEMPTS: Final = 10
"""Of a command, after which it says that no server answers. Each waits `_ANSWER_S` at most, and one that is refused
is made again a second later."""
_ANSWER_S: Final = 5
"""For a server that is reached to say something."""
_CLOSING_S: Final = 1.0
"""For the other end to close a connection; then the next is made, and the system ends this one."""
_PING_S = 5
"""A server that does not answer three of these (stopped, cut off) is left for another: after 15 s."""
_DENIED = re.compile(r'permissions violation for (publish|subscription)\b.* "([^"]*)"', re.IGNORECASE)
_UNWANTED = re.compile("authorization (violation|failed)|authentication (expired|revoked)", re.IGNORECASE)
"""As the server and nats-py write it, mostly in lower case."""


class _Tcp(TcpTransport):
    """nats-py connects again when the former connection is closed, and waits for that. Where a TLS handshake failed
    (its issues 382 and 718), or nothing comes back any more (671), it waits for ever."""

    async def wait_closed(self) -> None:
        """After `_CLOSING_S` without the other end."""
        with suppress(TimeoutError):
            await asyncio.wait_for(super().wait_closed(), _CLOSING_S)  # type: ignore[no-untyped-call]


class QueueClient(Client):
    """nats-py takes a message with a header `Status` for the server's own word, and `fetch` fails over it. A stored
    message has an address for its ack; the server's words have none."""

    def __init__(self) -> None:
        super().__init__()
        self.denials: dict[str, str] = {}
        """Subject, in lower case -> what the server said against it; "": what concerns all of them."""
        self.unwanted = asyncio.Event()
        """Set when the server does not let this user in."""

    @property
    def _transport(self) -> NatsTransport | None:
        return self._tcp

    @_transport.setter
    def _transport(self, made: NatsTransport | None) -> None:
        self._tcp = _Tcp() if isinstance(made, TcpTransport) else made  # type: ignore[no-untyped-call]

    def note(self, error: Exception) -> None:
        """Remember an error that says what this user may not do."""
        said = str(error)
        if found := _DENIED.search(said):
            operation, subject = ("subscription", "") if found[1] == "subscription" else ("publish", found[2])
        elif _UNWANTED.search(said):
            operation, subject = "connection", ""
            self.unwanted.set()
        else:
            return
        telemetry.NATS_DENIED.labels(operation).inc()
        self.denials[subject] = said

    def require_allowed(self, *subjects: str) -> None:
        """Raises BrokerDenied: the server refused one of these, or what begins so. Told once, then asked again."""
        ended = str(self.last_error) if self.is_closed and self.last_error else ""
        if _UNWANTED.search(ended):
            raise _denied(ended)
        for subject in list(self.denials):
            if not subject or subject.startswith(tuple(map(str.lower, subjects))):
                raise _denied(self.denials.pop(subject))

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """nats-py encrypts only where the server's first word, in plain text, asks for it: whoever changes that word
        would get this user's secrets. At each connection, before anything is sent."""
        if initial_connection and self.options.get("tls") and not info.get("tls_required"):
            raise nats.errors.Error(
                "nats: the server offers no TLS, and nats.url asks for it: nothing was sent; set tls in the server's "
                "configuration, and look at what stands between"
            )
        await super()._process_info(info, initial_connection)

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        if headers and reply.startswith(b"$JS.ACK."):
            headers.pop("Status", None)
        built: Msg = super()._build_message(sid, subject, reply, data, headers)
        return built


def _denied(said: str) -> BrokerDenied:
    return BrokerDenied(
        f"NATS: {said.removeprefix('nats: ')}: nats.nkey_seed (or nats.credentials, or the URL) is another user's, or"
        " its key is not the one that the server knows; `qrelay nats accounts` writes both sides"
    )


def options_of(settings: NatsSettings, name: str) -> dict[str, Any]:
    """What nats-py's connect takes. Raises ConfigError: an address, a file or a seed is none."""
    if settings.credentials and not settings.credentials.is_file():
        raise ConfigError(f"nats.credentials {settings.credentials} is no file: give the path of a .creds file")
    servers = _servers(settings.url)
    options: dict[str, Any] = {
        "servers": servers,
        "tls": _tls(servers, settings.transport),
        "tls_hostname": settings.transport.tls.server_names.get(servers[0].rpartition("/")[2].rpartition("@")[2]),
        "name": f"qrelay-{name}",
        "user_credentials": str(settings.credentials) if settings.credentials else None,
        "allow_reconnect": True,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 1,
        "connect_timeout": _ANSWER_S,
        "ping_interval": _PING_S,
        "max_outstanding_pings": 2,
        "pending_size": 64 * 1024**2,
    }
    if settings.nkey_seed:
        shown = identity(settings.nkey_seed, name)
        options |= {"nkeys_seed_str": shown.seed, "inbox_prefix": shown.inbox}
    return options


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


async def connected(
    client: QueueClient, options: dict[str, Any], heard: list[Exception], attempts: int | None = None
) -> None:
    """Connects; `heard` gets what a server says against it. attempts: at each server; None: for ever. Raises
    BrokerDenied; nats.errors.NoServersError: none answers."""
    failed, given_up = 0, asyncio.Event()

    async def log_error(error: Exception) -> None:
        nonlocal failed
        failed += 1
        if attempts and failed >= attempts * len(options["servers"]):
            given_up.set()
        log.warning("NATS: %s", error)
        client.note(error)
        if isinstance(error, nats.errors.Error | ssl.SSLError):
            heard[:] = [error]

    async def log_reconnected() -> None:
        log.info("NATS: reconnected")
        client.denials.clear()

    connecting = asyncio.ensure_future(
        client.connect(
            **options, error_cb=log_error, disconnected_cb=_log_disconnected, reconnected_cb=log_reconnected
        )
    )
    ends = [asyncio.ensure_future(each.wait()) for each in (client.unwanted, given_up)]
    try:
        await asyncio.wait({connecting, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            client.require_allowed()
            raise nats.errors.NoServersError
        await connecting
    finally:
        for each in (*ends, connecting):
            each.cancel()


def _servers(url: str) -> list[str]:
    """Each server's address. Raises ConfigError: what stands there is none."""
    servers = url.split(",")
    for server in servers:
        if not host_of(server):
            raise ConfigError(
                f"nats.url {masked(url)} is no nats://[USER:PASSWORD@]HOST:PORT: write odd characters of a password "
                "as %XX"
            )
    return servers


async def _log_disconnected() -> None:
    log.info("NATS: disconnected")
