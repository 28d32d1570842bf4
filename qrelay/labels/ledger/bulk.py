"""Many rows at once, by the fastest way that the driver has: executemany on SQLite, COPY on PostgreSQL.

SQLAlchemy looks at every value of every row, which costs more than the database does; these rows need no looking at.
They go through the connection of the caller's transaction. Names of tables and columns are this package's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

Tuples = Sequence[tuple[Any, ...]]


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


def _insert(table: sa.Table, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608


def _copy(connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Tuples) -> None:
    raw: Any = connection.connection.driver_connection
    with raw.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _held(connection: sa.Connection, table: sa.Table, width: int, rows: Tuples) -> set[tuple[Any, ...]]:
    """The keys among the rows that the table holds."""
    keys = ", ".join(column.name for column in table.primary_key.columns)
    wanted = f"SELECT * FROM unnest({', '.join(['%s::text[]'] * width)})"  # noqa: S608
    values = tuple([row[i] for row in rows] for i in range(width))
    found = connection.exec_driver_sql(f"SELECT {keys} FROM {table.name} WHERE ({keys}) IN ({wanted})", values)  # noqa: S608
    return {tuple(row) for row in found}
