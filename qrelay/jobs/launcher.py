"""What starts a training job: a protocol, what it is given and what it answers.

A launcher starts a job at most once by its name, however often it is asked, and whichever process dies meanwhile.
When `launch` returns, the job has begun, durably, and no later call begins it again. Job names are known within a
*place* (a data folder, a cluster); two launchers of one place find each other's jobs.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from qrelay.identity import digest
from qrelay.labels.permission import NOTHING, Allowed
from qrelay.settings.training import fill

LEDGER_VARIABLE: Final = "QRELAY_SINK__LEDGER"
"""Environment variable of a job: the ledger's whole URL. A password travels in it alone, in no file or command."""
_NAME_CHARS: Final = 63


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """What is to be started. `ledger` is its URL without a password, `secret_ledger` the whole one; `data_dir` is
    absolute; `command` may hold placeholders, see `filled`; `allowed`: which labels may train, see
    `labels/permission.py`."""

    name: str
    collection: str
    change_no: int
    rule: str
    ledger: str
    data_dir: Path
    command: tuple[str, ...]
    secret_ledger: str = ""
    allowed: Allowed = NOTHING

    def __repr__(self) -> str:
        return f"TrainingJob({self.name!r}, change {self.change_no} of {self.collection}, {self.rule})"

    def _facts(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "collection": self.collection,
            "change_no": self.change_no,
            "rule": self.rule,
            "ledger": self.ledger,
            "data_dir": str(self.data_dir),
        }

    def filled(self, job_file: Path) -> list[str]:
        """The command with its placeholders replaced; `job_file` is where its job.json will be."""
        values = {"job": str(job_file), **{name: str(value) for name, value in self._facts().items()}}
        return [fill(word, values) for word in self.command]

    def document(self, job_file: Path) -> bytes:
        """job.json: all of it but the secret."""
        content = {**self._facts(), "command": self.filled(job_file), **self.allowed.fields}
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


class Launched(enum.Enum):
    """What `launch` found."""

    STARTED = "started"
    ALREADY_THERE = "already there"


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job that has begun stands: running, succeeded or failed (the states of `training_runs`). Times are
    microseconds since 1970 UTC, where they are known; `exit_code` is 128 + n for a command that signal n killed, and
    None where it is not known; `reason` says why it failed, as far as that is known."""

    state: str
    exit_code: int | None = None
    reason: str = ""
    started_us: int | None = None
    finished_us: int | None = None


class Launcher(Protocol):
    """Starts jobs in one place."""

    @property
    def name(self) -> str:
        """Its name in settings, metrics and the ledger."""

    @property
    def place(self) -> str:
        """Where its jobs' names are known, the same for every launcher that finds them."""

    def launch(self, job: TrainingJob) -> Launched:
        """Starts the job unless it began before; returns once it has durably begun.

        Raises:
            TransientError: it has not begun, as far as is known; ask again, and it will not begin twice.
            InputError: it never can.
        """

    def status(self, name: str) -> JobStatus | None:
        """Where the job stands; None: no job of this name has begun here."""

    def tail(self, name: str, lines: int = 20) -> list[str]:
        """The last lines of its log, the last one last; none where there is no log."""

    def close(self) -> None:
        """Releases what it holds in this process (threads, connections); jobs continue."""


def job_name(collection: str, change_no: int, command: Sequence[str], decided_us: int) -> str:
    """A trigger's job: the same trigger has the same name, another one another. The time is in it because a ledger
    that was begun anew counts its changes from 1 again. Valid as a name of Kubernetes (RFC 1123 label)."""
    hashed = digest(collection, str(change_no), str(decided_us), *command)[:16]
    prefix = re.sub(r"[^a-z0-9-]", "-", f"train-{collection}")[: _NAME_CHARS - 1 - len(hashed)].rstrip("-")
    return f"{prefix}-{hashed}"
