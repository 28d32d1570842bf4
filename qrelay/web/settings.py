"""The console's settings. Its limits of bodies, items, calls and seconds are those of section `grpc`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from qrelay.config import ServiceSettings

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
"""Names by which a browser or a program on this machine reaches it."""
Service = Literal["retriever", "reranker", "judge", "sink"]


class ConsoleSettings(ServiceSettings):
    """See `qrelay config console` for the effective values."""

    enabled: bool = Field(True, description="Whether `qrelay up` starts the console beside the services")
    bind: str = Field(
        "127.0.0.1:7405",
        description="host:port to listen on; without `access`, of this machine alone (127.0.0.1, ::1 or localhost). "
        "Port 0 takes a free one. `qrelay up` sets it",
    )
    hosts: tuple[str, ...] = Field(
        (), description="Names beside 127.0.0.1, ::1 and localhost by which browsers and programs reach it"
    )
    retriever: str = Field("", description="gRPC address of the retriever; empty: the one that runs from data_dir")
    reranker: str = Field("", description="gRPC address of the reranker; empty: the one that runs from data_dir")
    judge: str = Field("", description="gRPC address of the judge; empty: the one that runs from data_dir")
    sink: str = Field("", description="gRPC address of the sink; empty: the one that runs from data_dir")
    max_streams: int = Field(
        64, ge=1, description="Pages that are kept up to date at once (server-sent events); beyond, 429"
    )
    max_form_bytes: int = Field(1024**2, ge=1024, description="Bytes of a form that a page sends; beyond, 413")

    def _binds(self) -> Sequence[tuple[str, str]]:
        return ("console.bind", self.bind), ("telemetry.metrics_bind", self.telemetry.metrics_bind)

    @model_validator(mode="after")
    def _asks_who_comes_from_elsewhere(self) -> Self:
        host, _, port = self.bind.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"bind: {self.bind!r} is not host:port")
        if host.strip("[]") not in LOOPBACK and not self.access.on:
            raise ValueError(
                f"bind: {host!r} is not one of {', '.join(LOOPBACK)}, and the console asks nobody who they are: use "
                "127.0.0.1, and a tunnel (ssh -L, kubectl port-forward) to reach it from elsewhere, or set access"
            )
        return self
