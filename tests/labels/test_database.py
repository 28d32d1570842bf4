"""Opening a ledger: what is refused, and in which words."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import exc

from qrelay.errors import BackendUnavailable, ConfigError, InternalError, MalformedInput, QrelayError
from qrelay.labels.ledger import database, schema
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.labels.ledger.schema import SCHEMA_VERSION
from tests.labels.builders import judged_set


def test_a_path_and_its_url_are_the_same_ledger(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.sqlite"
    first = Ledger.open(path)
    first.commit([judged_set()])
    first.close()
    second = Ledger.open(f"sqlite:///{path}", create=False)
    assert second.stats("docs")[0].queries == 1
    assert second.schema_version == SCHEMA_VERSION
    second.close()


def test_commits_are_synced_to_disk_in_write_ahead_mode(sqlite_ledger: Ledger) -> None:
    with sqlite_ledger._engine.connect() as connection:
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


@pytest.mark.parametrize("url", ["mysql://host/db", "sqlite://", "sqlite:///:memory:", "nonsense://"])
def test_an_unsupported_database_is_refused_in_words(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///PATH or postgresql://"):
        Ledger.open(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@/db?host=/nowhere",
        "postgresql://me@/db?host=/nowhere&password=secret",
        "postgres://me:secret@/db?host=/nowhere&connect_timeout=soon",
        "postgresql+psycopg2://me:secret@/db?host=/nowhere",
        "mysql://me:secret@host/db",
        "postgresql://me:secret@host:port/db",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(QrelayError) as caught:
        Ledger.open(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_may_answer_later(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="tried again later"):
        Ledger.open(f"postgresql://me@/db?host={tmp_path}")


def test_a_database_that_does_not_exist_is_for_the_operator(postgresql_url: str) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        Ledger.open(postgresql_url.replace("/ledgers", "/absent"))


def test_the_address_of_a_ledger_is_shown_without_its_password(postgresql_url: str) -> None:
    ledger = Ledger.open(postgresql_url.replace("postgres:@", "postgres:secret@"))
    assert ledger.url.startswith("postgresql://postgres:***@")
    ledger.close()


def test_an_empty_schema_is_no_ledger_to_a_reader(postgresql_url: str) -> None:
    with pytest.raises(ConfigError, match=r"no ledger at .*feed queries first"):
        Ledger.open(postgresql_url, create=False)


def test_a_schema_with_other_tables_is_shared_and_one_with_our_names_is_refused(postgresql_url: str) -> None:
    import psycopg

    with psycopg.connect(postgresql_url) as connection:
        connection.execute("CREATE TABLE qrelay_judges (x INTEGER)")
    Ledger.open(postgresql_url).close()
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("DROP TABLE ledger_meta")
    with pytest.raises(ConfigError, match="something else"):
        Ledger.open(postgresql_url)


def test_processes_that_open_an_empty_database_at_once_make_one_ledger(ledger_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: Ledger.open(ledger_url), range(4)))
    assert opened[0].commit([judged_set()]) == [CommitStatus.COMMITTED]
    assert opened[1].commit([judged_set()]) == [CommitStatus.DUPLICATE]
    for each in opened:
        each.close()


def test_connections_that_break_cost_no_commit(postgresql_url: str) -> None:
    import psycopg

    ledger = Ledger.open(postgresql_url)
    ledger.commit([judged_set("q1")])
    with psycopg.connect(postgresql_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert ledger.commit([judged_set("q2")]) == [CommitStatus.COMMITTED]
    assert ledger.stats()[0].queries == 2
    ledger.close()


def test_a_connection_that_breaks_in_a_transaction_is_tried_again(postgresql_url: str) -> None:
    ledger = Ledger.open(postgresql_url)

    def broken() -> None:
        with ledger.writing("do it") as connection:
            connection.execute(schema.collections.select()).all()
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(BackendUnavailable, match="cannot do it"):
        broken()
    assert ledger.commit([judged_set("q1")]) == [CommitStatus.COMMITTED]
    ledger.close()


def test_every_text_of_the_schema_is_compared_by_bytes(postgresql_url: str) -> None:
    import psycopg

    Ledger.open(postgresql_url).close()
    with psycopg.connect(postgresql_url) as connection:
        others = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
            " AND data_type IN ('text', 'character varying') AND collation_name IS DISTINCT FROM 'C'"
        ).fetchall()
    assert others == []


def test_commits_are_synced_on_a_server_that_is_set_not_to(postgresql_url: str) -> None:
    for configured, used in (("off", "on"), ("local", "local"), ("on", "on")):
        ledger = Ledger.open(f"{postgresql_url}%20-csynchronous_commit%3D{configured}")
        with ledger.writing("look") as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == used
        ledger.close()


def test_a_snapshot_cannot_write_and_does_not_move(ledger_url: str) -> None:
    ledger = Ledger.open(ledger_url)
    ledger.commit([judged_set("q1")])
    with ledger.snapshot() as snapshot:
        assert snapshot.stats()[0].queries == 1
        ledger.commit([judged_set("q2")])
        assert snapshot.stats()[0].queries == 1
    assert ledger.stats()[0].queries == 2
    ledger.close()


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("40P01", BackendUnavailable),  # deadlock
        ("40001", BackendUnavailable),  # serialization
        ("53100", BackendUnavailable),  # disk full
        ("53300", BackendUnavailable),  # too many connections
        ("55P03", BackendUnavailable),  # lock not available
        ("57P01", BackendUnavailable),  # shutting down
        ("57P03", BackendUnavailable),  # starting
        ("25006", BackendUnavailable),  # a standby that only reads
        ("28P01", ConfigError),  # password
        ("3D000", ConfigError),  # no such database
        ("42501", ConfigError),  # no right
        ("22P02", MalformedInput),  # a value
        ("23505", InternalError),  # unique
    ],
)
def test_what_a_server_says_is_one_of_our_errors(state: str, kind: type[QrelayError]) -> None:
    from psycopg.errors import lookup

    with pytest.raises(kind, match="cannot do it"), database.database_errors("do it"):
        raise exc.DBAPIError("INSERT", {}, lookup(state)("it said so"))


def test_an_error_that_is_no_databases_passes() -> None:
    with pytest.raises(KeyError), database.database_errors("do it"):
        raise KeyError("mine")


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
