"""What a batch's store keeps, and its protocol. States: see the package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class RequestState(StrEnum):
    """Of a request."""

    WAITING = "waiting"
    SENT = "sent"
    ANSWERED = "answered"
    FAILED = "failed"


class BatchState(StrEnum):
    """Of a batch."""

    PLANNED = "planned"
    UPLOADED = "uploaded"
    CREATING = "creating"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Target:
    """What one batch can hold: requests to one path of one account's endpoint, about one model."""

    account: str
    path: str
    model: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request to be written down. key: its identity, and its custom_id; body: JSON."""

    key: str
    target: Target
    body: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A request as it stands. since: when it was written down; batch: the one that it is in, or was last; status and
    answer: HTTP's, of one that is answered; reason: why it failed."""

    state: RequestState
    since: datetime
    batch: str = ""
    status: int = 0
    answer: bytes = b""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pile:
    """Requests that wait: how many, their bytes, and since when the first one does."""

    target: Target
    requests: int
    bytes: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch. tokens: of its prompts, estimated until it has ended; tried_at: when its creation was last begun;
    status, done, failed: as the endpoint said last; note: what is to be known of it, how it ended at last; cancel:
    whether somebody wants it to end."""

    name: str
    target: Target
    state: BatchState
    requests: int
    bytes: int
    tokens: int
    planned_at: datetime
    tried_at: datetime | None = None
    ended_at: datetime | None = None
    file_id: str = ""
    batch_id: str = ""
    status: str = ""
    done: int = 0
    failed: int = 0
    note: str = ""
    cancel: bool = False

    @property
    def file_name(self) -> str:
        """Of its input file, by which the endpoint's list shows it."""
        return f"{self.name}.jsonl"


@dataclass(frozen=True, slots=True)
class Line:
    """A request's answer: its HTTP status and body (JSON), and the prompt tokens that it cost."""

    key: str
    status: int
    body: bytes
    tokens: int = 0


class BatchStore(Protocol):
    """Methods block: call them off the event loop. Each is one durable transaction, or raises BackendUnavailable and
    has changed nothing."""

    def driving(self, account: str) -> AbstractContextManager[bool]:
        """Whether this process drives the account's batches, as long as the context lasts."""

    def find(self, keys: Sequence[str], retry_before: datetime) -> dict[str, Found]:
        """Those that are written down; not those that failed before `retry_before`, which may be asked again."""

    def add(self, requests: Sequence[Request], now: datetime) -> None:
        """Write them down as waiting; those that are there stay as they are, unless they failed."""

    def piles(self, account: str) -> list[Pile]:
        """What waits."""

    def plan(self, batch: Batch, most: int, most_bytes: int) -> Batch | None:
        """A batch of the longest waiting requests, at most so many and so many bytes; None where none fits."""

    def lines(self, name: str) -> Iterator[tuple[str, bytes]]:
        """(key, body) of a batch's requests that are sent, by key."""

    def update(self, name: str, **changes: object) -> None:
        """Fields of a batch."""

    def answer(self, name: str, lines: Sequence[Line], now: datetime) -> int:
        """Answers of a batch's requests; those that are no request of it, or answered, change nothing. How many are
        new."""

    def end(self, batch: Batch, reason: str, now: datetime, *, tries: int | None, spent: bool) -> tuple[int, int]:
        """Ends a batch. Its requests without an answer wait again, or, after so many tries, fail; tries None: they
        fail at once. spent: whether this counts as a try. How many wait again, and how many failed."""

    def open(self, account: str) -> list[Batch]:
        """Batches that have not ended, oldest first."""

    def recent(self, limit: int = 50) -> list[Batch]:
        """Batches of all accounts, newest first."""

    def close(self) -> None:
        """Release it."""
