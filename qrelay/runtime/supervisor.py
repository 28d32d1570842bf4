"""The services as child processes: started, watched until ready, restarted when they die, drained."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qrelay.config import PLAIN, Transport
from qrelay.errors import BackendUnavailable, SetupError
from qrelay.exitcodes import EXIT_OK, EXIT_SETUP
from qrelay.rundir import DATA_DIR_VARIABLE, Endpoint
from qrelay.runtime.lookout import LOOK_S, STILL_LOOKS, Watch, refuse_stillness
from qrelay.runtime.natsserver import NatsServer
from qrelay.settings.sections import CONSOLE

_RESTART_PAUSES_S: Final = (0.5, 1.0, 2.0, 5.0, 15.0)
_STABLE_S: Final = 60.0
"""A service that ran this long before it died starts over with the shortest pause."""
_START_ATTEMPTS: Final = 3
"""A service that died so often without ever having been ready is not started again."""
_STOP_MARGIN_S: Final = 15.0
"""Seconds that a service may take to end beyond its `worker.drain_s`, before it is killed."""
_TOLD_LOOKS: Final = 60
"""Looks without a sign of life after which it is said; and again each time that the number has doubled."""
_LOG_TAIL_LINES: Final = 5
_TRACEBACK: Final = "Traceback (most recent call last):"


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
    drain_s: float = 30.0
    transport: Transport = PLAIN
    """How it is reached from here."""
    log_from: int = 0
    """Bytes of the log that former processes wrote."""
    was_ready: bool = False
    """Whether any of its processes has been."""
    failures: int = 0
    """Processes that died while none had been ready."""
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.service = self.service or self.name
        self.watch = Watch(self.service, self.transport)

    def start(self) -> None:
        """Start the process; its log is appended to `log`."""
        self.watch.end()
        self.watch = Watch(self.service, self.transport)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.log_from = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "qrelay.cli.main", *_command(self.service)],
                stdout=log,
                stderr=log,
                env=dict(self.environ),
                start_new_session=True,
            )
        self.started_at = time.monotonic()

    @property
    def runs(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def look(self, endpoint: Endpoint | None) -> bool:
        """Look whether it is ready; True: it has become so now."""
        if self.process is None or self.watch.ready or not self.runs:
            return False
        self.watch.look(self.process.pid, endpoint)
        if self.watch.ready:
            self.was_ready, self.failures = True, 0
        return self.watch.ready

    def last_words(self) -> str:
        """Why its latest process ended, in its own words and whole: the error that it printed, or its traceback;
        else the last lines of its log. Nothing of what former processes wrote."""
        with self.log.open("rb") as log:
            log.seek(self.log_from)
            lines = log.read().decode("utf8", "replace").splitlines()
        printed = [line for line in lines if not line.startswith("{")]  # log entries are JSON
        for begin in (f"{self.service}: ", "error: ", _TRACEBACK):
            at = [number for number, line in enumerate(printed) if line.startswith(begin)]
            if at:
                return "\n".join(printed[at[0] :]).removeprefix(f"{self.service}: ").removeprefix("error: ")
        return "\n".join((printed or lines)[-_LOG_TAIL_LINES:]) or "(it said nothing)"


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
            SetupError: a child exited with 78 before it was ever ready: starting it again cannot help.
            BackendUnavailable: a child died again and again before it was ready.
        """
        if self.nats and not self.nats.pid:
            self.say("nats-server died; starting it again")
            self.nats.start()
        if self.nats:
            self.nats.renew()
        for child in self.children:
            self._watch(child)

    def _watch(self, child: Child) -> None:
        if child.process is None or (code := child.process.poll()) is None:
            return
        if code == EXIT_SETUP and not child.was_ready:
            raise SetupError(f"{child.name} cannot run: {child.last_words()}\n(its log: {child.log})")
        if code == EXIT_OK:  # it was told to end, or a budget is used up: starting it again would undo that
            self.say(f"{child.name} ended as it should and stays down until the next `qrelay up` (log: {child.log})")
            child.process = None
            return
        now = time.monotonic()
        if not child.restart_at:
            self._plan_restart(child, code, now)
        elif now >= child.restart_at:
            child.restart_at = 0.0
            child.start()

    def _plan_restart(self, child: Child, code: int, now: float) -> None:
        if not child.was_ready:
            child.failures += 1
            if child.failures >= _START_ATTEMPTS:
                raise BackendUnavailable(
                    f"{child.name} died {child.failures} times before it was ever ready; the last time it "
                    f"{_ending(code)}:\n{child.last_words()}\n(its log: {child.log})"
                )
        if now - child.started_at > _STABLE_S:
            child.restarts = 0
        pause = _RESTART_PAUSES_S[min(child.restarts, len(_RESTART_PAUSES_S) - 1)]
        child.restart_at, child.restarts = now + pause, child.restarts + 1
        why = child.last_words().splitlines()[-1]
        others = "; the other services go on" if code == EXIT_SETUP else ""  # somebody has to act, for this one alone
        self.say(f"{child.name} {_ending(code)}: {why}{others}; starting it again in {pause:g} s (log: {child.log})")

    def look(self, found: Mapping[str, Endpoint]) -> list[Child]:
        """Look at those that are not ready; those that have become so. found: what was announced, by service."""
        became = []
        for child in self.children:
            if child.look(found.get(child.service)):
                became.append(child)
            still = child.watch.pulse.still
            if (
                not child.watch.ready
                and still
                and still % _TOLD_LOOKS == 0
                and (still // _TOLD_LOOKS).bit_count() == 1
            ):
                self.say(f"{child.watch}: still waiting; it uses no processor time (log: {child.log})")
        return became

    @property
    def ready(self) -> bool:
        """Whether all are that have not ended for good."""
        return all(child.watch.ready for child in self.children if child.process)

    def refuse_stillness(self, looks: int = STILL_LOOKS) -> None:
        """Raises BackendTimeout: those that are not ready have shown no sign of life for so many looks."""
        logs = ", ".join(str(child.log) for child in self.children if not child.watch.ready)
        refuse_stillness(
            [child.watch for child in self.children if child.process],
            hint=f"look at {logs}; `qrelay up` in a terminal goes on waiting",
            looks=looks,
        )

    def await_ready(self, found: Callable[[], Mapping[str, Endpoint]]) -> None:
        """Wait while they live and get on. Raises as `watch_once` and `refuse_stillness`."""
        while not self.ready:
            self.watch_once()
            self.look(found())
            self.refuse_stillness()
            time.sleep(LOOK_S)

    def stop(self) -> None:
        """Drain the services, then stop NATS."""
        self.stopping = True
        running = [child for child in self.children if child.process and child.runs]
        for child in running:
            if child.process:
                child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_MARGIN_S
        for child in running:
            self._end(child, deadline + child.drain_s)
        if self.nats:
            self.nats.stop()

    def _end(self, child: Child, deadline: float) -> None:
        if child.process is None:
            return
        try:
            child.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.say(f"{child.name} did not end within its worker.drain_s of {child.drain_s:g} s: killed")
            child.process.kill()
            child.process.wait()


def _command(service: str) -> tuple[str, ...]:
    return (CONSOLE,) if service == CONSOLE else ("serve", service)


def _ending(code: int) -> str:
    """How a process ended: "ended with 1", "was killed by SIGKILL"."""
    if code >= 0:
        return f"ended with {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def service_environ(base: Mapping[str, str], name: str, data_dir: Path, nats_url: str,
                    ports: tuple[int, int] = (0, 0), run_dir: Path | None = None) -> dict[str, str]:  # fmt: skip
    """The environment of one process of a service. ports: of gRPC (the console's: HTTP) and metrics. Replicas need a
    `run_dir` each."""
    section = f"QRELAY_{name.upper()}__"
    ours = {
        DATA_DIR_VARIABLE: str(data_dir),
        "QRELAY_ALL__DATA_DIR": str(data_dir),
        "QRELAY_ALL__RUN_DIR": str(run_dir or data_dir / "run"),
        "QRELAY_ALL__NATS__URL": nats_url,
        f"{section}{'BIND' if name == CONSOLE else 'GRPC__BIND'}": f"127.0.0.1:{ports[0]}",
        f"{section}TELEMETRY__METRICS_BIND": f"127.0.0.1:{ports[1]}",
    }
    return {**base, **ours}
