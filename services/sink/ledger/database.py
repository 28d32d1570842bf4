"""The database under the ledger: opening it, durable transactions, and the one translation of its errors.

SQLite now: write-ahead log, `synchronous=FULL` (a commit is on disk before it returns), and BEGIN
IMMEDIATE for writers, so that processes on one file queue up instead of failing half-way. Everything that
is particular to a database is in this file: PostgreSQL will add a branch here and change no caller.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import sqlite

from qrelay.errors import BackendUnavailable, ConfigError, InternalError, MalformedInput
from services.sink.ledger import schema

APPLICATION_ID: Final = 0x71726C79
"""SQLite's header field for the file's owner: "qrly"."""


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
    except exc.ArgumentError as error:
        raise ConfigError(f"ledger {text!r} is not a database URL: use sqlite:///PATH or a path") from error
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        raise ConfigError(
            f"ledger {url.render_as_string()} is not supported: this version keeps the ledger in a SQLite"
            " file; use sqlite:///PATH or a path"
        )
    return url


def open_engine(url: sa.URL, *, busy_timeout_s: float, create: bool) -> sa.Engine:
    """An engine whose tables exist and have this version.

    Raises:
        ConfigError: absent (and not `create`), not a ledger, or of another schema version.
        BackendUnavailable: locked for longer than `busy_timeout_s`, or the disk refuses.
    """
    path = Path(str(url.database))
    if not create and not path.exists():
        raise ConfigError(f"no ledger at {path}: feed queries first, or name another one with --ledger")
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot create the ledger's folder {path.parent}: {error.strerror}") from error
    engine = sa.create_engine(url, connect_args={"timeout": busy_timeout_s, "check_same_thread": False})
    sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin)
    try:
        with database_errors(f"open the ledger {path}"):
            _use_wal(engine, busy_timeout_s)
            with writing(engine) as connection:
                _check_schema(connection, path)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the "begin" event says BEGIN itself
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=4000")


def _on_begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("qrelay_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _use_wal(engine: sa.Engine, patience_s: float) -> None:
    """Once a file: the switch needs the file alone and SQLite does not wait for that, so we do."""
    give_up = time.monotonic() + patience_s
    while True:
        raw = engine.raw_connection()
        try:
            cursor = raw.cursor()
            if cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                return
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.02)
        finally:
            raw.close()


def _check_schema(connection: sa.Connection, path: Path) -> None:
    """Creates the tables in an empty database; refuses a foreign one and another version."""
    tables = set(sa.inspect(connection).get_table_names())
    if not tables:
        schema.metadata.create_all(connection)
        connection.execute(
            schema.ledger_meta.insert(), {"name": "schema_version", "value": str(schema.SCHEMA_VERSION)}
        )
        connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
        return
    if "ledger_meta" not in tables:
        raise ConfigError(f"{path} is a database of something else (no table ledger_meta): choose another file")
    found = connection.execute(
        sa.select(schema.ledger_meta.c.value).where(schema.ledger_meta.c.name == "schema_version")
    ).scalar()
    if found != str(schema.SCHEMA_VERSION):
        raise ConfigError(
            f"the ledger {path} has schema version {found}; this qrelay reads {schema.SCHEMA_VERSION}:"
            " use the qrelay that wrote it, or another ledger"
        )


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A write transaction: alone among writers from its first statement, on disk when it ends."""
    with engine.connect().execution_options(qrelay_write=True) as connection, connection.begin():
        yield connection


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A read transaction: one snapshot, however long it lasts; writers go on beside it."""
    with engine.connect() as connection, connection.begin():
        yield connection


def insert_new(table: sa.Table) -> Any:
    """An INSERT that leaves rows alone whose key exists: what makes replicas and redelivery safe."""
    return sqlite.insert(table).on_conflict_do_nothing()


def upsert(table: sa.Table) -> Any:
    """An INSERT to add `on_conflict_do_update` to."""
    return sqlite.insert(table)


@contextmanager
def database_errors(doing: str) -> Iterator[None]:
    """Every error of the database as one of ours; `doing` completes "cannot …".

    Raises:
        BackendUnavailable: locked, full disk, unreadable file: later may work.
        ConfigError: the file is not a database, or is corrupt.
        MalformedInput: a value that the database cannot hold.
        InternalError: everything else.
    """
    try:
        yield
    except (exc.DBAPIError, exc.StatementError, exc.TimeoutError, sqlite3.Error) as error:
        raise translate(error, doing) from error


def translate(error: Exception, doing: str) -> Exception:
    """The error of ours that stands for a database error."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.OperationalError) or isinstance(error, exc.TimeoutError):
        return BackendUnavailable(f"cannot {doing}: {cause}; it is tried again later (free the disk or the lock)")
    if type(cause) is sqlite3.DatabaseError:
        return ConfigError(f"cannot {doing}: {cause}; restore the file from a copy or choose another one")
    if isinstance(cause, UnicodeError | OverflowError | TypeError | ValueError):
        return MalformedInput(f"cannot {doing}: a value cannot be stored: {cause}")
    return InternalError(f"cannot {doing}: {cause}")
