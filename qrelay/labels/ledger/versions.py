"""Which version of the tables a database has: created where it is empty, refused where it is another one.

`ledger_meta` holds the version. `migrate.py` raises it.
"""

from __future__ import annotations

import sqlalchemy as sa

from qrelay.errors import ConfigError
from qrelay.labels.ledger import on_postgresql, on_sqlite, schema
from qrelay.labels.ledger.audit_log import make_append_only


def check_or_create(connection: sa.Connection, shown: str, *, create: bool) -> None:
    """Creates the tables in an empty database; refuses a foreign one and another version.

    Raises:
        ConfigError: as above; or empty, and not `create`.
    """
    if connection.dialect.name == "postgresql" and create:
        on_postgresql.creating(connection)
    found = version(connection, shown)
    if found is None and not create:
        raise ConfigError(f"no ledger at {shown}: feed queries first, or name another one with --ledger")
    if found is None:
        _create(connection)
    elif found < schema.SCHEMA_VERSION:
        raise ConfigError(
            f"the ledger {shown} has schema version {found}; this qrelay reads {schema.SCHEMA_VERSION}: stop the"
            " services that use it, and run `qrelay ledger migrate`"
        )
    elif found > schema.SCHEMA_VERSION:
        raise ConfigError(
            f"the ledger {shown} has schema version {found}; this qrelay reads {schema.SCHEMA_VERSION}:"
            " use the qrelay that wrote it, or another ledger"
        )


def version(connection: sa.Connection, shown: str) -> int | None:
    """The version of a ledger's tables; None in a database without tables of a ledger.

    Raises:
        ConfigError: the database is something else's.
    """
    tables = set(sa.inspect(connection).get_table_names())
    if "ledger_meta" not in tables:
        # A server's database may be shared, a file is one program's.
        theirs = tables & schema.metadata.tables.keys() if connection.dialect.name == "postgresql" else tables
        if theirs:
            raise ConfigError(
                f"{shown} is a database of something else (it has a table {min(theirs)}, and no ledger_meta): choose"
                " another file, database or schema"
            )
        return None
    meta = schema.ledger_meta.c
    found = connection.execute(sa.select(meta.value).where(meta.name == "schema_version")).scalar()
    if found is None or not found.isdecimal():
        raise ConfigError(f"{shown} says {found!r} for its schema version: restore it from a copy")
    return int(found)


def _create(connection: sa.Connection) -> None:
    schema.metadata.create_all(connection)
    make_append_only(connection)
    connection.execute(schema.ledger_meta.insert(), {"name": "schema_version", "value": str(schema.SCHEMA_VERSION)})
    if connection.dialect.name == "sqlite":
        on_sqlite.mark_as_ours(connection)
