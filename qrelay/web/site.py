"""What all requests share: settings, the ledger, the services' channels.

site = site_of(request)
with site.ledger().snapshot() as snapshot: ...              # in a plain (threaded) endpoint
found = await site.reading.run(read, site)                      # in an async one
answer = await site.call("retriever", "Retrieve", pb.RetrieveRequest(...))
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from starlette.requests import HTTPConnection

from qrelay.client.places import SERVICES, Places
from qrelay.config import NatsSettings, Transport
from qrelay.judging.settings import JudgeSettings
from qrelay.labels.browse.thresholds import Histogram, Histograms
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.settings import SinkSettings
from qrelay.rundir import endpoints
from qrelay.runtime.client import OPTIONS, translated
from qrelay.runtime.natsaccounts import with_seeds
from qrelay.runtime.overview import Overview
from qrelay.runtime.telemetry import trace_context
from qrelay.security.access import Gate, header_of
from qrelay.security.identity import acting
from qrelay.settings import load_settings
from qrelay.settings.sections import CONSOLE
from qrelay.web.counting import Counting
from qrelay.web.settings import ConsoleSettings, Service
from qrelay.web.workers import Workers

PATIENCE_S: Final = 0.1
"""A page does not wait longer for the queues' server; the next look may have its answer."""
FRESH_S: Final = 0.9
READERS: Final = 10
_DECIDERS: Final = 4
"""With the readers and the one that counts, as many as the ledger has connections (SQLAlchemy's 15)."""
_FEEDERS: Final = 4


class Site:
    """See the module. sink: the sink's settings, which say where the ledger is and what becomes training data;
    rubric: the judge's, in whose words people grade; transport: how the services are reached; None: as the console
    reaches them."""

    def __init__(
        self, settings: ConsoleSettings, sink: SinkSettings, rubric: str = "", transport: Transport | None = None
    ) -> None:
        self.settings, self.sink, self.rubric = settings, sink, rubric
        self.transport = transport or settings.transport
        self.gate = Gate(settings.access)
        self.stopping: Callable[[], bool] = lambda: False
        """Whether the server has been told to end: what goes on for long ends then."""
        self.streams_left = settings.max_streams
        self.overview = Overview(
            settings.data_dir, self.nats, name=CONSOLE, patience_s=PATIENCE_S, fresh_s=FRESH_S,
            transport=self.transport,
        )  # fmt: skip
        """What every page on the pipeline shows, looked at once for all of them."""
        self.reading, self.deciding, self.feeding = Workers(READERS), Workers(_DECIDERS), Workers(_FEEDERS)
        """Threads that read the ledger, write what people decide, and feed."""
        self.histograms = Counting(self._histograms)
        """By collection."""
        self._kept = Histograms()
        self.mcp: Any = None
        """What answers at /mcp, while the application runs."""
        self._ledger: Ledger | None = None
        self._opening = threading.Lock()
        given = {service: getattr(settings, service) for service in SERVICES}
        self._places = Places(settings.data_dir, given, OPTIONS, self.transport, shows_token=False)

    @classmethod
    def of(
        cls,
        data_dir: Path | None,
        config: Path | None,
        *,
        port: int | None = None,
        transport: Transport | None = None,
    ) -> Site:
        """With the settings of an installation; `port`: instead of that of console.bind. Raises ConfigError."""
        console = load_settings(ConsoleSettings, "console", file=config, data_dir=data_dir)
        if port is not None:
            console = console.model_copy(update={"bind": f"{console.bind.rpartition(':')[0]}:{port}"})
        sink = load_settings(SinkSettings, "sink", file=config, data_dir=data_dir)
        judge = load_settings(JudgeSettings, "judge", file=config, data_dir=data_dir)
        return cls(console, sink, judge.rubric, transport)

    def ledger(self) -> Ledger:
        """The ledger, opened when first asked for: `qrelay up` starts the console beside the sink, which makes it.

        Raises:
            ConfigError: there is none yet, or of another version.
            BackendUnavailable: the database does not answer.
        """
        with self._opening:
            if self._ledger is None:
                timeout_s = self.sink.busy_timeout_s
                self._ledger = Ledger.open(self.sink.ledger_url, busy_timeout_s=timeout_s, create=False)
            return self._ledger

    def _histograms(self, collection: str) -> list[Histogram]:
        """In a thread."""
        with self.ledger().snapshot() as snapshot:
            return self._kept.of(snapshot, collection, self.sink.rules.relevant_grades)

    def nats(self) -> NatsSettings:
        """Where the queues are: the server that runs from the data folder, else the settings'."""
        running = endpoints(self.settings.data_dir).get("nats")
        nats = self.settings.nats
        return with_seeds(nats.model_copy(update={"url": running.grpc}), self.settings.data_dir) if running else nats

    async def call(self, service: Service, method: str, request: Any) -> Any:
        """One unary call, with this server's deadline.

        Raises:
            BackendUnavailable: the service is nowhere that is known.
            QrelayError: the service's own errors, see `runtime/client.py`.
        """
        address, stub = self._places.stub(service)
        with translated(address):
            timeout_s = self.settings.grpc.default_deadline_s
            return await getattr(stub, method)(request, timeout=timeout_s, metadata=self._told(service))

    async def stream(self, service: Service, method: str, request: Any) -> AsyncIterator[Any]:
        """A call whose answers come one by one, for as long as somebody reads them. Raises as `call`."""
        address, stub = self._places.stub(service)
        with translated(address):
            async for answer in getattr(stub, method)(request, metadata=self._told(service)):
                yield answer

    def _told(self, service: Service) -> tuple[tuple[str, str], ...]:
        """The trace that a call belongs to, and what shows this service who asks, whose role it checks itself."""
        caller = acting.get()
        shown = self.gate.for_service(caller.bearer, f"qrelay.v1.{service.capitalize()}Service") if caller else ""
        return *trace_context(), *header_of(shown)

    async def close(self) -> None:
        """Closes channels and the ledger."""
        self.histograms.close()
        await self.overview.close()
        await self._places.close()
        if self._ledger is not None:
            self._ledger.close()


def site_of(request: HTTPConnection) -> Site:
    """The site that this request is of."""
    site: Site = request.app.state.site
    return site
