"""The installation under test with everything around it that a fault may touch."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qrelay.rundir import endpoints
from qrelay.runtime import faults as points
from tests.chaos.database import Postgres
from tests.chaos.feeding import Feeding
from tests.chaos.recorder import Recorder
from tests.chaos.training import training_environ
from tests.pipeline.harness import COLLECTION, Installation

_CONSUMED_S = 60.0
"""Then a fault is held to be missed: the process that should pass its point may have to start again first."""


@dataclass
class Scene:
    """One seed's surroundings. `postgres` and `small_disk` say what its ledger lies on."""

    installation: Installation
    feeding: Feeding
    recorder: Recorder
    draw: random.Random
    faults_folder: Path
    ledger_url: str
    postgres: Postgres | None = None
    small_disk: Path | None = None
    losses: int = 0
    """Faults that took accepted queries away: only these may be repaired."""
    wrong: list[str] = field(default_factory=list)
    """What was seen to be wrong on the way."""

    def pid(self, name: str) -> int:
        """The process id of a service or nats; waits until it has one."""
        return self.installation.endpoint(name).pid

    def signal(self, name: str, number: int) -> int:
        """Send it; the process id it went to, 0 where it just died."""
        pid = self.pid(name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            return pid
        return 0

    def await_successor(self, name: str, old_pid: int) -> None:
        """Wait until another process answers for `name`."""

        def succeeded() -> bool:
            found = endpoints(self.installation.folder).get(name)
            return found is not None and found.pid not in (0, old_pid)

        self.installation.until(succeeded)

    def arm(self, point: str, nth: int) -> Path:
        """The process that passes the point for the n-th time dies."""
        armed = self.faults_folder / point
        armed.write_text(str(nth))
        return armed

    def await_consumed(self, armed: Path, within_s: float = _CONSUMED_S) -> bool:
        """Whether a process died at the point in time; disarmed otherwise."""
        deadline = time.monotonic() + within_s
        while armed.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        if not armed.exists():
            return True
        armed.unlink(missing_ok=True)
        return False

    def start_export(self, kind: str, target: Path) -> subprocess.Popen[bytes]:
        """`qrelay export` in a process of its own."""
        command = ["export", kind, "--collection", COLLECTION, "--out", str(target), "--unmeasured"]
        return subprocess.Popen(
            [sys.executable, "-m", "qrelay.cli.main", *command],
            env={**os.environ, **self.installation.environ},
            stdout=subprocess.DEVNULL,
            stderr=(self.installation.folder / "exports.log").open("ab"),
        )

    def later(self, delay_s: float, name: str, pid: int, number: int) -> None:
        """Send a signal to a process after a while, without waiting for it."""

        def send() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

        timer = threading.Timer(delay_s, send)
        timer.name = f"{name}-{number}"
        timer.start()

    @property
    def sink_log(self) -> str:
        """The sink's log so far."""
        return (self.installation.folder / "logs" / "sink.log").read_text("utf8", "replace")


@contextlib.contextmanager
def scene(
    folder: Path,
    environ: Mapping[str, str],
    queries: Mapping[str, str],
    portions: int,
    seed: int,
    ledger_url: str,
    *,
    postgres: Postgres | None = None,
    small_disk: Path | None = None,
) -> Iterator[Scene]:
    """Everything started; everything ended afterwards."""
    armed = folder / "faults"
    armed.mkdir(parents=True)
    settings = {
        **environ,
        **training_environ(folder),
        "QRELAY_SINK__LEDGER": ledger_url,
        points.VARIABLE: str(armed),
    }
    with Installation(folder / "data", settings) as installation:
        nats_url = installation.endpoint("nats").grpc
        feeding = Feeding(folder / "queries.jsonl", installation.environ, queries, portions)
        with Recorder(nats_url) as recorder:
            try:
                yield Scene(
                    installation, feeding, recorder, random.Random(seed), armed, ledger_url, postgres, small_disk
                )
            finally:
                feeding.kill()
                _resume(installation)


def _resume(installation: Installation) -> None:
    """No process stays stopped, or it could not drain."""
    for endpoint in endpoints(installation.folder).values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(endpoint.pid, signal.SIGCONT)
