"""A whole installation in a test: `qrelay up` as a user runs it, in a folder of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qrelay.cli.main import main
from qrelay.rundir import Endpoint, endpoints
from tests.conftest import LONG_S

SERVICES = ("retriever", "reranker", "judge", "sink")
COLLECTION = "docs"

DOUBLES = {
    "QRELAY_RETRIEVER__ENGINE": "synthetic",
    "QRELAY_RERANKER__SCORER": "fake",
    "QRELAY_JUDGE__BACKEND": "fake",
    "QRELAY_CONSOLE__ENABLED": "false",
    "OMP_NUM_THREADS": "1",
}
IMPATIENT = {
    "QRELAY_ALL__NATS__ACK_WAIT_S": "3",
    "QRELAY_ALL__WORKER__HEARTBEAT_S": "1",
    "QRELAY_ALL__WORKER__RETRY_DELAYS_S": "[0.2]",
    "QRELAY_ALL__WORKER__MAX_ATTEMPTS": "20",
}


def qrelay(
    *arguments: str, environ: dict[str, str] | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would, in a process of its own, however long it takes."""
    return subprocess.run(
        [sys.executable, "-m", "qrelay.cli.main", *arguments],
        env={**os.environ, **(environ or {})},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def called(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has imported everything: a process of its own spends half a second to a whole
    one on that. For what reads, writes and ends; what starts processes, takes signals or reads standard input needs
    its own."""
    out, err, code = _Written(), _Written(), 0
    with pytest.MonkeyPatch.context() as for_now:
        for name, text in (environ or {}).items():
            for_now.setenv(name, text)
        for name, value in (("argv", ["qrelay", *arguments]), ("stdout", out), ("stderr", err)):
            for_now.setattr(sys, name, value)
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess(arguments, code, out.text(), err.text())


class _Written(io.TextIOWrapper):
    """Text that is kept."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "utf8", write_through=True)

    def text(self) -> str:
        kept: Any = self.buffer
        return str(kept.getvalue().decode())


class Installation:
    """One data folder with `qrelay up` on it. A context manager."""

    def __init__(self, folder: Path, environ: dict[str, str], *arguments: str) -> None:
        self.folder = folder
        self.environ = {**environ, "QRELAY_DATA_DIR": str(folder)}
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Installation:
        self.folder.mkdir(parents=True, exist_ok=True)
        log = (self.folder / "up.log").open("ab")
        former = log.tell()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qrelay.cli.main", "up", "--port-base", "0", *self._arguments],
            env={**os.environ, **self.environ},
            stderr=log,
            stdout=log,
        )
        self.until(lambda: b"all ready" in (self.folder / "up.log").read_bytes()[former:])
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(LONG_S)
        finally:
            self._process.kill()  # whoever gave up waiting must not leave it behind

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait for the condition; fail with the logs' ends when `qrelay up` ends without it, or something new was not
        heard for very long: in a log, or of what the condition gives."""
        heard, since = None, time.monotonic()
        while not (found := condition()):
            if heard != (now := (found, self._log_bytes())):
                heard, since = now, time.monotonic()
            if self._process and self._process.poll() is not None:
                raise AssertionError(f"qrelay up ended with {self._process.poll()}:\n{self.logs()}")
            if time.monotonic() > since + LONG_S:
                raise AssertionError(f"nothing new for {LONG_S:.0f} s:\n{self.logs()}")
            time.sleep(0.05)

    def _log_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._log_files())

    def _log_files(self) -> list[Path]:
        return [self.folder / "up.log", *sorted((self.folder / "logs").glob("*.log"))]

    def logs(self) -> str:
        """The last lines of every log."""
        ends = ((file.name, file.read_text().splitlines()[-8:]) for file in self._log_files())
        return "\n".join(f"--- {name}\n" + "\n".join(end) for name, end in ends)

    def endpoint(self, name: str) -> Endpoint:
        """A running service's addresses."""
        self.until(lambda: name in endpoints(self.folder))
        return endpoints(self.folder)[name]

    def run(self, *arguments: str, stdin: str | None = None) -> dict[str, Any]:
        """A qrelay command with --json on this installation; its parsed answer and `exit`."""
        words = (*arguments, "--json")
        done = (
            called(*words, environ=self.environ)
            if stdin is None
            else qrelay(*words, environ=self.environ, stdin=stdin)
        )
        assert done.stdout.strip(), f"{self.logs()}\n{arguments}: exit {done.returncode}\n{done.stderr}"
        return {**json.loads(done.stdout), "exit": done.returncode}

    def export(self, kind: str, collection: str = COLLECTION) -> bytes:
        """An export's bytes. Nobody measured the judge's double."""
        target = self.folder / f"{kind}.{time.monotonic_ns()}"
        done = called(
            "export", kind, "--collection", collection, "--out", str(target), "--unmeasured", environ=self.environ
        )
        assert done.returncode == 0, done.stderr
        return target.read_bytes()

    def kill(self, name: str) -> None:
        """SIGKILL a service or nats and wait until its successor answers."""
        old = self.endpoint(name)
        os.kill(old.pid, signal.SIGKILL)
        self.until(lambda: (new := endpoints(self.folder).get(name)) is not None and new.pid not in (0, old.pid))


def write_queries(path: Path, count: int, start: int = 0) -> Path:
    """A JSONL file of made queries."""
    rows = (
        {"query_id": f"q{n:05d}", "text": f"how does thing {n} relate to {n * 37 % 101}?"}
        for n in range(start, start + count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
