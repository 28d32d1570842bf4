"""Where the services are, and the channels to them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import grpc.aio

from qrelay.config import PLAIN, Transport
from qrelay.errors import BackendUnavailable
from qrelay.progress import Progress
from qrelay.rundir import require
from qrelay.runtime.client import OPTIONS, signed
from qrelay.runtime.lookout import preparing
from qrelay.security.tls import Channels, leaves_here
from qrelay.settings.load import transport_of
from qrelay.settings.sources import default_data_dir
from qrelay.v1.service_info_pb2 import SERVICE_STATE_PREPARING, ServiceInfo

SERVICES: Final = ("retriever", "reranker", "judge", "sink")
_NO_RETRIES: Final = '{"loadBalancingConfig": [{"round_robin": {}}]}'
"""The client has attempts of its own, which look the address up again."""
ATTEMPTED_ELSEWHERE: Final = [
    *(pair for pair in OPTIONS if pair[0] != "grpc.service_config"),
    ("grpc.service_config", _NO_RETRIES),
    ("grpc.enable_retries", 0),
]
"""Options of channels whose calls are tried again by `patience`."""
_ANSWER_S: Final = 5.0


class Places:
    """The services of one installation. Use from one event loop."""

    def __init__(
        self,
        data_dir: Path | None,
        given: Mapping[str, str],
        options: Sequence[tuple[str, Any]] = ATTEMPTED_ELSEWHERE,
        transport: Transport | None = None,
        *,
        shows_token: bool = True,
    ) -> None:
        """data_dir: None: as every command finds it, once it is needed. given: service -> host:port or
        dns:///name:port; others (and "") are those that run from the data folder, wherever they listen by then.
        options: the channels'; transport: None: by the folder's settings. shows_token: whether calls show this
        process's token; a server's show that of who asks instead."""
        self._data_dir, self.given = data_dir, dict(given)
        self._options, self._transport, self._shows_token = options, transport, shows_token
        self._opened: Channels | None = None
        self._met: set[str] = set()

    @cached_property
    def data_dir(self) -> Path:
        """The data folder. Raises ConfigError: the settings file, which names it, does not hold."""
        return self._data_dir or default_data_dir()

    @property
    def transport(self) -> Transport:
        """How the services are reached: as given, else by the installation's settings, which nobody needs who names
        neither an installation nor another machine. Raises ConfigError."""
        if self._transport is None:
            here = self._data_dir is None and self.given and not any(map(leaves_here, self.given.values()))
            self._transport = PLAIN if here else transport_of(self._data_dir)
        return self._transport

    def channel(self, address: str) -> grpc.aio.Channel:
        """The channel for the next call. Raises ConfigError."""
        if self._opened is None:
            self._opened = Channels(self.transport, self._options)
        return self._opened.to(address)

    def address(self, service: str) -> str:
        """host:port. Raises BackendUnavailable: none runs from the data folder; ConfigError: see `data_dir`."""
        found = self.given.get(service) or require(self.data_dir, service).grpc
        self._met.add(service)
        return found

    def met(self, service: str) -> bool:
        """Whether the service had an address before: it may come back."""
        return service in self._met

    def stub(self, service: str) -> tuple[str, Any]:
        """(address, the service's asynchronous stub). Raises BackendUnavailable: none runs from the data folder."""
        address = self.address(service)
        stubs = importlib.import_module(f"qrelay.v1.{service}_pb2_grpc")
        stub = getattr(stubs, f"{service.capitalize()}ServiceStub")(self.channel(address))
        return address, signed(stub) if self._shows_token else stub

    async def info(self, service: str) -> ServiceInfo:
        """What the service says of itself, asked once. Raises BackendUnavailable, grpc.aio.AioRpcError."""
        _, stub = self.stub(service)
        messages = importlib.import_module(f"qrelay.v1.{service}_pb2")
        request = getattr(messages, f"{service.capitalize()}ServiceGetInfoRequest")()
        info: ServiceInfo = (await stub.GetInfo(request, timeout=_ANSWER_S)).info
        return info

    async def preparing(self, service: str) -> tuple[Progress, float] | None:
        """What the service does to be ready, and seconds since that last advanced; None: it does not say that it
        prepares itself."""
        try:
            info = await self.info(service)
        except (grpc.aio.AioRpcError, BackendUnavailable):
            return None
        if info.state != SERVICE_STATE_PREPARING:
            return None
        return preparing(info) or Progress(f"{service}: starting"), info.preparation.idle_s

    async def close(self) -> None:
        """Close every channel."""
        if self._opened:
            await self._opened.close()
