"""Many rows at once, by the fastest way that the driver has: a statement for many rows on SQLite, COPY on PostgreSQL.

SQLAlchemy looks at every value of every row, which costs more than the database does; these rows need no looking at.
SQLite works outside of the interpreter's lock for a statement, so that another thread prepares its batch meanwhile;
with executemany it would have to ask for the lock after each row, and get it when that thread is done. A statement
that fails is not undone (OR FAIL), or SQLite would copy every page before it is changed: its transaction is.

They go through the connection of the caller's transaction. Names of tables and columns are this package's own.
PostgreSQL gets a list of values as one JSON text that it takes apart itself: arrays, and a parameter for each value,
cost the driver more than all the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, TypeVar

import orjson
import sqlalchemy as sa

from qrelay.chunks import chunks

T = TypeVar("T")
Tuples = Sequence[tuple[Any, ...]]
_ROWS: Final = 100
"""In one statement of SQLite's, which is compiled once for so many."""
_VALUES: Final = 500
"""That a statement names after IN."""


def insert_rows(connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Tuples) -> None:
    """Inserts tuples of values for `columns`. A key that exists is an error."""
    if rows and connection.dialect.name == "postgresql":
        _copy(connection, table, columns, rows)
    elif rows:
        _insert(connection, table, columns, rows)


def insert_absent(connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Tuples) -> None:
    """Inserts those rows whose key the table lacks; the key is the first columns. Nobody else may insert such keys
    meanwhile: the caller holds a lock that prevents it."""
    if rows and connection.dialect.name == "postgresql":
        width = len(table.primary_key.columns)
        held = _held(connection, table, [row[:width] for row in rows])
        _copy(connection, table, columns, [row for row in rows if row[:width] not in held])
    elif rows:
        _insert(connection, table, columns, rows, "ON CONFLICT DO NOTHING")


def insert_new(
    connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Tuples, key: Sequence[str], number: str
) -> dict[tuple[Any, ...], int]:
    """Inserts those rows whose `key` the table lacks, whoever inserts such a key meanwhile; key -> the `number` of
    the rows that were new."""
    unless = f"ON CONFLICT ({', '.join(key)}) DO NOTHING RETURNING {number}, {', '.join(key)}"
    found: list[Any] = []
    if rows and connection.dialect.name == "postgresql":
        given, document = _recordset(connection, table, columns, rows)
        found += connection.exec_driver_sql(f"{_into(table, columns)} {given} {unless}", (document,))
    elif rows:
        found += _insert(connection, table, columns, rows, unless)
    return {tuple(row[1:]): int(row[0]) for row in found}


def is_empty(connection: sa.Connection, table: sa.Table) -> bool:
    """Whether the table has no row. What a commit has to look up in is most often empty; this costs less than naming
    its keys."""
    return connection.exec_driver_sql(f"SELECT 1 FROM {table.name} LIMIT 1").first() is None  # noqa: S608


def in_chunks(values: Iterable[T]) -> Iterator[Sequence[T]]:
    """Values for a statement's IN: as many at a time as it should name."""
    return chunks(list(values), _VALUES)


def _insert(
    connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Tuples, rest: str = ""
) -> list[Any]:
    """On SQLite: what the statement returns, where `rest` of it says that it does."""
    marks, found = f"({', '.join('?' * len(columns))})", list[Any]()
    into = _into(table, columns, "INSERT OR FAIL")
    for part in chunks(rows, _ROWS):
        statement = f"{into} VALUES {', '.join([marks] * len(part))} {rest}"
        result = connection.exec_driver_sql(statement, tuple(chain.from_iterable(part)))
        found += result if result.returns_rows else ()
    return found


def _into(table: sa.Table, columns: Sequence[str], insert: str = "INSERT") -> str:
    return f"{insert} INTO {table.name} ({', '.join(columns)})"


def _copy(connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Tuples) -> None:
    raw: Any = connection.connection.driver_connection
    with raw.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _held(connection: sa.Connection, table: sa.Table, keys: Tuples) -> set[tuple[Any, ...]]:
    """Those of the primary keys that the table holds."""
    names = [str(column.name) for column in table.primary_key.columns]
    wanted, document = _recordset(connection, table, names, keys)
    chosen = ", ".join(names)
    statement = f"SELECT {chosen} FROM {table.name} WHERE ({chosen}) IN ({wanted})"  # noqa: S608
    return {tuple(row) for row in connection.exec_driver_sql(statement, (document,))}


def _recordset(connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Tuples) -> tuple[str, str]:
    """On PostgreSQL: a SELECT of these rows from its one parameter, and that parameter."""
    types = ", ".join(f"{name} {table.c[name].type.compile(connection.dialect)}" for name in columns)
    document = orjson.dumps([dict(zip(columns, row, strict=True)) for row in rows]).decode()
    return f"SELECT * FROM json_to_recordset(%s) AS given ({types})", document  # noqa: S608
