"""`qrelay up`: the four services as processes, with an embedded NATS or an external one.

A service that dies is started again, with a growing pause; one that exits with 78 (settings, model, index,
port) stops everything, because starting it again cannot help. Ctrl-C or SIGTERM drains: services first,
each within its `worker.drain_s`, then NATS. Nothing is lost in either case: streams and ledger are on disk.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
import grpc
from filelock import FileLock, Timeout
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console

from qrelay.cli.config import installed_classes
from qrelay.cli.options import config_option, data_dir_option
from qrelay.cli.serve import installed_services
from qrelay.errors import BackendTimeout, ConfigError, SetupError
from qrelay.files import write_atomic
from qrelay.rundir import DATA_DIR_VARIABLE, Endpoint, endpoints
from qrelay.runtime.exitcodes import EXIT_OK, EXIT_SETUP
from qrelay.runtime.natsserver import NatsServer
from qrelay.settings import find
from qrelay.settings.effective import renewed
from qrelay.settings.record import changes, recorded_environ, write_record

_RESTART_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 15.0)
_STABLE_S = 60.0
"""A service that ran this long before it died starts over with the shortest pause."""
_STOP_S = 45.0
_LOG_TAIL_LINES = 5

PID_FILE = "up.pid"
_ALL_READY = "all ready"

ORDER = ("sink", "judge", "reranker", "retriever")
"""Start from the end of the line, so that the first query finds its whole way open."""


@dataclass
class Child:
    """One service process and its restarts."""

    name: str
    log: Path
    environ: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restarts: int = 0
    restart_at: float = 0.0
    service: str = ""  # where a replica's own name is not its service's

    def start(self) -> None:
        """Start the process; its log is appended to `log`."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "qrelay.cli.main", "serve", self.service or self.name],
                stdout=log,
                stderr=log,
                env=dict(self.environ),
                start_new_session=True,
            )
        self.started_at = time.monotonic()

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text("utf8", "replace").splitlines()[-_LOG_TAIL_LINES:])


@dataclass
class Supervisor:
    """Keeps the children running until told to stop."""

    children: list[Child]
    nats: NatsServer | None
    say: Callable[[str], None]
    stopping: bool = field(default=False)

    def start(self) -> None:
        """NATS, then the services."""
        if self.nats:
            self.nats.start()
        for child in self.children:
            child.start()

    def watch_once(self) -> None:
        """Start again what died.

        Raises:
            SetupError: a child exited with 78: starting it again cannot help.
        """
        if self.nats and not self.nats.pid:
            self.say("nats-server died; starting it again")
            self.nats.start()
        for child in self.children:
            self._watch(child)

    def _watch(self, child: Child) -> None:
        if child.process is None or (code := child.process.poll()) is None:
            return
        if code == EXIT_SETUP:
            raise SetupError(f"{child.name} cannot run; its log {child.log} ends:\n{child.tail()}")
        if code == EXIT_OK:  # it was told to end, or a budget is used up: starting it again would undo that
            self.say(f"{child.name} ended as it should and stays down until the next `qrelay up` (log: {child.log})")
            child.process = None
            return
        now = time.monotonic()
        if not child.restart_at:
            if now - child.started_at > _STABLE_S:
                child.restarts = 0
            pause = _RESTART_PAUSES_S[min(child.restarts, len(_RESTART_PAUSES_S) - 1)]
            child.restart_at, child.restarts = now + pause, child.restarts + 1
            self.say(f"{child.name} ended with {code}; starting it again in {pause:g} s (log: {child.log})")
        elif now >= child.restart_at:
            child.restart_at = 0.0
            child.start()

    def stop(self) -> None:
        """Drain the services, then stop NATS."""
        self.stopping = True
        running = [child.process for child in self.children if child.process and child.process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.nats:
            self.nats.stop()


def is_ready(endpoint: Endpoint) -> bool:
    """Whether the service's gRPC health says SERVING."""
    with grpc.insecure_channel(endpoint.grpc) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def service_environ(base: Mapping[str, str], name: str, data_dir: Path, nats_url: str,
                    ports: tuple[int, int] = (0, 0), run_dir: Path | None = None) -> dict[str, str]:  # fmt: skip
    """The environment of one process of a service. ports: of gRPC and metrics. Replicas need a `run_dir` each."""
    section = f"QRELAY_{name.upper()}__"
    ours = {
        DATA_DIR_VARIABLE: str(data_dir),
        "QRELAY_ALL__DATA_DIR": str(data_dir),
        "QRELAY_ALL__RUN_DIR": str(run_dir or data_dir / "run"),
        "QRELAY_ALL__NATS__URL": nats_url,
        f"{section}GRPC__BIND": f"127.0.0.1:{ports[0]}",
        f"{section}TELEMETRY__METRICS_BIND": f"127.0.0.1:{ports[1]}",
    }
    return {**base, **ours}


def build(data_dir: Path, nats_url: str | None, nats_port: int | None, port_base: int,
          services: tuple[str, ...], say: Callable[[str], None]) -> Supervisor:  # fmt: skip
    """The supervisor with nothing started yet; services run with what is recorded. Port base 0: free ports."""
    if nats_port is None:
        nats_port = port_base
    nats = None if nats_url else NatsServer(data_dir / "nats", port=nats_port)
    if nats and not nats_port:
        nats.reserve_port()
    base = recorded_environ(os.environ, data_dir)
    children = []
    for number, name in enumerate(("retriever", "reranker", "judge", "sink"), 1):
        if name not in services:
            continue
        ports = (port_base + number, port_base + 10 + number) if port_base else (0, 0)
        environ = service_environ(base, name, data_dir, nats_url or (nats.url if nats else ""), ports)
        children.append(Child(name, data_dir / "logs" / f"{name}.log", environ))
    children.sort(key=lambda child: ORDER.index(child.name))
    return Supervisor(children, nats, say)


@click.command()
@data_dir_option()
@config_option()
@click.option("--nats", "nats_url", help="URL of a NATS server to use instead of the embedded one.")
@click.option("--nats-port", type=int, help="Port of the embedded NATS.  [default: the port base]")
@click.option("--port-base", type=int, default=7400, show_default=True,
              help="Services listen on base+1…4, metrics on base+11…14; 0 takes free ports.")  # fmt: skip
@click.option("--only", "services", multiple=True, type=click.Choice(installed_services()),
              help="Start just this service (repeatable).")  # fmt: skip
@click.option("--detach", is_flag=True, help="Return when all are ready; `qrelay down` stops them.")
def up(data_dir: Path, config: Path | None, nats_url: str | None, nats_port: int | None, port_base: int,
       services: tuple[str, ...], detach: bool) -> None:  # fmt: skip
    """Run the four services here until Ctrl-C."""
    console = Console(stderr=True)
    data_dir = data_dir.resolve()
    settings, classes = find(config, data_dir), installed_classes()
    renewed(settings).check(classes)
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(data_dir / "up.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"another `qrelay up` runs on {data_dir}: stop it, or choose --data-dir") from None
    if detach:
        lock.release()
        _detach(data_dir / "logs" / "up.log", console)
        return
    (data_dir / PID_FILE).write_text(str(os.getpid()))
    for stale in (data_dir / "run").glob("*.json"):
        stale.unlink()
    for line in changes(settings, classes):
        console.print(line, highlight=False, markup=False)
    write_record(renewed(settings), classes)
    wanted = services or tuple(installed_services())
    supervisor = build(data_dir, nats_url, nats_port, port_base, wanted, console.print)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(supervisor, "stopping", True))
    try:
        _run(supervisor, data_dir, console)
    finally:
        console.print("stopping: services finish or return what they hold")
        supervisor.stop()
        lock.release()
    console.print("stopped")


def _detach(log: Path, console: Console) -> None:
    """The same command in a session of its own; returns when it says that all are ready.

    Raises:
        SetupError: it ended instead; its last words are in the text.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = [argument for argument in sys.argv[1:] if argument != "--detach"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "qrelay.cli.main", *arguments],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    with console.status("starting; models take a while to load"):
        while (said := log.read_text("utf8", "replace")).find(_ALL_READY) < 0:
            if process.poll() is not None:
                raise SetupError(f"`qrelay up` ended with {process.returncode}; {log} says:\n{said}")
            time.sleep(0.1)
    console.print(said.rstrip(), highlight=False, markup=False)


@click.command()
@data_dir_option()
@config_option(used=False)
def down(data_dir: Path) -> None:
    """Stop what `qrelay up` runs on this folder: services drain, then NATS stops."""
    lock, pid_file = FileLock(data_dir / "up.lock"), data_dir / PID_FILE
    try:
        lock.acquire(timeout=0)
        lock.release()
        click.echo(f"nothing runs on {data_dir}")
        return
    except Timeout:
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
    try:
        with Console(stderr=True).status("services finish or return what they hold"):
            lock.acquire(timeout=_STOP_S + 15)
    except Timeout:
        raise BackendTimeout(f"`qrelay up` did not stop; its log is in {data_dir / 'logs'}") from None
    lock.release()
    click.echo("stopped")


def _run(supervisor: Supervisor, data_dir: Path, console: Console) -> None:
    supervisor.start()
    if supervisor.nats:
        _announce_nats(data_dir, supervisor.nats)
        console.print(f"nats      {supervisor.nats.url}  (store: {data_dir / 'nats'})")
    announced: set[str] = set()
    while not supervisor.stopping:
        supervisor.watch_once()
        if supervisor.nats:
            _announce_nats(data_dir, supervisor.nats)
        for name, endpoint in endpoints(data_dir).items():
            if name not in announced and name != "nats" and is_ready(endpoint):
                announced.add(name)
                console.print(f"{name:<9} ready  grpc {endpoint.grpc}  metrics http://{endpoint.metrics}/metrics")
                if len(announced) == len(supervisor.children):
                    console.print(f"{_ALL_READY}: `qrelay feed FILE --collection NAME`, `qrelay top`; Ctrl-C stops")
        time.sleep(0.2)


def _announce_nats(data_dir: Path, nats: NatsServer) -> None:
    file = data_dir / "run" / "nats.json"
    entry = f'{{"service": "nats", "pid": {nats.pid}, "grpc": "{nats.url}", "metrics": ""}}'.encode()
    if not file.exists() or file.read_bytes() != entry:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, entry)
