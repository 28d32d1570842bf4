"""The ledger in a SQLite file: write-ahead log, `synchronous=FULL` (a commit is on disk before it returns), and BEGIN
IMMEDIATE for writers, so that processes on one file queue up instead of failing half-way."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from qrelay.errors import ConfigError

APPLICATION_ID: Final = 0x71726C79
"""SQLite's header field for the file's owner: "qrly"."""


def make_engine(url: sa.URL, *, patience_s: float, create: bool) -> sa.Engine:
    """An engine for the file, which need not exist with `create`. Opens nothing yet."""
    path = Path(str(url.database))
    if not create and not path.exists():
        raise ConfigError(f"no ledger at {path}: feed queries first, or name another one with --ledger")
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot create the ledger's folder {path.parent}: {error.strerror}") from error
    engine = sa.create_engine(
        url, hide_parameters=True, connect_args={"timeout": patience_s, "check_same_thread": False}
    )
    sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the "begin" event says BEGIN itself
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=4000")


def _on_begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("qrelay_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def use_wal(engine: sa.Engine, patience_s: float) -> None:
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


def mark_as_ours(connection: sa.Connection) -> None:
    """Writes the owner into the file's header."""
    connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")


def copy_to(engine: sa.Engine, copy: Path) -> None:
    """Writes the database as it is now into a new file."""
    _alone(engine, "VACUUM INTO ?", (str(copy),))


def compact(engine: sa.Engine) -> bool:
    """Rewrites the file without its gaps, and empties the write-ahead log. Needs as much disk again for a while.
    False: a reader of what was keeps the log for now."""
    _alone(engine, "VACUUM", ())
    ((busy, _, _),) = _alone(engine, "PRAGMA wal_checkpoint(TRUNCATE)", ())
    _alone(engine, "PRAGMA optimize", ())
    return not busy


def _alone(engine: sa.Engine, statement: str, values: tuple[Any, ...]) -> list[Any]:
    """The rows of a statement that may stand in no transaction."""
    raw = engine.raw_connection()
    try:
        rows: list[Any] = raw.cursor().execute(statement, values).fetchall()
        return rows
    finally:
        raw.close()


def file_bytes(engine: sa.Engine) -> dict[str, int]:
    """File -> its bytes: the database and its write-ahead log."""
    paths = [Path(f"{engine.url.database}{suffix}") for suffix in ("", "-wal")]
    return {path.name: path.stat().st_size for path in paths if path.exists()}
