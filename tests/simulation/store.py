"""The ledger under simulation: the real one on an empty database in memory, which may be away for a while.

An empty ledger is copied from a template. Two templates: SQLite as it is, and one whose
columns refuse what PostgreSQL's refuse (INTEGER beyond 32 bits, NUL in texts) with the error that stands for
PostgreSQL's: a value that cannot be stored.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from qrelay.errors import BackendUnavailable, QrelayError
from qrelay.labels.ledger import database, schema
from qrelay.labels.ledger.columns import Columns
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.types import DeadLetter, JudgedSet


def empty_database(*, postgresql: bool) -> sa.Engine:
    """A ledger's database in memory, without a row. There is one of each kind: the one before is gone."""
    engine = _engine(postgresql)
    raw = engine.raw_connection()
    _template(postgresql).backup(raw.driver_connection)  # type: ignore[arg-type]
    raw.close()
    return engine


@cache
def _engine(postgresql: bool) -> sa.Engine:
    name = f"file:simulated-{postgresql}"
    url = sa.URL.create("sqlite", database=name, query={"mode": "memory", "cache": "shared", "uri": "true"})
    engine = database.make_engine(url, busy_timeout_s=1.0, create=True)
    if postgresql:
        sa.event.listen(engine, "handle_error", _as_postgresql)
    return engine


@cache
def _template(postgresql: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    engine = sa.create_engine("sqlite://", creator=lambda: connection, poolclass=sa.StaticPool)
    tables = sa.MetaData()
    for table in schema.metadata.sorted_tables:
        copy = table.to_metadata(tables)
        for column in table.columns if postgresql else ():
            copy.append_constraint(sa.CheckConstraint(_limit(column), name=f"postgresql_{column.name}"))
    with engine.begin() as opened:
        tables.create_all(opened)
        opened.execute(schema.ledger_meta.insert(), {"name": "schema_version", "value": str(schema.SCHEMA_VERSION)})
    return connection


def _limit(column: sa.Column[Any]) -> str:
    match column.type:
        case sa.BigInteger():
            pass  # SQLite's integers have 64 bits
        case sa.Integer() if not column.foreign_keys:
            return f'"{column.name}" IS NULL OR "{column.name}" BETWEEN -2147483648 AND 2147483647'
        case sa.String():
            return f'"{column.name}" IS NULL OR instr("{column.name}", char(0)) = 0'
    return "1"


def _as_postgresql(context: sa.ExceptionContext) -> None:
    """PostgreSQL's 22003 (out of range) and 22021 (NUL) are errors of the value."""
    error = context.original_exception
    if isinstance(error, sqlite3.IntegrityError) and "postgresql_" in str(error):
        raise sqlite3.DataError(str(error)) from error


class SimulatedLedger(Ledger):
    """A ledger whose database may be `away`, and may lose the answer to a commit that it has made."""

    def __init__(
        self,
        engine: sa.Engine,
        clock: Callable[[], datetime],
        *,
        away: Callable[[], bool],
        answer_lost: Callable[[], bool],
        committed: Callable[[JudgedSet, CommitStatus], None],
        recorded: Callable[[DeadLetter], None],
    ) -> None:
        super().__init__(engine, clock)
        self._away, self._answer_lost = away, answer_lost
        self._committed, self._recorded = committed, recorded

    @contextmanager
    def writing(self, doing: str, *, early: bool = False) -> Iterator[sa.Connection]:
        if self._away():
            raise BackendUnavailable(f"cannot {doing}: the database does not answer (simulated)")
        with super().writing(doing, early=early) as connection:
            yield connection
        if self._answer_lost():
            raise BackendUnavailable(f"cannot {doing}: the connection broke at the commit (simulated)")

    def commit(
        self, sets: Sequence[JudgedSet | Columns], *, audited: bool = False
    ) -> list[CommitStatus | QrelayError]:
        outcomes = super().commit(sets, audited=audited)
        for each, outcome in zip(sets, outcomes, strict=True):
            if isinstance(outcome, CommitStatus):
                self._committed(each.record() if isinstance(each, Columns) else each, outcome)
        return outcomes

    def record_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        super().record_dead_letters(letters)
        for letter in letters:
            self._recorded(letter)
