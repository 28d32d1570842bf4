"""Raising a ledger's schema version, in one transaction: all of it happens, or nothing.

`ledger_meta` says which version a ledger has; Alembic's own table follows it. A SQLite file is copied first, beside
itself; a PostgreSQL database is its operator's to back up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from qrelay.errors import ConfigError
from qrelay.labels.ledger import database, on_postgresql, on_sqlite, retractions, schema, versions
from qrelay.labels.ledger.refresh import refresh_all

if TYPE_CHECKING:
    from alembic.config import Config

_SUMMARIES: Final = 4
"""The version that brought `summaries.py`, which needs the tables as they are now: no migration computes them."""


@dataclass(frozen=True, slots=True)
class Migration:
    """What a migration did: the versions, and the copy that it kept of a SQLite file."""

    before: int
    after: int
    copy: Path | None


def migrate(url_or_path: str | Path, *, busy_timeout_s: float = 10.0) -> Migration:
    """Brings a ledger to this qrelay's schema version; does nothing to one that has it.

    Raises:
        ConfigError: no ledger, or one of a newer qrelay.
        BackendUnavailable: in use by a writer for longer than `busy_timeout_s`, or the disk is full.
    """
    url = database.resolve_url(url_or_path)
    engine = database.make_engine(url, busy_timeout_s=busy_timeout_s, create=False)
    shown = database.shown(url)
    try:
        with database.database_errors(f"migrate the ledger {shown}"):
            with database.reading(engine) as connection:
                before = _older(connection, shown)
            if before == schema.SCHEMA_VERSION:
                return Migration(before, before, None)
            copy = _copy(engine, Path(shown), before) if engine.dialect.name == "sqlite" else None
            with database.writing(engine) as connection:
                if engine.dialect.name == "postgresql":
                    on_postgresql.creating(connection)
                upgrade(connection, _older(connection, shown))
                if before < _SUMMARIES:
                    refresh_all(connection, retractions.standing(connection))
            return Migration(before, schema.SCHEMA_VERSION, copy)
    finally:
        engine.dispose()


def _older(connection: sa.Connection, shown: str) -> int:
    """The version, which is this qrelay's or an older one."""
    found = versions.version(connection, shown)
    if found is None:
        raise ConfigError(f"no ledger at {shown}: feed queries first, or name another one with --ledger")
    if found > schema.SCHEMA_VERSION:
        raise ConfigError(
            f"the ledger {shown} has schema version {found}, newer than this qrelay's {schema.SCHEMA_VERSION}: use"
            " the qrelay that wrote it; there is no way back but a copy"
        )
    return found


def _copy(engine: sa.Engine, path: Path, version: int) -> Path:
    """A copy of the file beside it, as it is now."""
    copy = path.with_name(f"{path.name}.v{version}")
    if copy.exists():
        raise ConfigError(f"a copy from an earlier migration is in the way: move {copy} away, and try again")
    on_sqlite.copy_to(engine, copy)
    return copy


def upgrade(connection: sa.Connection, before: int, to: str = "head") -> None:
    """Runs the migrations from version `before` (0: an empty database) within the caller's transaction."""
    from alembic import command

    config = _config(connection)
    command.stamp(config, f"{before:04d}" if before else "base", purge=True)
    command.upgrade(config, to)


def _config(connection: sa.Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
