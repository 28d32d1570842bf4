"""The ledger in PostgreSQL, by psycopg: readers in REPEATABLE READ (one snapshot, however long), writers in READ
COMMITTED behind the row lock of their collection (`changes.begin_changes`).

A connection is asked whether it lives before each transaction, so that a restart of the server costs one error at
most. A writer waits `lock_timeout` for another one. A site's `synchronous_commit=off` is raised to `on` for our
sessions: what is acknowledged is on the server's disk.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any, Final

import sqlalchemy as sa

from qrelay.errors import ConfigError

_CONNECT_S: Final = "10"
_CREATION: Final = 7_191_523_047
"""Advisory lock under which an empty database gets its tables."""


def make_engine(url: sa.URL, *, patience_s: float) -> sa.Engine:
    """An engine for the database, which must exist. Opens nothing yet.

    Raises:
        ConfigError: psycopg is not installed.
    """
    if find_spec("psycopg") is None:
        raise ConfigError("the ledger is in PostgreSQL and psycopg is absent: pip install 'qrelay[sink-postgres]'")
    defaults = {"connect_timeout": _CONNECT_S, "application_name": "qrelay"}
    arguments = {name: value for name, value in defaults.items() if name not in url.query}
    engine = sa.create_engine(
        url, connect_args=arguments, pool_pre_ping=True, isolation_level="READ COMMITTED", hide_parameters=True
    )
    lock_ms = max(1, math.ceil(patience_s * 1000))

    def on_connect(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('lock_timeout', %s, false), set_config('synchronous_commit', CASE"
                " current_setting('synchronous_commit') WHEN 'off' THEN 'on'"
                " ELSE current_setting('synchronous_commit') END, false)",
                (f"{lock_ms}ms",),
            )
        connection.commit()

    sa.event.listen(engine, "connect", on_connect)
    return engine


def read_options() -> dict[str, Any]:
    """Execution options of a transaction that is one snapshot and writes nothing."""
    return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


def creating(connection: sa.Connection) -> None:
    """Alone among processes that create or migrate tables, until the transaction ends."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION)))
