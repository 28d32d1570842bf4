"""Jobs as processes of this machine, detached from the sink: <data_dir>/training/<job name>/ holds all about one.

`launch` starts a small runner (`runner.py`) in a session of its own and waits until the job has durably begun. Any
number of sinks may launch one job at once, and die at any moment: the folder's lock lets one runner begin it, and its
file `started` keeps every later one from it.

Needs a local file system, or one whose `flock` holds between its machines, and hard links.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qrelay.errors import BackendTimeout, BackendUnavailable, InputError
from qrelay.exitcodes import EXIT_BUSY
from qrelay.jobs.folder import JobFolder, create_once
from qrelay.jobs.launcher import LEDGER_VARIABLE, JobStatus, Launched, TrainingJob
from qrelay.labels.ledger.outbox_rows import FAILED, RUNNING, SUCCEEDED
from qrelay.parsing import json_document
from qrelay.rundir import DATA_DIR_VARIABLE

_POLL_S: Final = 0.01
_LOG_BYTES: Final = 64 * 1024
_LINE_CHARS: Final = 500


class SubprocessLauncher:
    """See the module. `start_timeout_s`: seconds to wait for a job to begin."""

    name = "subprocess"

    def __init__(self, data_dir: Path, *, start_timeout_s: float = 30.0) -> None:
        self._root = data_dir.absolute() / "training"
        self._start_timeout_s = start_timeout_s
        self._runners: list[subprocess.Popen[bytes]] = []

    @property
    def place(self) -> str:
        """The folder: its machine and path when it was first used, and a number drawn then."""
        file = self._root / "place"
        with _file_errors(f"read {file}"):
            if not file.exists():
                self._root.mkdir(parents=True, exist_ok=True)
                create_once(file, f"{socket.gethostname()}:{self._root} {secrets.token_hex(4)}".encode())
            return file.read_text("utf8")

    def launch(self, job: TrainingJob) -> Launched:
        """See `Launcher`.

        Raises:
            BackendUnavailable: the folder cannot be written, or the runner died.
            BackendTimeout: the job did not begin in time; it may still.
            InputError: the folder holds another job.
        """
        folder = self._folder(job.name)
        self._reap()
        with _file_errors(f"launch {job.name}"):
            if folder.started.exists():
                return Launched.ALREADY_THERE
            _require_same(job, folder.create(job.document(folder.job)), folder)
            return self._await(folder, self._start(folder, job))

    def _start(self, folder: JobFolder, job: TrainingJob) -> subprocess.Popen[bytes]:
        """A runner in its own session; what it prints itself (only when it fails) goes to the job's log."""
        with folder.log.open("ab") as log:
            runner = subprocess.Popen(
                [sys.executable, "-m", "qrelay.jobs.runner", str(folder.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    LEDGER_VARIABLE: job.secret_ledger or job.ledger,
                    DATA_DIR_VARIABLE: str(job.data_dir),
                },
                start_new_session=True,
            )
        self._runners.append(runner)
        return runner

    def _await(self, folder: JobFolder, runner: subprocess.Popen[bytes]) -> Launched:
        """Waits until this runner, or another one, has begun the job."""
        give_up = time.monotonic() + self._start_timeout_s
        while time.monotonic() < give_up:
            code = runner.poll()  # before the look at the file, which may appear in between
            if (started := folder.read(folder.started)) is not None:
                return Launched.STARTED if started["runner"] == runner.pid else Launched.ALREADY_THERE
            if code not in (None, EXIT_BUSY):
                raise BackendUnavailable(
                    f"the runner of {folder.path.name} ended with {code} before the job began; see {folder.log}"
                )
            time.sleep(_POLL_S)
        raise BackendTimeout(f"{folder.path.name} has not begun within {self._start_timeout_s:g} s; see {folder.log}")

    def status(self, name: str) -> JobStatus | None:
        """See `Launcher`."""
        folder = self._folder(name)
        self._reap()
        with _file_errors(f"read {folder.path}"):
            started = folder.read(folder.started)
            if started is None:
                return None
            alive = folder.held  # before the look at its end, which may come in between
            ended, began_us = folder.read(folder.exit), started["started_us"]
            if ended is not None:
                code = int(ended["code"])
                why = f"exit code {code}" if code else ""
                return JobStatus(FAILED if code else SUCCEEDED, code, why, began_us, ended["finished_us"])
            if alive:
                return JobStatus(RUNNING, started_us=began_us)
            return JobStatus(FAILED, None, "its runner was killed: how its command ended is not known", began_us)

    def tail(self, name: str, lines: int = 20) -> list[str]:
        """See `Launcher`. Lines are cut at 500 characters."""
        log = self._folder(name).log
        with _file_errors(f"read {log}"):
            if not log.exists():
                return []
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - _LOG_BYTES))
                text = file.read().decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
        return [line[:_LINE_CHARS] for line in text.splitlines()[-lines:]]

    def close(self) -> None:
        """See `Launcher`."""
        self._reap()

    def _folder(self, name: str) -> JobFolder:
        return JobFolder(self._root / name)

    def _reap(self) -> None:
        """Lets runners that have ended go."""
        self._runners = [runner for runner in self._runners if runner.poll() is None]


def _require_same(job: TrainingJob, found: bytes, folder: JobFolder) -> None:
    """Refuses the folder of another job. Its command may differ: what was written first is what runs."""
    there = json_document(found)
    if (there.get("name"), there.get("collection"), there.get("change_no")) != (
        job.name,
        job.collection,
        job.change_no,
    ):
        raise InputError(f"{folder.path} holds another job than {job.name}: move it away, and trigger again")


@contextmanager
def _file_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackendUnavailable(f"cannot {doing}: {error}; it is tried again later") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BackendUnavailable(f"cannot {doing}: a file is damaged: {error}; move the job's folder away") from error
