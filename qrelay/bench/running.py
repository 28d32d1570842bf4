"""The processes of a benchmark that were started here: services, replicas of them, and NATS.

The settings in force apply (file and environment); on top come free ports, the data folder, whether there is a queue,
and the fakes with their simulated times. Logs and announcements are in a folder of the run's own, so a benchmark
neither finds nor disturbs a `qrelay up`; with the default data folder, which is temporary, not even its data.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from qrelay.bench.probe import Process
from qrelay.config import ServiceSettings, Transport
from qrelay.errors import ConfigError, QrelayError, SetupError
from qrelay.judging.cache_records import NO_CACHE
from qrelay.parsing import json_document
from qrelay.rundir import Endpoint, endpoints
from qrelay.runtime.lookout import refuse_stillness
from qrelay.runtime.natsserver import NatsServer
from qrelay.runtime.supervisor import Child, Supervisor, service_environ
from qrelay.settings import Effective, find
from qrelay.settings.record import write_settings
from qrelay.settings.sections import settings_classes

NATS: Final = "nats-server"
_NO_NATS: Final = "nats://127.0.0.1:9"
_POLL_S: Final = 0.05
_STORES: Final = (("sink", "ledger"), ("judge", "cache"), ("all", "registry"), ("sink", "registry"))
"""Settings of what an installation writes to."""
_UNCACHED: Final = {"QRELAY_JUDGE__CACHE": NO_CACHE}
"""A judge would answer items that repeat from its cache, which says nothing of the model."""
_STUB_TIMES: Final = {
    "retriever": ({"ENGINE": "synthetic"}, "SYNTHETIC__SERVICE_TIME_S"),
    "reranker": ({"SCORER": "fake"}, "FAKE__SERVICE_TIME_S"),
    "judge": ({"BACKEND": "fake"}, "FAKE__SERVICE_TIME_S"),
}
"""The shipped fake of each service that has a model, and where its simulated time is set."""


def simulated(times: Mapping[str, float]) -> dict[str, str]:
    """The environment in which these services run as fakes that take this many seconds a query.

    Raises:
        ConfigError: a service without a fake.
    """
    environ: dict[str, str] = {}
    for service, seconds in times.items():
        if service not in _STUB_TIMES:
            raise ConfigError(f"--service-time {service}=…: only {', '.join(_STUB_TIMES)} have a fake; leave it out")
        settings, time_setting = _STUB_TIMES[service]
        chosen = {**settings, time_setting: str(seconds)}
        environ |= {f"QRELAY_{service.upper()}__{name}": value for name, value in chosen.items()}
    return environ


@dataclass(frozen=True, slots=True)
class Plan:
    """How services are started. `environ` comes on top of this process's own, and a judge has no cache unless one of
    the two names it."""

    config: Path | None = None
    data_dir: Path | None = None
    """Empty: a temporary one."""
    environ: Mapping[str, str] = field(default_factory=dict)
    queue: bool = False
    """With NATS; otherwise the services only answer gRPC."""

    @property
    def variables(self) -> dict[str, str]:
        """The environment of what is started."""
        return {**_UNCACHED, **os.environ, **self.environ}

    @property
    def settings(self) -> Effective:
        """What is in force for the services: of the installation in `data_dir`, or of the one here. The stores of
        one that was merely found stay its own: what is measured writes to the folder of the run."""
        found = find(self.config, self.data_dir, self.variables)
        return found if found.named or self.data_dir else found.without(_STORES)

    @property
    def transport(self) -> Transport:
        """How the services are reached."""
        return self.settings.settings(ServiceSettings, "all").transport


class Fleet:
    """Processes of one run; a context manager that stops what still runs. Names: judge, judge-2, judge-3, …"""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._temporary = tempfile.TemporaryDirectory(prefix="qrelay-bench-", ignore_cleanup_errors=True)
        self._work = Path(self._temporary.name)
        self.data_dir = plan.data_dir.resolve() if plan.data_dir else self._work / "data"
        self._settings = self._work / "settings.yaml"
        self._nats = NatsServer(self._work / "nats") if plan.queue else None
        self._supervisor = Supervisor([], self._nats, lambda _: None)
        self._gone: set[str] = set()
        self.transport = plan.transport
        """How its processes are reached."""

    def __enter__(self) -> Self:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        try:
            write_settings(self._settings, self._plan.settings.without_variables(), settings_classes())
            self._supervisor.start()
        except BaseException:
            self._temporary.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._supervisor.stop()
        self._temporary.cleanup()

    @property
    def nats_url(self) -> str:
        """The NATS server's URL."""
        return self._nats.url if self._nats else _NO_NATS

    def launch(self, service: str, environ: Mapping[str, str] | None = None) -> str:
        """Start one more process of the service, without waiting; its name."""
        number = 1 + sum(child.service == service for child in self._supervisor.children)
        name = service if number == 1 else f"{service}-{number}"
        base = {**self._plan.variables, **(environ or {})}
        base[f"QRELAY_{service.upper()}__WORKER__ENABLED"] = str(self._plan.queue).lower()
        base["QRELAY_CONFIG"] = str(self._settings)
        run_dir = self._work / name / "run"
        child = Child(
            name,
            self._work / "logs" / f"{name}.log",
            service_environ(base, service, self.data_dir, self.nats_url, run_dir=run_dir),
            service=service,
            transport=self.transport,
        )
        child.start()
        self._supervisor.children.append(child)
        return name

    def start(self, services: Sequence[str]) -> dict[str, Endpoint]:
        """Start one process each, and wait until all are ready; their endpoints by name. Raises as `wait_ready`."""
        return self.wait_ready([self.launch(service) for service in services])

    def wait_ready(self, names: Sequence[str]) -> dict[str, Endpoint]:
        """Wait until these answer as ready, for as long as they get on.

        Raises:
            SetupError: one ended; its last words are in the text.
            BackendTimeout: none of them shows a sign of life any more.
        """
        waited = [self._child(name) for name in names]
        while not all(child.watch.ready for child in waited):
            for child in waited:
                if not child.runs:
                    raise SetupError(self._ended(child))
                child.look(self.endpoint(child.name))
            refuse_stillness([child.watch for child in waited], hint=f"their logs are in {self._work / 'logs'}")
            time.sleep(_POLL_S)
        return {child.name: found for child in waited if (found := self.endpoint(child.name))}

    def _ended(self, child: Child) -> str:
        hint = "" if self._plan.data_dir else (
            "\nIt was started with the settings in force on a temporary data folder: give --data-dir for an index, "
            "models or a cache that are there already, or --service-time for the fake."
        )  # fmt: skip
        code = child.process.poll() if child.process else None
        return f"{child.name} ended with {code}:\n{child.last_words()}{hint}"

    def endpoint(self, name: str) -> Endpoint | None:
        """Where a process listens; None before it does."""
        return endpoints(self._work / name).get(self._child(name).service)

    def names(self, service: str) -> list[str]:
        """The processes of a service that run, oldest first."""
        return [child.name for child in self._supervisor.children if child.service == service and child.runs]

    def processes(self) -> dict[str, Process]:
        """For the probe: every process that runs."""
        running = [child for child in self._supervisor.children if child.runs]
        found = {
            child.name: Process(end.metrics, end.pid, self.transport)
            for child in running
            if (end := self.endpoint(child.name))
        }
        if self._nats and self._nats.pid:
            found[NATS] = Process(pid=self._nats.pid)
        return found

    def signal(self, name: str, number: signal.Signals) -> None:
        """SIGKILL or SIGTERM one process; `check` no longer minds that it ends."""
        child = self._child(name)
        self._gone.add(name)
        if child.process:
            child.process.send_signal(number)

    def wait_ended(self, name: str, within_s: float) -> int | None:
        """The exit code, as soon as it has ended; None where it still runs after so many seconds."""
        child, deadline = self._child(name), time.monotonic() + within_s
        while child.process and time.monotonic() < deadline:
            if (code := child.process.poll()) is not None:
                return code
            time.sleep(_POLL_S / 5)
        return None

    def log_entries(self, name: str) -> list[dict[str, Any]]:
        """The JSON lines of a process's log so far."""
        return json_lines(self._child(name).log)

    def check(self) -> None:
        """Whether all that should run still does.

        Raises:
            SetupError: a process ended by itself.
        """
        for child in self._supervisor.children:
            if child.name not in self._gone and not child.runs:
                raise SetupError(f"the run is void: {self._ended(child)}")

    def _child(self, name: str) -> Child:
        for child in self._supervisor.children:
            if child.name == name:
                return child
        raise QrelayError(f"no process {name}: there are {[each.name for each in self._supervisor.children]}")


def json_lines(log: Path) -> list[dict[str, Any]]:
    """The lines of a log that are JSON objects; others (a traceback, a library's words) are passed over."""

    found = []
    for line in log.read_text("utf8", "replace").splitlines():
        if line.startswith("{"):
            try:
                found.append(json_document(line))
            except ValueError:
                continue  # the process was killed in the middle of it
    return found
