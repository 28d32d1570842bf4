"""Opening a ledger: what is refused, and in which words."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import exc

from qrelay.errors import BackendUnavailable, ConfigError, InternalError
from services.sink.ledger import database
from services.sink.ledger.ledger import Ledger
from services.sink.ledger.schema import SCHEMA_VERSION
from tests.sink.builders import judged_set


def test_a_path_and_its_url_are_the_same_ledger(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.sqlite"
    first = Ledger.open(path)
    first.commit([judged_set()])
    first.close()
    second = Ledger.open(f"sqlite:///{path}", create=False)
    assert second.stats("docs")[0].queries == 1
    assert second.schema_version == SCHEMA_VERSION
    second.close()


def test_commits_are_synced_to_disk_in_write_ahead_mode(ledger: Ledger) -> None:
    with ledger._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "2 is FULL"
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_another_schema_version_is_refused_naming_both(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE ledger_meta SET value = '99'")
    with pytest.raises(ConfigError, match=rf"version 99; this qrelay reads {SCHEMA_VERSION}"):
        Ledger.open(path)


def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE theirs (x)")
    with pytest.raises(ConfigError, match="something else"):
        Ledger.open(path)
    with sqlite3.connect(path) as raw:
        assert [name for (name,) in raw.execute("SELECT name FROM sqlite_master")] == ["theirs"]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)
    with pytest.raises(ConfigError, match="not a database"):
        Ledger.open(path)


def test_an_absent_ledger_is_not_created_for_a_reader(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no ledger at .*feed queries first"):
        Ledger.open(tmp_path / "absent.sqlite", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["postgresql://host/db", "sqlite://", "sqlite:///:memory:", "nonsense://"])
def test_an_unsupported_database_is_refused_in_words(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///PATH"):
        Ledger.open(url)


def test_a_locked_file_cannot_be_opened_for_now(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BackendUnavailable, match="locked"):
        Ledger.open(path, busy_timeout_s=0.1)
    other.close()


def test_an_unknown_database_error_is_called_a_bug() -> None:
    with pytest.raises(InternalError, match="cannot do it"), database.database_errors("do it"):
        raise exc.IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE"))
