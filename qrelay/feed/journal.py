"""The feed's record: which queries the stream has acknowledged, with their texts and, where they were fed with them,
their candidates. It makes a feed resumable, and `qrelay reconcile` compares it with the ledger and feeds from it
again what was lost. SQLite, one file a collection.

A query has one row, for the latest round in which it was accepted; a finished round implies the earlier ones. In one
round it has one set of candidates.

Journals of older versions hold ids without records; feeding the same file again fills them in.

A forgotten query leaves a hash of its id, so that it is not fed again: in `refused`, and in `forgotten` too if it was
accepted here, so that it stays counted.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from qrelay import wire
from qrelay.errors import BackendUnavailable, ConfigError, InvalidQuery, QueryConflict
from qrelay.feed.fed import Fed, fed_query
from qrelay.files import disk_refusal
from qrelay.identity import candidates_digest, forgotten_hash, query_fingerprint
from qrelay.runtime import faults
from qrelay.types import CandidateSet, Query

_ENTRIES: Final = "SELECT query_id, fingerprint, round, record FROM accepted"
_GONE: Final = "SELECT 1 FROM forgotten WHERE query = ? UNION ALL SELECT 1 FROM refused WHERE query = ?"
_RECORD: Final = (
    "INSERT INTO accepted (query_id, fingerprint, accepted_at, record, round, candidates)"
    f" SELECT ?, ?, ?, ?, ?, ? WHERE NOT EXISTS ({_GONE})"
    " ON CONFLICT (query_id) DO UPDATE SET accepted_at = excluded.accepted_at, record = excluded.record,"
    " round = excluded.round, candidates = excluded.candidates"
    " WHERE excluded.round > round AND excluded.fingerprint = fingerprint"
)
_MOMENTARY: Final = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
)  # fmt: skip
"""What SQLite says of a disk or of another process; anything else it says of the file."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An acknowledged query, in its latest `round`. `fingerprint` is `identity.query_fingerprint`; `record`, what was
    fed, is None in a row that an older version wrote."""

    query_id: str
    fingerprint: str
    round: int
    record: Fed | None

    @property
    def query(self) -> Query | None:
        """The query of the record."""
        return None if self.record is None else fed_query(self.record)


class Journal:
    """Queries accepted so far. Ask `accepted` before publishing, `record` after the acknowledgement. Every method may
    raise ConfigError (the file is damaged) and BackendUnavailable (the disk is full, say)."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        """Raises:
        ConfigError: there is no journal here (and not `create`), it is damaged, or its folder cannot be written.
        BackendUnavailable: its disk is full, or another process holds it.
        """
        if not create and not path.exists():
            raise ConfigError(f"no journal at {path}: nothing was fed from this --data-dir to this collection")
        self._path = path
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS accepted "
                "(query_id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, accepted_at TEXT NOT NULL, record BLOB,"
                " round INTEGER NOT NULL DEFAULT 0, candidates TEXT NOT NULL DEFAULT '') WITHOUT ROWID"
            )
            for table in ("forgotten", "refused"):
                self._connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (query TEXT PRIMARY KEY) WITHOUT ROWID")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS allowed (query TEXT PRIMARY KEY, replay TEXT NOT NULL) WITHOUT ROWID"
            )
            self._add_column("record", "BLOB")
            self._add_column("round", "INTEGER NOT NULL DEFAULT 0")
            self._add_column("candidates", "TEXT NOT NULL DEFAULT ''")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translates what the disk and SQLite say; every method may raise it."""
        try:
            yield
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # the last: names of a damaged table
            if refusal := disk_refusal(error, f"the feed's journal {self._path}"):
                raise refusal from error
            if isinstance(error, OSError):
                raise
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _MOMENTARY:
                raise BackendUnavailable(f"cannot use the journal {self._path} ({error}): try again") from error
            raise ConfigError(
                f"the journal {self._path} is damaged ({error}): restore it from a backup, or move it away and feed"
                " the same files again, which commits nothing twice"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing(self._connection), self._errors():
            if error is None:
                self._connection.commit()

    def _rows(self, statement: str, *values: object) -> Iterator[tuple[Any, ...]]:
        with self._errors():
            yield from self._connection.execute(statement, values)

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

    def accepted(self, record: Fed) -> bool:
        """Whether this very submission was acknowledged before, in its round or a later one. Completes a row that has
        no record.

        Raises:
            QueryConflict: its id was, with another text, or in this round with other candidates.
            InvalidQuery: it was forgotten.
        """
        query = fed_query(record)
        if self._forgotten(query):
            raise InvalidQuery(
                f"query_id {query.query_id!r} was forgotten: take it out of this file, or allow it again with"
                " `qrelay forget --allow-again`"
            )
        found = self._rows(
            "SELECT fingerprint, round, record IS NULL, candidates FROM accepted WHERE query_id = ?", query.query_id
        )
        if (row := next(found, None)) is None:
            return False
        if row[0] != _fingerprint(query):
            raise QueryConflict(
                f"query_id {query.query_id!r} was fed before with another text; the first stays: choose another id"
            )
        if row[1] < query.round:
            return False
        if row[1] == query.round and row[3] != _candidates(record):
            raise QueryConflict(
                f"query_id {query.query_id!r} was fed in round {query.round} with {_told(row[3])}, which stay; those"
                f" that came now join them in a round of their own: add --round {query.round + 1}"
            )
        if row[2] and row[1] == query.round:  # on disk with the next `record`, or at the end
            list(self._rows("UPDATE accepted SET record = ? WHERE query_id = ?", _packed(record), query.query_id))
        return True

    def record(self, records: Sequence[Fed]) -> None:
        """Remember what was acknowledged, durably, in one transaction; a later round takes an earlier one's place."""
        faults.point("feed.record.before")
        now = datetime.now(UTC).isoformat()
        with self._errors(), self._connection:
            self._connection.executemany(_RECORD, (_row(record, now) for record in records))

    def query_ids(self) -> Iterable[str]:
        """Every accepted id, sorted."""
        return (row[0] for row in self._rows("SELECT query_id FROM accepted ORDER BY query_id"))

    def entries(self) -> Iterator[Accepted]:
        """Every accepted query, by id (compared as UTF-8 bytes), read as it is asked for."""
        return (_accepted(row) for row in self._rows(f"{_ENTRIES} ORDER BY query_id"))

    def entry(self, query_id: str) -> Accepted | None:
        """The accepted query of this id, or None."""
        row = next(self._rows(f"{_ENTRIES} WHERE query_id = ?", query_id), None)
        return None if row is None else _accepted(row)

    def _forgotten(self, query: Query) -> bool:
        hashed = forgotten_hash(query.collection, query.query_id)
        return next(self._rows(_GONE, hashed, hashed), None) is not None

    def ids_before(self, when: datetime) -> set[str]:
        """Ids accepted before a time (UTC)."""
        return {row[0] for row in self._rows("SELECT query_id FROM accepted WHERE accepted_at < ?", when.isoformat())}

    def forgotten(self) -> Iterator[str]:
        """`identity.forgotten_hash` of every query that was accepted and is forgotten."""
        return (row[0] for row in self._rows("SELECT query FROM forgotten"))

    def forget(self, collection: str, query_ids: Iterable[str]) -> int:
        """Put hashes in the place of these queries, durably; how many were here. `compact` takes their bytes."""
        names = [(each, forgotten_hash(collection, each)) for each in query_ids]
        with self._errors(), self._connection:
            self._connection.commit()
            self._connection.execute("BEGIN IMMEDIATE")
            there = "SELECT 1 FROM accepted WHERE query_id = ?"
            held = [(each, hashed) for each, hashed in names if list(self._rows(there, each))]
            here = [(hashed,) for _, hashed in held]
            self._connection.executemany("INSERT OR IGNORE INTO forgotten VALUES (?)", here)
            self._connection.executemany("INSERT OR IGNORE INTO refused VALUES (?)", ((each,) for _, each in names))
            self._connection.executemany("DELETE FROM accepted WHERE query_id = ?", ((each,) for each, _ in held))
        return len(held)

    def allow_again(self, collection: str, query_ids: Iterable[str]) -> int:
        """Let these queries be fed again, each from now on under the same new replay number, see `replay`. How many
        were refused before."""
        number, names = str(int(time.time())), [(forgotten_hash(collection, each),) for each in query_ids]
        allowed = "INSERT OR REPLACE INTO allowed SELECT query, ? FROM refused WHERE query = ?"
        with self._errors(), self._connection:
            count = self._connection.executemany(allowed, ((number, hashed) for (hashed,) in names)).rowcount
            self._connection.executemany("DELETE FROM forgotten WHERE query = ?", names)
            self._connection.executemany("DELETE FROM refused WHERE query = ?", names)
        return max(count, 0)

    def replay(self, query: Query) -> str:
        """The replay number of a query that was forgotten and allowed again, else "": streams may still remember the
        message ids that it had before, and would drop it as a repetition."""
        hashed = forgotten_hash(query.collection, query.query_id)
        return next((str(row[0]) for row in self._rows("SELECT replay FROM allowed WHERE query = ?", hashed)), "")

    def compact(self) -> bool:
        """Rewrite the file without what was deleted, and empty its log; False: a reader keeps the log for now."""
        with self._errors():
            self._connection.commit()
            self._connection.execute("VACUUM")
            return not self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]


def _accepted(row: tuple[Any, ...]) -> Accepted:
    query_id, fingerprint, query_round, record = row
    return Accepted(query_id, fingerprint, query_round, _unpacked(record))


def _fingerprint(query: Query) -> str:
    return query_fingerprint(query.collection, query.query_id, query.text)


def _row(record: Fed, now: str) -> tuple[Any, ...]:
    query = fed_query(record)
    forgotten = forgotten_hash(query.collection, query.query_id)
    return (
        query.query_id,
        _fingerprint(query),
        now,
        _packed(record),
        query.round,
        _candidates(record),
        *[forgotten] * 2,
    )


def _candidates(record: Fed) -> str:
    """What a row says of the candidates; "" of a query that is to be retrieved."""
    return candidates_digest(record) if isinstance(record, CandidateSet) else ""


def _told(candidates: str) -> str:
    return "other candidates" if candidates else "the retriever's candidates"


def _packed(record: Fed) -> bytes:
    """The record as it travels; a query uncompressed."""
    return wire.encode(record, compress=isinstance(record, CandidateSet))[0]


def _unpacked(record: bytes | None) -> Fed | None:
    if not isinstance(record, bytes):
        return None
    decoded = wire.decode(record, {wire.CONTENT_ENCODING: wire.ZSTD} if record.startswith(wire.ZSTD_MAGIC) else {})
    return decoded if isinstance(decoded, Query | CandidateSet) else None
