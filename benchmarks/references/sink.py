"""The sink beside the database driver's bulk insert of exactly the same rows, with the same durability.

Each round the service commits sets over gRPC; the resulting rows are read back and inserted by the
bare driver into the same tables of another database, as many sets a transaction.
"""

from __future__ import annotations

from typing import Any

from benchmarks.references.databases import RawPostgresql, RawSqlite, Rows, new_rows
from qrelay.bench.data import Generated
from qrelay.labels.ledger.ledger import Ledger

LIBRARIES = {"sqlite": "sqlite3 executemany", "postgresql": "psycopg executemany"}


class Made:
    """Judged sets that are made before they are asked for, so that a turn does not wait for its client."""

    def __init__(self, tag: str = "") -> None:
        self._source, self._made = Generated("judged", tag=tag), dict[int, Any]()

    def make(self, items: range) -> None:
        """Those of these numbers, instead of what was made before."""
        self._made = {number: self._source.item(number) for number in items}

    def item(self, number: int) -> Any:
        """See data.Source."""
        return self._made[number]

    def describe(self) -> dict[str, Any]:
        """See data.Source."""
        return self._source.describe()


class Bare:
    """Reads what the service's ledger got since the last look, and inserts it elsewhere."""

    def __init__(self, ledger_url: str, raw: RawSqlite | RawPostgresql, sets_a_transaction: int) -> None:
        self._ledger, self._raw, self._size = Ledger.open(ledger_url), raw, sets_a_transaction
        self._after, self._seen = 0, set[str]()

    def read(self) -> list[Rows]:
        """The new rows, a transaction each. Not part of what is timed."""
        batches = new_rows(self._ledger, self._after, self._seen, self._size)
        self._after = max(row[0] for batch in batches for row in batch["queries"])
        return batches

    def insert(self, batches: list[Rows]) -> None:
        """What is timed."""
        for batch in batches:
            self._raw.insert(batch)
