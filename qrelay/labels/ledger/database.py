"""The database under the ledger: opening it, durable transactions, and errors as ours.

Two databases, one behaviour: what is particular to one is in `on_sqlite.py` and `on_postgresql.py`, the translation
of their errors in `failures.py`, the version of the tables in `versions.py`. Callers see none of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql

from qrelay.errors import ConfigError, QrelayError
from qrelay.labels.ledger import failures, on_postgresql, on_sqlite, versions
from qrelay.settings.secrets import masked

_DRIVERS: Final = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_HOW: Final = "use a path, sqlite:///PATH or postgresql://USER@HOST/DATABASE"


def resolve_url(url_or_path: str | Path) -> sa.URL:
    """The database's URL; a plain path means a SQLite file.

    Raises:
        ConfigError: not a URL, or a database that this version does not support.
    """
    text = str(url_or_path)
    if "://" not in text:
        return sa.URL.create("sqlite", database=text)
    try:
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError):
        raise ConfigError(f"ledger {masked(text)!r} is not a database URL: {_HOW}") from None
    driver = _DRIVERS.get(url.drivername.partition("+")[0])
    if "@" in (url.host or ""):
        raise ConfigError(f"ledger {masked(text)!r} has two @: write the one in its password as %40")
    if driver is None or (driver == "sqlite" and url.database in (None, "", ":memory:")):
        raise ConfigError(f"ledger {shown(url)} is not supported: {_HOW}")
    return url.set(drivername=driver)


def shown(url: sa.URL) -> str:
    """The URL for people: without passwords, and a SQLite file as its path."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    address: str = masked(url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True))
    return address


def make_engine(url: sa.URL, *, busy_timeout_s: float, create: bool) -> sa.Engine:
    """An engine for `url`; opens nothing yet. Raises ConfigError: absent and not `create`; no driver."""
    if url.get_backend_name() == "sqlite":
        return on_sqlite.make_engine(url, patience_s=busy_timeout_s, create=create)
    return on_postgresql.make_engine(url, patience_s=busy_timeout_s)


def open_engine(url: sa.URL, *, busy_timeout_s: float, create: bool) -> sa.Engine:
    """An engine whose tables exist and have this version.

    Raises:
        ConfigError: absent (and not `create`), not a ledger, of another schema version; a wrong password or database.
        BackendUnavailable: locked for longer than `busy_timeout_s`, the disk refuses, or the server does not answer.
    """
    engine = make_engine(url, busy_timeout_s=busy_timeout_s, create=create)
    try:
        with database_errors(f"open the ledger {shown(url)}"):
            if engine.dialect.name == "sqlite":
                on_sqlite.use_wal(engine, busy_timeout_s)
            with writing(engine) as connection:
                versions.check_or_create(connection, shown(url), create=create)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def writing(engine: sa.Engine, *, early: bool = False) -> Iterator[sa.Connection]:
    """A write transaction, on disk when it ends. SQLite: alone among writers from its first statement. PostgreSQL:
    alone in a collection from `changes.begin_changes` on, until it is on disk; early: until it is committed."""
    early = early and engine.dialect.name == "postgresql"
    with engine.connect().execution_options(qrelay_write=True) as connection:
        with connection.begin():
            if early:
                on_postgresql.release_early(connection)
            yield connection
        if early:
            on_postgresql.await_disk(connection)


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A read transaction: one snapshot, however long it lasts; writers go on beside it."""
    options = on_postgresql.read_options() if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


def insert_new(table: sa.Table) -> Any:
    """An INSERT that leaves rows alone whose key exists: what makes replicas and redelivery safe."""
    return upsert(table).on_conflict_do_nothing()


def upsert(table: sa.Table) -> Any:
    """An INSERT to add `on_conflict_do_update` to. SQLite took the syntax from PostgreSQL, and SQLAlchemy compiles
    this one construct for both."""
    return postgresql.insert(table)


@contextmanager
def database_errors(doing: str) -> Iterator[None]:
    """Every error of the database as one of ours, see `failures.py`; `doing` completes "cannot …".

    Raises:
        BackendUnavailable: locked, full disk, no answer, deadlock: later may work.
        ConfigError: the file is not a database, or is corrupt; wrong password, database or rights.
        MalformedInput: a value that the database cannot hold.
        InternalError: everything else.
    """
    try:
        yield
    except QrelayError:
        raise
    except Exception as error:
        translated = failures.translate(error, doing)
        if translated is None:
            raise
        raise translated from error
