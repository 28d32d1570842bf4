"""Empty ledgers on both databases, with a clock that stands still: a test that takes one runs on each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from qrelay.labels.ledger.ledger import Ledger
from tests.labels.builders import later
from tests.postgres import in_schema, server_address

_numbers = itertools.count(1)


@cache
def _database() -> str:
    """A database for the ledgers of this session."""
    address = server_address()
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE DATABASE ledgers")
    return server_address("ledgers")


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    """An empty schema of a PostgreSQL database."""
    address, schema = _database(), f"ledger{next(_numbers)}"
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    yield in_schema(address, schema)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"SET lock_timeout = '5s'; DROP SCHEMA {schema} CASCADE")


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger may be created, for tests that open their own."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return str(tmp_path / "ledger.sqlite")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    opened = Ledger.open(ledger_url, busy_timeout_s=0.2, clock=lambda: later(60))
    yield opened
    opened.close()


@pytest.fixture
def sqlite_ledger(tmp_path: Path) -> Iterator[Ledger]:
    """For what only a file has; the file is ledger.sqlite in `tmp_path`."""
    opened = Ledger.open(tmp_path / "ledger.sqlite", busy_timeout_s=0.2, clock=lambda: later(60))
    yield opened
    opened.close()
