"""The feed's record: which queries the stream has acknowledged, with their texts. It makes a feed resumable, and
`qrelay reconcile` compares it with the ledger and feeds from it again what was lost. SQLite, one file a collection.

A query has one row, for the latest round in which it was accepted; a finished round implies the earlier ones.

Journals of older versions hold ids without records; feeding the same file again fills them in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from qrelay import wire
from qrelay.errors import ConfigError, QueryConflict
from qrelay.files import disk_refusal
from qrelay.identity import query_fingerprint
from qrelay.runtime import faults
from qrelay.types import Query

_ENTRIES: Final = "SELECT query_id, fingerprint, round, record FROM accepted"
_RECORD: Final = (
    "INSERT INTO accepted (query_id, fingerprint, accepted_at, record, round) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (query_id) DO UPDATE SET accepted_at = excluded.accepted_at, record = excluded.record,"
    " round = excluded.round WHERE excluded.round > round AND excluded.fingerprint = fingerprint"
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """An acknowledged query, in its latest `round`. `fingerprint` is `identity.query_fingerprint`; `query` is None in
    a row that an older version wrote."""

    query_id: str
    fingerprint: str
    round: int
    query: Query | None


class Journal:
    """Queries accepted so far. Ask `accepted` before publishing, `record` after the acknowledgement."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        """Raises:
        ConfigError: there is no journal here (and not `create`), or its folder cannot be written.
        BackendUnavailable: its disk is full. Every method that writes raises these two.
        """
        if not create and not path.exists():
            raise ConfigError(f"no journal at {path}: nothing was fed from this --data-dir to this collection")
        self._path = path
        with self._disk():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS accepted "
                "(query_id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, accepted_at TEXT NOT NULL, record BLOB,"
                " round INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID"
            )
            self._add_column("record", "BLOB")
            self._add_column("round", "INTEGER NOT NULL DEFAULT 0")

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """A disk that refuses, in our words."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if refusal := disk_refusal(error, f"the feed's journal {self._path}"):
                raise refusal from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                with self._disk():
                    self._connection.commit()
        finally:
            self._connection.close()

    def _add_column(self, name: str, declared: str) -> None:
        """Bring a journal of an older version up to this one."""
        columns = {row[1] for row in self._connection.execute("PRAGMA table_info(accepted)")}
        if name in columns:
            return
        try:
            self._connection.execute(f"ALTER TABLE accepted ADD COLUMN {name} {declared}")
        except sqlite3.OperationalError as error:
            if "duplicate column" not in str(error):  # another process was first
                raise

    def accepted(self, query: Query) -> bool:
        """Whether this very submission was acknowledged before, in its round or a later one. Completes a row that has
        no record.

        Raises:
            QueryConflict: its id was, with another text.
        """
        row = self._connection.execute(
            "SELECT fingerprint, round, record IS NULL FROM accepted WHERE query_id = ?", (query.query_id,)
        ).fetchone()
        if row is None:
            return False
        if row[0] != _fingerprint(query):
            raise QueryConflict(
                f"query_id {query.query_id!r} was fed before with another text; the first stays: choose another id"
            )
        if row[1] < query.round:
            return False
        if row[2] and row[1] == query.round:  # on disk with the next `record`, or at the end
            with self._disk():
                self._connection.execute(
                    "UPDATE accepted SET record = ? WHERE query_id = ?", (_packed(query), query.query_id)
                )
        return True

    def record(self, queries: Sequence[Query]) -> None:
        """Remember acknowledged queries, durably, in one transaction; a later round takes an earlier one's place."""
        faults.point("feed.record.before")
        now = datetime.now(UTC).isoformat()
        with self._disk(), self._connection:
            self._connection.executemany(
                _RECORD,
                [(query.query_id, _fingerprint(query), now, _packed(query), query.round) for query in queries],
            )

    def query_ids(self) -> Iterable[str]:
        """Every accepted id, sorted."""
        return (row[0] for row in self._connection.execute("SELECT query_id FROM accepted ORDER BY query_id"))

    def entries(self) -> Iterator[Accepted]:
        """Every accepted query, by id (compared as UTF-8 bytes), read as it is asked for."""
        chosen = self._connection.execute(f"{_ENTRIES} ORDER BY query_id")
        return (_accepted(row) for row in chosen)

    def entry(self, query_id: str) -> Accepted | None:
        """The accepted query of this id, or None."""
        row = self._connection.execute(f"{_ENTRIES} WHERE query_id = ?", (query_id,)).fetchone()
        return None if row is None else _accepted(row)


def _accepted(row: tuple[Any, ...]) -> Accepted:
    query_id, fingerprint, query_round, record = row
    return Accepted(query_id, fingerprint, query_round, _unpacked(record))


def _fingerprint(query: Query) -> str:
    return query_fingerprint(query.collection, query.query_id, query.text)


def _packed(query: Query) -> bytes:
    """The query as it travels, uncompressed."""
    return wire.encode(query, compress=False)[0]


def _unpacked(record: bytes | None) -> Query | None:
    decoded = None if record is None else wire.decode(record, {})
    return decoded if isinstance(decoded, Query) else None
