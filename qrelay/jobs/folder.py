"""A job's folder holds all that is known about it: <data_dir>/training/<job name>/.

    job.json   what to run; written once, before a runner starts
    lock       held by the runner, and by its command, for as long as one of them lives
    started    written once, durably, before the command is executed: from then on it never is again
    log        what the command printed
    exit       how it ended; absent where its runner died first

Only the standard library and `qrelay.files`: the runner loads it for every job.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Any

from qrelay.files import fsync_path
from qrelay.parsing import json_document


class JobFolder:
    """The files of one job. Every method may raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.job = path / "job.json"
        self.started = path / "started"
        self.log = path / "log"
        self.exit = path / "exit"
        self._lock = path / "lock"

    def create(self, document: bytes) -> bytes:
        """Makes the folder with its job.json, unless it is there; returns the document that is in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        fsync_path(self.path.parent)
        create_once(self.job, document)
        return self.job.read_bytes()

    def take(self, mode: int = fcntl.LOCK_EX) -> int | None:
        """The lock, as a file descriptor that holds it until every copy of it is closed; None: somebody has it."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    @property
    def held(self) -> bool:
        """Whether its runner or its command lives. Ask only once it has started: asking shares the lock for a
        moment, in which a runner that wants to start would find it taken."""
        descriptor = self.take(fcntl.LOCK_SH)
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def read(self, path: Path) -> dict[str, Any] | None:
        """A file of the folder as JSON; None where it is absent."""
        try:
            content: dict[str, Any] = json_document(path.read_bytes())
        except FileNotFoundError:
            return None
        return content


def create_once(path: Path, content: bytes) -> bool:
    """Writes a file that is not there, durably and whole; False where it is there, and then it stays as it is."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    with temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
        fsync_path(path.parent)
    return True
