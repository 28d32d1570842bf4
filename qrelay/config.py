"""Settings: one typed class a service, read once at start, every problem reported at once.

A settings file has one section for all services and one for each; the environment mirrors it with `__`:

    all:                                     QRELAY_ALL__NATS__URL=nats://nats:4222
      nats: {url: "nats://nats:4222"}
    judge:                                   QRELAY_JUDGE__BACKEND=openai
      backend: openai

A service's own section wins over `all`, and the environment over the file. Which file, and what an installation
recorded: `qrelay.settings`. `qrelay config` prints the effective settings and where each value came from.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from qrelay.addresses import is_loopback, plain_http, plain_nats, plain_postgres
from qrelay.errors import ConfigError
from qrelay.parsing import rates_of

S = TypeVar("S", bound="ServiceSettings")
SECTIONS = ("all", "retriever", "reranker", "judge", "sink", "trainer", "console")


class Section(BaseModel):
    """Base of every settings class: unknown names are errors, fields cannot change after start."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


@dataclass(frozen=True, slots=True)
class NamesFile:
    """Marks a text setting that may name a file; a relative one is beside the settings file that it stands in.
    suffixes: those of texts that do; empty: every text but URLs."""

    suffixes: tuple[str, ...] = ()

    def names(self, text: str) -> bool:
        """Whether this text names a file."""
        return not self.suffixes or text.endswith(self.suffixes)


def secret(setting: str, variable: str, file_setting: str = "", file: Path | None = None) -> str:
    """A credential, from the environment variable that `setting` names, else from the file of `file_setting`; ""
    where neither is set.

    Raises:
        ConfigError: the variable is not set, or the file cannot be read.
    """
    if variable:
        if found := os.environ.get(variable, ""):
            return found
        raise ConfigError(f"{setting} names {variable}, which is not set: export it")
    if file is None:
        return ""
    try:
        return file.read_text("utf8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file_setting} {file} cannot be read: {error}") from error


class TlsSettings(Section):
    """Certificates, for both ends of every connection: who connects shows its certificate, and so does who listens.
    The files are read again when they change."""

    certificate: Path | None = Field(
        None, description="PEM file of this process's certificate, its chain after it; empty: plain text"
    )
    key: Path | None = Field(None, description="PEM file of the certificate's key, without a password")
    authority: Path | None = Field(
        None, description="PEM file of the authorities whose certificates are believed, of clients and of servers"
    )
    server_names: Mapping[str, str] = Field(
        {},
        description="host:port, as a command or client is given it -> the name in the server's certificate, where it "
        "is another: behind `kubectl port-forward`, {localhost:7403: judge}",
    )
    probe_bind: str = Field(
        "",
        description="host:port that answers gRPC health checks and nothing else, in plain text, for Kubernetes' "
        "probes; empty: none",
    )

    @property
    def enabled(self) -> bool:
        """Whether there are certificates."""
        return self.certificate is not None

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        given = {"certificate": self.certificate, "key": self.key, "authority": self.authority}
        lacking = [name for name, path in given.items() if path is None]
        if lacking and len(lacking) < len(given):
            raise ValueError(f"{' and '.join(lacking)} missing: give certificate, key and authority, or none of them")
        return self


@dataclass(frozen=True, slots=True)
class Transport:
    """How a process reaches others, and is reached: with certificates, or in plain text. insecure: plain text may
    leave this machine."""

    tls: TlsSettings = field(default_factory=TlsSettings)
    insecure: bool = False


PLAIN: Final = Transport()
"""Plain text, on this machine alone."""


class NatsSettings(Section):
    """The message broker. Streams and consumers are declared from these at start, idempotently."""

    url: str = Field("nats://127.0.0.1:4222", description="NATS server URL; several separated by commas")
    credentials: Path | None = Field(None, description="Path of a .creds file; empty: no authentication")
    nkey_seed: Path | None = Field(
        None,
        description="Path of an NKey seed, or of the folder that `qrelay nats accounts` wrote, of which each process "
        "takes its own user's. Services then wait until `qrelay nats declare` has declared the queues",
    )
    replicas: int = Field(1, ge=1, le=5, description="Copies of each stream; 3 in a cluster of 3 servers")
    max_stream_bytes: int = Field(
        2 * 1024**3, ge=1024**2, description="Bytes a stream may hold; at the limit its producers wait"
    )
    max_message_bytes: int = Field(
        960 * 1024,
        ge=1024,
        description="Bytes of one message; larger ones are refused. 64 KiB below the server's max_payload (1 MiB), "
        "so that any message still fits into a dead letter",
    )
    duplicate_window_s: float = Field(
        600.0, gt=0, description="Seconds in which the server drops a second message of the same Nats-Msg-Id"
    )
    ack_wait_s: float = Field(
        60.0, gt=0, description="Seconds without ack or heartbeat until a held message is delivered again"
    )
    max_ack_pending: int = Field(
        2048, ge=1, description="Messages of one lane that all replicas of a service may hold; caps scale-out"
    )
    publish_timeout_s: float = Field(10.0, gt=0, description="Seconds to wait for a publish to be acknowledged")
    _transport: Transport = PrivateAttr(PLAIN)

    @property
    def transport(self) -> Transport:
        """The certificates for a URL that begins with tls://: those of the settings that this section stands in."""
        return self._transport

    def by(self, transport: Transport) -> Self:
        """The same, reached so."""
        found = self.model_copy()
        found._transport = transport
        return found


class GrpcSettings(Section):
    """The gRPC server."""

    bind: str = Field("127.0.0.1:0", description="host:port to listen on; port 0 takes a free one")
    max_message_bytes: int = Field(32 * 1024**2, ge=1024, description="Bytes of one request or response")
    max_bytes_in_flight: int = Field(
        384 * 1024**2,
        ge=1024,
        description="Bytes of all requests that are read or worked on at once, at least 12 of max_message_bytes; "
        "beyond, calls wait unread until their deadline",
    )
    max_calls: int = Field(1024, ge=1, description="Calls at once, waiting ones included; beyond, RESOURCE_EXHAUSTED")
    receive_timeout_s: float = Field(
        30.0, gt=0, description="Seconds in which a request must arrive, once there is room for it"
    )
    max_pending_items: int = Field(
        512, ge=1, description="Items (queries or sets) held at once; beyond, RESOURCE_EXHAUSTED"
    )
    max_items_per_request: int = Field(256, ge=1, description="Items in one request; beyond, INVALID_ARGUMENT")
    default_deadline_s: float = Field(
        120.0, gt=0, description="Seconds granted to a call whose client set no deadline"
    )


class WorkerSettings(Section):
    """The queue's worker: how messages are gathered, retried and returned."""

    enabled: bool = Field(True, description="Whether to work on the queue; false: only gRPC")
    max_items: int = Field(32, ge=1, description="Messages in one batch")
    max_cost: int = Field(1_000_000, ge=1, description="Cost of one batch (tokens, as the stage counts them)")
    max_bytes: int = Field(8 * 1024**2, ge=1024, description="Bytes in one batch, decompressed")
    max_delay_s: float = Field(
        0.02,
        ge=0,
        description="Seconds that the first message of a batch waits for more; none where nothing is being handled",
    )
    batches_in_flight: int = Field(2, ge=1, description="Batches handled at once, to overlap compute and I/O")
    max_attempts: int = Field(5, ge=1, description="Deliveries of one message before it is dead-lettered")
    retry_delays_s: tuple[float, ...] = Field(
        (1.0, 5.0, 30.0, 120.0), description="Seconds before attempt 2, 3, …; the last repeats"
    )
    stalled_after_s: float = Field(
        60.0, gt=0, description="Seconds in which a stage can neither fetch nor publish until it is not ready"
    )
    heartbeat_s: float = Field(20.0, gt=0, description="Seconds between heartbeats for each held message")
    drain_s: float = Field(
        30.0, ge=0, description="Seconds on SIGTERM to finish held work, and running calls, before returning it"
    )


class TelemetrySettings(Section):
    """Logs, metrics, traces."""

    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Lowest level that is logged")
    metrics_bind: str = Field("127.0.0.1:0", description="host:port of Prometheus /metrics; port 0: a free one")
    otlp_endpoint: str = Field(
        "", description="OTLP/gRPC URL of a collector, http:// or https://; empty: nothing is exported"
    )
    otlp_signals: tuple[Literal["traces", "metrics", "logs"], ...] = Field(
        ("traces",), description="What is exported there; metrics are those of /metrics, logs those of standard error"
    )
    otlp_metrics_every_s: float = Field(60.0, gt=0, description="Seconds between two exports of the metrics")
    lag_every_s: float = Field(
        15.0, ge=0, description="Seconds between readings of every queue's lag for the metrics; 0: none"
    )


class Role(enum.StrEnum):
    """What a person may do; reading is part of every role. `qrelay/security/roles.py` says what takes which."""

    READER = "reader"
    LABELLER = "labeller"
    OPERATOR = "operator"
    TRAINER = "trainer"


class OidcSettings(Section):
    """People by tokens (JWT) of an OpenID Connect issuer."""

    issuer: str = Field("", description="The issuer, as its tokens name it (`iss`); empty: no tokens of an issuer")
    audience: str = Field("", description="Whom tokens must be for (`aud`): the name that the issuer has for qrelay")
    keys: str = Field("", description="URL of the issuer's signing keys (`jwks_uri`): https, or http on loopback")
    claim: str = Field("roles", description="The claim that says a person's roles or groups; a dot goes deeper")
    roles: Mapping[str, Role] = Field(
        {}, description="The claim's value -> role; a value that is not here counts as a role where it is one's name"
    )
    person: str = Field(
        "sub", description="The claim that names the person, as author and in the audit log; it must be unique"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if any((self.issuer, self.audience, self.keys)) and not all((self.issuer, self.audience, self.keys)):
            raise ValueError("issuer, audience and keys go together: set all three")
        url = urlsplit(self.keys)
        safe = url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname or ""))
        if self.keys and (not safe or "@" in url.netloc):
            raise ValueError("keys: who can change them on their way can be anybody: use https, and no credentials")
        return self


def _is_rate(text: str) -> str:
    rates_of(text)
    return text


Rate = Annotated[str, AfterValidator(_is_rate)]
"""As `parsing.rates_of` reads it."""


class AccessSettings(Section):
    """Who people are, and what they may do. With none of it, whoever reaches a port may do everything."""

    tokens: Path | None = Field(
        None, description="File of people's tokens, as `qrelay tokens add` writes it; read again when it changes"
    )
    grants: Mapping[str, tuple[Role, ...]] = Field(
        {}, description="Person of a certificate -> roles: reader, labeller, operator, trainer"
    )
    oidc: OidcSettings = OidcSettings()
    rates: Mapping[str, Rate] = Field(
        {},
        description="Person, service/NAME, or * (each of all others, and each address of which nobody is known) -> "
        "calls that a process takes of them, such as `100/second` or `100/second; 5000/hour`; empty: no limit",
    )

    @property
    def on(self) -> bool:
        """Whether people are asked who they are: by tokens, certificates or an issuer."""
        return bool(self.tokens or self.grants or self.oidc.issuer)


class ServiceSettings(Section):
    """What every service has. Each service's class adds its own fields."""

    data_dir: Path = Field(
        Path(".qrelay"),
        description="Folder of this installation's state: indexes, ledger, caches. `--data-dir` and QRELAY_DATA_DIR "
        "win over it",
    )
    registry: Path | None = Field(
        None, description="Folder of the model registry, shared with the trainer; empty: <data_dir>/registry"
    )
    replica: str = Field("", description="This replica's name in traces; empty: host name and process id")
    run_dir: Path | None = Field(
        None, description="Folder to write <service>.json (pid, addresses) into once listening; empty: none"
    )
    insecure: bool = Field(
        False,
        description="Whether plain text may leave this machine: without `tls`, whoever reads the network sees all, "
        "and whoever reaches a port may do everything",
    )
    plain_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts that endpoints (`judge.endpoint`, `retriever.milvus`, the OTLP collector, …) may be asked "
        "at in plain text without `insecure`, each as the endpoint names it; where a service mesh encrypts, say",
    )
    tls: TlsSettings = TlsSettings()
    nats: NatsSettings = NatsSettings()
    grpc: GrpcSettings = GrpcSettings()
    worker: WorkerSettings = WorkerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    access: AccessSettings = AccessSettings()

    @property
    def registry_folder(self) -> Path:
        """`registry`, or its default."""
        return self.registry or self.data_dir / "registry"

    @property
    def transport(self) -> Transport:
        """How this process reaches others."""
        return Transport(self.tls, self.insecure)

    @property
    def exposed(self) -> Sequence[str]:
        """What of these settings lets plain text leave this machine, each with what to do instead."""
        return self._exposed(())

    def _exposed(self, allowed: Collection[str]) -> Sequence[str]:
        """allowed: hosts of endpoints that are left out."""
        found = [] if self.tls.enabled else [
            f"{name} {bind} is reached from other machines in plain text: set tls"
            for name, bind in self._binds() if bind and not is_loopback(bind.rpartition(":")[0])
        ]  # fmt: skip
        return (
            found
            + [*plain_nats(self.nats.url)]
            + [each for setting, url in self._databases() for each in plain_postgres(setting, url)]
            + [each for setting, url in self._endpoints() for each in plain_http(setting, url, allowed)]
        )

    def _databases(self) -> Sequence[tuple[str, str]]:
        """Setting -> address, of the databases that this process opens."""
        return ()

    def _endpoints(self) -> Sequence[tuple[str, str]]:
        """Setting -> URL, of the servers of others that this process may ask; empty where there is none. Used or not:
        a command may choose another engine than the settings."""
        return (("telemetry.otlp_endpoint", self.telemetry.otlp_endpoint),)

    def _binds(self) -> Sequence[tuple[str, str]]:
        """Setting -> host:port, of all that this process listens on for more than a probe."""
        metrics = self.telemetry.metrics_bind
        here = f"127.0.0.1{metrics}" if metrics.startswith(":") else metrics  # so `setup_metrics` takes it
        return ("grpc.bind", self.grpc.bind), ("telemetry.metrics_bind", here)

    @model_validator(mode="after")
    def _plain_text_stays_here(self) -> Self:
        object.__setattr__(self, "nats", self.nats.by(self.transport))  # a copy: defaults are everybody's
        if not self.insecure and (found := self._exposed(self.plain_hosts)):
            raise ValueError(f"{'; '.join(found)}; or say insecure: true")
        return self

    @model_validator(mode="after")
    def _heartbeat_within_ack_wait(self) -> Self:
        if self.worker.heartbeat_s >= self.nats.ack_wait_s:
            raise ValueError(
                f"worker.heartbeat_s ({self.worker.heartbeat_s}) must be below nats.ack_wait_s "
                f"({self.nats.ack_wait_s}), or held messages are delivered to a second replica"
            )
        return self
