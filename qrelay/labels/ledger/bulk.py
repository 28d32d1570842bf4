"""Many rows at once, by the fastest way that the driver has: executemany on SQLite, COPY on PostgreSQL.

SQLAlchemy looks at every value of every row, which costs more than the database does; these rows need no looking at.
They go through the connection of the caller's transaction. Names of tables and columns are this package's own.
PostgreSQL gets a list of values as one JSON text that it takes apart itself: arrays, and a parameter for each value,
cost the driver more than all the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
import sqlalchemy as sa

Tuples = Sequence[tuple[Any, ...]]
_CHUNK: Final = 500
"""Rows in one statement: databases limit the parameters of a statement."""


def insert_rows(connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Tuples) -> None:
    """Inserts tuples of values for `columns`. A key that exists is an error."""
    if rows and connection.dialect.name == "postgresql":
        _copy(connection, table, columns, rows)
    elif rows:
        connection.exec_driver_sql(_insert(table, columns), rows)  # type: ignore[arg-type]


def insert_absent(connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Tuples) -> None:
    """Inserts those rows whose key the table lacks; the key is the first columns. Nobody else may insert such keys
    meanwhile: the caller holds a lock that prevents it."""
    if rows and connection.dialect.name == "postgresql":
        held = _held(connection, table, len(table.primary_key.columns), rows)
        _copy(connection, table, columns, [row for row in rows if row[: len(table.primary_key.columns)] not in held])
    elif rows:
        connection.exec_driver_sql(_insert(table, columns) + " ON CONFLICT DO NOTHING", rows)  # type: ignore[arg-type]


def insert_new(
    connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Tuples, key: Sequence[str], number: str
) -> dict[tuple[Any, ...], int]:
    """Inserts those rows whose `key` the table lacks, whoever inserts such a key meanwhile; key -> the `number` of
    the rows that were new."""
    into = f"INSERT INTO {table.name} ({', '.join(columns)})"
    unless = f"ON CONFLICT ({', '.join(key)}) DO NOTHING RETURNING {number}, {', '.join(key)}"
    found: list[Any] = []
    if rows and connection.dialect.name == "postgresql":
        types = ", ".join(f"{name} {table.c[name].type.compile(connection.dialect)}" for name in columns)
        document = orjson.dumps([dict(zip(columns, row, strict=True)) for row in rows]).decode()
        statement = f"{into} SELECT * FROM json_to_recordset(%s) AS new ({types}) {unless}"  # noqa: S608
        found += connection.exec_driver_sql(statement, (document,))
    elif rows:
        marks = f"({', '.join('?' * len(columns))})"
        for part in (rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)):
            values = tuple(value for row in part for value in row)
            found += connection.exec_driver_sql(f"{into} VALUES {', '.join([marks] * len(part))} {unless}", values)
    return {tuple(row[1:]): int(row[0]) for row in found}


def _insert(table: sa.Table, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608


def _copy(connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Tuples) -> None:
    raw: Any = connection.connection.driver_connection
    with raw.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _held(connection: sa.Connection, table: sa.Table, width: int, rows: Tuples) -> set[tuple[Any, ...]]:
    """The keys among the rows that the table holds."""
    names = [str(column.name) for column in table.primary_key.columns]
    keys = orjson.dumps([dict(zip(names, row[:width], strict=True)) for row in rows]).decode()
    types = ", ".join(f"{column.name} {column.type.compile(connection.dialect)}" for column in table.primary_key)
    wanted = f"SELECT * FROM json_to_recordset(%s) AS asked ({types})"  # noqa: S608
    chosen = ", ".join(names)
    found = connection.exec_driver_sql(
        f"SELECT {chosen} FROM {table.name} WHERE ({chosen}) IN ({wanted})",  # noqa: S608
        (keys,),
    )
    return {tuple(row) for row in found}
