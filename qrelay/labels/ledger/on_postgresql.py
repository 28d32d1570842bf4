"""The ledger in PostgreSQL, by psycopg: readers in REPEATABLE READ (one snapshot, however long), writers in READ
COMMITTED behind the row lock of their collection (`changes.begin_changes`).

A commit of judged sets lets go of its locks before it is on disk (`release_early`), so that the next writer of the
collection need not wait for the disk, or for a standby, and then waits for that (`await_disk`): nobody is answered
sooner. What others read meanwhile may be lost with the server, as long as nobody committed after it; whoever commits
after it takes it along to the disk, for the log is written in its order.

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


def release_early(connection: sa.Connection) -> None:
    """The transaction's locks go when it commits, whether or not that is on disk: `await_disk` must follow."""
    connection.exec_driver_sql("SET LOCAL synchronous_commit = off")


def await_disk(connection: sa.Connection) -> None:
    """Returns when all that was committed before is as durable as `synchronous_commit` says; in no transaction. A
    commit waits for the whole log before it, and only one that wrote something does."""
    raw: Any = connection.connection.driver_connection
    raw.autocommit = True
    try:
        raw.execute("SELECT pg_logical_emit_message(true, 'qrelay', '')")
    finally:
        raw.autocommit = False


def read_options() -> dict[str, Any]:
    """Execution options of a transaction that is one snapshot and writes nothing."""
    return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


def creating(connection: sa.Connection) -> None:
    """Alone among processes that create or migrate tables, until the transaction ends."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION)))
