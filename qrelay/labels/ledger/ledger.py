"""The ledger: every committed query with its judgments, and every dead letter. The system of record.

    ledger = Ledger.open("ledger.sqlite")
    ledger.commit(sets)                        # [COMMITTED, DUPLICATE, QueryConflict(...), ...]
    with ledger.snapshot() as snapshot:
        for query in snapshot.labelled_queries("medquad"): ...

Group commit: a batch is one transaction, one fsync. A set that cannot be stored is answered with its
error and never fails its neighbours: what can be checked is checked before the transaction, and if the
database refuses the batch over a value, its sets are committed one by one. When `commit` returns, what it
calls COMMITTED or DUPLICATE is on disk.

Several processes may hold one ledger open: writers queue up for the file's lock (`busy_timeout_s`), the
unique keys decide who was first, and readers see snapshots. An object may be shared between threads, which take
turns at a file: SQLite's own waiting is a lottery, in which one of twenty may lose for `busy_timeout_s`. What they
bring while one of them writes goes together in one transaction (`together.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from qrelay.errors import InputError, QrelayError, SetupError, TransientError
from qrelay.labels.ledger import audit_log, database, dead_letters
from qrelay.labels.ledger.columns import Columns
from qrelay.labels.ledger.commit import CommitStatus, commit_batch
from qrelay.labels.ledger.dead_letters import DeadLetterEntry, DeadLetterPage
from qrelay.labels.ledger.merge import Added
from qrelay.labels.ledger.reader import Snapshot
from qrelay.labels.ledger.rejudge import rejudge_batch
from qrelay.labels.ledger.rows import PreparedSet, prepare
from qrelay.labels.ledger.schema import SCHEMA_VERSION
from qrelay.labels.ledger.states import CollectionStats
from qrelay.labels.ledger.times import microseconds
from qrelay.labels.ledger.together import Together
from qrelay.labels.outcome import BEGUN
from qrelay.runtime import faults
from qrelay.security.identity import who
from qrelay.types import DeadLetter, JudgedSet, JudgeIdentity

__all__ = ["Added", "CollectionStats", "CommitStatus", "DeadLetterEntry", "DeadLetterPage", "Ledger", "Snapshot"]

MAX_PAGE_SIZE = 1000
"""Dead letters in one page: each carries its original message, up to a megabyte."""
DEFAULT_PAGE_SIZE = 100
PAGE_BYTES = 16 * 1024**2

T = TypeVar("T")
_Write = Callable[[sa.Connection, Sequence[PreparedSet], dict[JudgeIdentity, int], int], list[T | QrelayError]]
AfterCommit = Callable[[sa.Connection, Sequence[Added], int], None]
"""Called with the sets that a commit wrote, within its transaction, and the time (microseconds); see `Ledger`."""


def _rejudge_batch(
    connection: sa.Connection, batch: Sequence[PreparedSet], numbers: dict[JudgeIdentity, int], now_us: int
) -> list[int | QrelayError]:
    results = rejudge_batch(connection, batch, numbers, now_us)
    audit_log.record_sets(
        connection, "rejudge", batch, [isinstance(each, int) and each > 0 for each in results], now_us
    )
    return results


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """One open ledger. Every method may raise BackendUnavailable (locked, disk full: try again later)."""

    def __init__(
        self,
        engine: sa.Engine,
        clock: Callable[[], datetime] = _utc_now,
        after_commit: AfterCommit | None = None,
    ) -> None:
        """`after_commit` decides what follows from new labels (the outbox of training): what it writes is on disk
        exactly when the labels are."""
        self._engine = engine
        self._clock = clock
        self._after_commit = after_commit
        self._judge_numbers: dict[JudgeIdentity, int] = {}
        self._turn = threading.RLock()
        self._together = Together(self._turn)

    @classmethod
    def open(
        cls,
        url_or_path: str | Path,
        *,
        busy_timeout_s: float = 10.0,
        create: bool = True,
        clock: Callable[[], datetime] = _utc_now,
        after_commit: AfterCommit | None = None,
    ) -> Ledger:
        """Opens a ledger, creating file, folder and tables where `create` allows.

        `busy_timeout_s`: seconds to wait for another writer.

        Raises:
            ConfigError: absent, not a ledger, of another schema version, or an unsupported database.
            BackendUnavailable: locked, or the disk refuses.
        """
        url = database.resolve_url(url_or_path)
        return cls(database.open_engine(url, busy_timeout_s=busy_timeout_s, create=create), clock, after_commit)

    @property
    def url(self) -> str:
        """Where the ledger is; without a password."""
        return database.shown(self._engine.url)

    @property
    def schema_version(self) -> int:
        """The version of the tables, checked when the ledger was opened."""
        return SCHEMA_VERSION

    def close(self) -> None:
        """Closes the database's connections. Safe to call twice."""
        self._engine.dispose()

    def commit(
        self, sets: Sequence[JudgedSet | Columns], *, audited: bool = False
    ) -> list[CommitStatus | QrelayError]:
        """Commits each set at most once and answers each, in order, after the data is on disk. audited: somebody's
        act, for the audit log, and not the queue's.

        COMMITTED: written by this call, as a query or as another round of one; DUPLICATE: the same query_id and
        text was there in this round, nothing changed;
        QueryConflict: the query_id stands for another text; InvalidQuery, MalformedInput: cannot be
        stored; BackendUnavailable: nothing of this batch was written, try again later.
        """
        kind = "commit", who() if audited else None
        return self._write_sets(sets, partial(self._commit_batch, audited=audited), kind)

    def _commit_batch(
        self,
        connection: sa.Connection,
        batch: Sequence[PreparedSet],
        numbers: dict[JudgeIdentity, int],
        now_us: int,
        *,
        audited: bool,
    ) -> list[CommitStatus | QrelayError]:
        results, added = commit_batch(connection, batch, numbers, now_us)
        if self._after_commit and added:
            self._after_commit(connection, added, now_us)
        if audited:
            audit_log.record_sets(
                connection, "ingest", batch, [each is CommitStatus.COMMITTED for each in results], now_us
            )
        return results

    def rejudge(self, sets: Sequence[JudgedSet | Columns]) -> list[int | QrelayError]:
        """Adds judgments to queries that are committed and answers each set, in order, with how many were new, after
        they are on disk; 0 where the ledger held them all. Nothing that is there changes: see `rejudge.py`.

        InputError: the query is not in the ledger; QueryConflict: it stands for another text; MalformedInput: a
        passage is none of its candidates, or has another text; BackendUnavailable: as with `commit`.
        """
        return self._write_sets(sets, _rejudge_batch, ("rejudge", who()))

    def _write_sets(
        self, sets: Sequence[JudgedSet | Columns], write: _Write[T], kind: Hashable
    ) -> list[T | QrelayError]:
        """`kind`: what may share a transaction on SQLite, where one writes at a time: an act by the same hand."""
        prepared = [prepare(record) for record in sets]
        batch = [item for item in prepared if isinstance(item, PreparedSet)]
        written = partial(self._write_batch, write=write)
        alone = not batch or self._engine.dialect.name != "sqlite"
        outcomes = iter(written(batch) if alone else self._together.write(batch, kind, written))
        return [next(outcomes) if isinstance(item, PreparedSet) else item for item in prepared]

    def _write_batch(self, batch: Sequence[PreparedSet], write: _Write[T]) -> list[T | QrelayError]:
        """The batch in one transaction; one by one where the database refuses it over a value."""
        if not batch:
            return []
        judge_numbers = dict(self._judge_numbers)
        try:
            with self.writing("commit judged sets", early=True) as connection:
                results = write(connection, batch, judge_numbers, self.now_us())
                faults.point("sink.commit.before")
            faults.point("sink.commit.after")
        except (TransientError, SetupError) as error:
            return [error for _ in batch]
        except QrelayError as error:
            if len(batch) == 1:
                return [error]
            return [result for item in batch for result in self._write_batch([item], write)]
        self._judge_numbers = judge_numbers
        return results

    def record_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Stores each dead letter once by its id, durably. One whose submission is committed is stored as
        resolved; one that was replayed and failed again later is reopened with the new failure."""
        with self.writing("record dead letters") as connection:
            dead_letters.record(connection, letters, self.now_us())

    def list_dead_letters(
        self,
        collection: str | None = None,
        include_closed: bool = False,
        page_size: int = 0,
        page_token: str = "",
        max_bytes: int = PAGE_BYTES,
    ) -> DeadLetterPage:
        """One page of dead letters, oldest first. `page_size` 0 means DEFAULT_PAGE_SIZE; at most MAX_PAGE_SIZE
        come, and of `max_bytes` together, but one at least. No `collection` means all.

        Raises:
            InputError: a negative size, or a token that no page returned.
        """
        if page_size < 0:
            raise InputError(f"page_size {page_size} is negative: use 0 for the default, or 1 to {MAX_PAGE_SIZE}")
        size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        with self._read("list dead letters") as connection:
            return dead_letters.page(connection, collection or "", include_closed, size, page_token, max_bytes)

    def get_dead_letter(self, dead_letter_id: str) -> DeadLetterEntry | None:
        """The dead letter of this id with its state, or None."""
        with self._read("read a dead letter") as connection:
            return dead_letters.get(connection, dead_letter_id)

    def waiting_dead_letters(self) -> list[str]:
        """The ids of the dead letters that wait, oldest first."""
        with self._read("list dead letters") as connection:
            return dead_letters.waiting(connection)

    def begin_replay(self, ids: Sequence[str] | None = None) -> list[DeadLetter]:
        """Marks waiting dead letters (open, or left replaying by a crash) as replaying and returns them, the oldest
        first. ids: those to replay; ids that are unknown or closed are not in the answer. None: all."""
        with self.writing("begin a replay") as connection:
            entries = dead_letters.begin_replay(connection, ids)
            if entries:
                named = audit_log.ids(entry.letter.dead_letter_id for entry in entries)
                audit_log.record(connection, "replay", self.now_us(), subject=named, count=len(entries),
                                 outcome=BEGUN)  # fmt: skip
        return [entry.letter for entry in entries]

    def finish_replay(self, ids: Sequence[str]) -> None:
        """Marks dead letters as replayed whose originals were published and acknowledged, but for those that were
        resolved, or died again, in the meantime."""
        with self.writing("finish a replay") as connection:
            now_us = self.now_us()
            dead_letters.finish_replay(connection, ids, now_us)
            if ids:
                audit_log.record(connection, "replay", now_us, subject=audit_log.ids(ids), count=len(ids))

    def stats(self, collection: str | None = None) -> list[CollectionStats]:
        """Counts by collection; no name means all."""
        with self.snapshot() as snapshot:
            return snapshot.stats(collection or "")

    def query_states(
        self, collection: str, query_ids: Sequence[str] | None = None, query_round: int = 0
    ) -> dict[str, str]:
        """query_id -> "committed", "dead" (a dead letter waits) or "replayed" (published again, on its way), of
        these ids or of all, in this round or a later one; an id that the ledger does not know so is absent. Of
        these ids, "forgotten" too.

        An id whose first text is committed is committed, even if another text for it is dead; for every
        submission apart, and without holding them all, see `Snapshot.submissions`.
        """
        with self.snapshot() as snapshot:
            return snapshot.query_states(collection, query_ids, query_round)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """A consistent view of the ledger for as long as it is held; commits go on beside it. SQLite
        cannot shrink its write-ahead log below a held snapshot: hold it for an export, not for a day."""
        with self._read("read the ledger") as connection:
            yield Snapshot(connection)

    def now_us(self) -> int:
        """The ledger's clock, in microseconds since 1970 UTC."""
        return microseconds(self._clock())

    @contextmanager
    def writing(self, doing: str, *, early: bool = False) -> Iterator[sa.Connection]:
        """A durable transaction, for those who write tables of their own; `doing` completes "cannot …" in errors.
        early: it may let go of its locks before it is durable, see `on_postgresql.py`."""
        alone = self._turn if self._engine.dialect.name == "sqlite" else nullcontext()
        with alone, database.database_errors(doing), database.writing(self._engine, early=early) as connection:
            yield connection

    @contextmanager
    def administering(self, doing: str) -> Iterator[sa.Engine]:
        """The engine itself, for statements that may stand in no transaction; errors as in `writing`."""
        with database.database_errors(doing):
            yield self._engine

    @contextmanager
    def _read(self, doing: str) -> Iterator[sa.Connection]:
        with database.database_errors(doing), database.reading(self._engine) as connection:
            yield connection
