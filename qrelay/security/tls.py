"""Certificates on every connection: the one place that makes credentials, and opens gRPC's channels.

    server.add_secure_port(bind, server_credentials(settings.tls))
    with channel("judge:7403", settings.transport) as opened: ...        # plain text on this machine, without tls
    uvicorn.Config(…, ssl_context_factory=lambda *_: server_context(settings.tls))

Both ends show a certificate that one of the other's authorities signed, and the client compares the server's name.
Files are looked at before each handshake. New ones are taken when they belong together; until then, and where they do
not hold, the former ones go on. What is connected stays connected.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from qrelay.addresses import is_loopback
from qrelay.config import PLAIN, TlsSettings, Transport
from qrelay.errors import ConfigError

log = logging.getLogger(__name__)

Options = Sequence[tuple[str, Any]]
Stamp = tuple[tuple[int, ...], ...]
_TRIES: Final = 3
"""Of reading files that change meanwhile."""
_BEGINNINGS: Final = 40
_BEGINNING_S: Final = 0.05
"""Looks at a key that is not the certificate's, and the pause between two, before that is an error."""
_GONE: Final[Stamp] = ()
"""The state of files of which one is gone."""
_RETIRED: Final = 8
"""Channels with former certificates that are kept for whoever holds them still; older ones end with their calls."""


@dataclass(frozen=True, slots=True)
class Material:
    """The files' bytes, which belong together. stamp: what tells that they have changed."""

    certificate: bytes
    key: bytes
    authority: bytes
    stamp: Stamp


class _Changing(ValueError):
    """They do not hold still."""


class Files:
    """The files of a process's certificate, read again when they change. Several threads may ask."""

    def __init__(self, tls: TlsSettings) -> None:
        """Raises ConfigError: a file cannot be read, or they do not belong together."""
        assert tls.certificate and tls.key and tls.authority
        self._tls, self._paths = tls, (tls.certificate, tls.key, tls.authority)
        self._lock = threading.Lock()
        self._refused: Stamp | None = None
        try:
            self._material = self._first()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"tls: {', '.join(map(str, self._paths))}: {_why(error)}: give a certificate, its key without a "
                "password, and the authorities, as PEM"
            ) from error

    def _first(self) -> Material:
        """Whoever begins while new files are put in place waits for the last of them."""
        for _ in range(_BEGINNINGS):
            try:
                return self._read()
            except (ssl.SSLError, _Changing) as error:
                if isinstance(error, ssl.SSLError) and error.reason != "KEY_VALUES_MISMATCH":
                    raise
                time.sleep(_BEGINNING_S)
        return self._read()

    def current(self) -> Material:
        """What is in force now."""
        with self._lock:
            stamp = _GONE
            try:
                stamp = stamp_of(self._tls)
                if stamp not in (self._material.stamp, self._refused):
                    self._material, self._refused = self._read(), None
                    log.info("tls: new certificates are in force", extra={"certificate": str(self._paths[0])})
            except (OSError, ValueError) as error:
                self._refuse(error, stamp)
            return self._material

    def _refuse(self, error: Exception, stamp: Stamp) -> None:
        """Said once for each state of the files. stamp: from before they were read, so that what comes into place
        meanwhile is read."""
        if stamp != self._refused:
            log.error("tls: the new files do not hold, the former certificate stays in force: %s", _why(error))
        self._refused = stamp

    def context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        """A context that presents the certificate and believes the authorities alone. purpose: whom it meets."""
        certificate, key, authority = self._paths
        context = ssl.create_default_context(purpose, cafile=str(authority))
        context.load_cert_chain(certificate, key, password=_no_password)
        return context

    def _read(self) -> Material:
        for _ in range(_TRIES):
            stamp = stamp_of(self._tls)
            certificate, key, authority = (path.read_bytes() for path in self._paths)
            try:
                self.context(ssl.Purpose.CLIENT_AUTH)
            except ValueError:  # ssl.SSLError among them
                if stamp == stamp_of(self._tls):
                    raise
            if stamp == stamp_of(self._tls):
                return Material(certificate, key, authority, stamp)
        raise _Changing("the files change while they are read")


def files_of(folder: Path) -> TlsSettings:
    """The settings for a folder with files as a Kubernetes secret names them."""
    return TlsSettings(certificate=folder / "tls.crt", key=folder / "tls.key", authority=folder / "ca.crt")


def stamp_of(tls: TlsSettings) -> Stamp:
    """What tells that a certificate's files have changed. Raises OSError: one is gone."""
    found = (path.stat() for path in (tls.certificate, tls.key, tls.authority) if path)
    return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip()


def _no_password() -> str:
    """OpenSSL would ask the terminal."""
    raise ValueError("the key has a password")


class Renewed(ssl.SSLContext):
    """A context that servers and reconnecting clients keep: each handshake is made by one of the files of then, and
    by the former one while they cannot be read."""

    files: Files
    purpose: ssl.Purpose
    verify: ssl.VerifyMode
    made: tuple[Material, ssl.SSLContext]

    def make(self) -> None:
        """Takes the files as they are. Raises OSError, ValueError: they do not hold."""
        material, context = self.files.current(), self.files.context(self.purpose)
        if self.purpose is ssl.Purpose.CLIENT_AUTH:
            context.verify_mode = self.verify
        self.made = (material, context)

    def _now(self) -> ssl.SSLContext:
        if self.files.current() is not self.made[0]:
            with suppress(OSError, ValueError):  # they change again: `files` says so where they stay so
                self.make()
        return self.made[1]

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """As asyncio asks for."""
        return self._now().wrap_bio(*arguments, **options)

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """As threads ask for."""
        return self._now().wrap_socket(*arguments, **options)


def _renewed(tls: TlsSettings, purpose: ssl.Purpose, verify: ssl.VerifyMode) -> Renewed:
    server = purpose is ssl.Purpose.CLIENT_AUTH
    context = Renewed(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.files, context.purpose, context.verify = Files(tls), purpose, verify
    try:
        context.make()
    except (OSError, ValueError) as error:
        raise ConfigError(f"tls: the files change while they are read: {_why(error)}: start again") from error
    return context


def server_context(tls: TlsSettings, *, people: bool = False) -> Renewed:
    """For a server of asyncio or of threads. people: a client may come without a certificate (with a token, say); one
    that it shows has to hold. Raises ConfigError: the files do not hold."""
    return _renewed(tls, ssl.Purpose.CLIENT_AUTH, ssl.CERT_OPTIONAL if people else ssl.CERT_REQUIRED)


def client_context(tls: TlsSettings) -> ssl.SSLContext:
    """For a client that reconnects (NATS), or asks once (HTTP). Raises ConfigError: the files do not hold."""
    return _renewed(tls, ssl.Purpose.SERVER_AUTH, ssl.CERT_REQUIRED)


def http_context(url: str, transport: Transport) -> ssl.SSLContext | None:
    """For one request by HTTP; None: the URL begins with http://. Raises ConfigError: there is no certificate."""
    if not url.startswith("https://"):
        return None
    if not transport.tls.enabled:
        raise ConfigError(f"{url} asks for a certificate: set all.tls (certificate, key, authority)")
    return Files(transport.tls).context(ssl.Purpose.SERVER_AUTH)


def server_credentials(tls: TlsSettings) -> grpc.ServerCredentials:
    """For a gRPC server: clients have to show a certificate. Raises ConfigError: the files do not hold."""
    files = Files(tls)
    served = files.current()

    def configuration(material: Material) -> Any:
        return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.authority)

    def changed() -> Any:
        """Called before each handshake. None: nothing has changed; gRPC owns, and frees, each that it is given."""
        nonlocal served
        material = files.current()
        if material is served:
            return None
        served = material
        return configuration(material)

    return grpc.dynamic_ssl_server_credentials(configuration(served), changed, True)


def channel(address: str, transport: Transport = PLAIN, options: Options = ()) -> grpc.Channel:
    """A channel to host:port or dns:///name:port, with the certificates of now: for a command, not for a service.

    Raises:
        ConfigError: the files do not hold, or plain text would leave this machine.
    """
    if not transport.tls.enabled:
        refuse_plain(address, transport)
        return grpc.insecure_channel(address, options=list(options))
    return grpc.secure_channel(
        address,
        _channel_credentials(Files(transport.tls).current()),
        options=_named(address, options, transport.tls),
    )


def aio_channel(address: str, transport: Transport = PLAIN, options: Options = ()) -> grpc.aio.Channel:
    """The same for an event loop. What lives longer than certificates asks `Channels`."""
    if not transport.tls.enabled:
        refuse_plain(address, transport)
        return grpc.aio.insecure_channel(address, options=list(options))
    return _aio(address, Files(transport.tls).current(), _named(address, options, transport.tls))


class Channels:
    """Channels by address, each opened again when the certificates have changed. Use from one event loop."""

    def __init__(self, transport: Transport, options: Options = ()) -> None:
        self._transport, self._options = transport, options
        self._files = Files(transport.tls) if transport.tls.enabled else None
        self._open: dict[str, tuple[Material | None, grpc.aio.Channel]] = {}
        self._retired: deque[grpc.aio.Channel] = deque(maxlen=_RETIRED)

    def to(self, address: str) -> grpc.aio.Channel:
        """The channel to take for the next call. Raises ConfigError: plain text would leave this machine."""
        material = self._files.current() if self._files else None
        found = self._open.get(address)
        if found is None or found[0] is not material:
            if found:
                self._retired.append(found[1])
            options = _named(address, self._options, self._transport.tls)
            opened = _aio(address, material, options) if material else self._plain(address)
            found = self._open[address] = (material, opened)
        return found[1]

    def _plain(self, address: str) -> grpc.aio.Channel:
        return aio_channel(address, self._transport, self._options)

    async def close(self) -> None:
        """Close every channel."""
        channels, self._open = self._open, {}
        for each in [*self._retired, *(opened for _, opened in channels.values())]:
            await each.close()
        self._retired.clear()


def _aio(address: str, material: Material, options: Options) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(address, _channel_credentials(material), options=options)


def _channel_credentials(material: Material) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(material.authority, material.key, material.certificate)


def _named(address: str, options: Options, tls: TlsSettings) -> list[tuple[str, Any]]:
    """With the name that is compared, where it is not the address's: the settings', or of several addresses in one
    (ipv4:HOST:PORT,HOST:PORT) the first's."""
    scheme, _, rest = address.partition(":")
    name = tls.server_names.get(address, "")
    if scheme in ("ipv4", "ipv6"):
        name = name or rest.split(",")[0].rpartition(":")[0].strip("[]")
    return [*options, ("grpc.ssl_target_name_override", name)] if name else list(options)


def refuse_plain(address: str, transport: Transport) -> None:
    """Raises ConfigError: plain text to this address would leave this machine, and nobody has allowed that."""
    away = _away(address)
    if away and not transport.insecure and not transport.tls.enabled:
        raise ConfigError(
            f"{away[0]} is another machine, and plain text would go there: set all.tls (certificate, key, "
            "authority), or say all.insecure: true"
        )


def leaves_here(address: str) -> bool:
    """Whether what is sent to the address, or to one of several with commas between, leaves this machine."""
    return bool(_away(address))


def _away(address: str) -> list[str]:
    return [each for each in address.split(",") if not is_loopback(_host_of(each))]


def _host_of(address: str) -> str:
    """Of host:port, ipv4:host:port, dns:///host:port or a URL; "localhost" for a socket file."""
    if address.startswith("unix:"):
        return "localhost"
    rest = address.rpartition("/")[2].removeprefix("ipv4:").removeprefix("ipv6:")
    return rest.rpartition(":")[0] if ":" in rest else rest
