"""The feed's record: which queries the stream has acknowledged. What makes a feed resumable, and later
the left-hand side of reconciliation. SQLite, one file a collection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from qrelay.errors import QueryConflict
from qrelay.identity import query_fingerprint
from qrelay.types import Query


class Journal:
    """Queries accepted so far. `check` before publishing, `record` after the acknowledgement."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=30)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS accepted "
            "(query_id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, accepted_at TEXT NOT NULL) WITHOUT ROWID"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def accepted(self, query: Query) -> bool:
        """Whether this very submission was acknowledged before.

        Raises:
            QueryConflict: its id was, with another text.
        """
        row = self._connection.execute(
            "SELECT fingerprint FROM accepted WHERE query_id = ?", (query.query_id,)
        ).fetchone()
        if row is None:
            return False
        if row[0] != _fingerprint(query):
            raise QueryConflict(
                f"query_id {query.query_id!r} was fed before with another text; the first stays: choose another id"
            )
        return True

    def record(self, queries: Sequence[Query]) -> None:
        """Remember acknowledged queries, durably, in one transaction."""
        now = datetime.now(UTC).isoformat()
        with self._connection:
            self._connection.executemany(
                "INSERT OR IGNORE INTO accepted VALUES (?, ?, ?)",
                [(query.query_id, _fingerprint(query), now) for query in queries],
            )

    def query_ids(self) -> Iterable[str]:
        """Every accepted id, sorted."""
        return (row[0] for row in self._connection.execute("SELECT query_id FROM accepted ORDER BY query_id"))


def _fingerprint(query: Query) -> str:
    return query_fingerprint(query.collection, query.query_id, query.text)
