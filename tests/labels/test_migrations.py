"""A ledger of an older schema: refused by name, migrated whole, and then the same to every reader."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from qrelay.errors import ConfigError
from qrelay.labels.exports.catalogue import QRELS, TRIPLES
from qrelay.labels.ledger import database, schema
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.labels.ledger.migrate import migrate, upgrade
from tests.labels.builders import OTHER_JUDGE, dead_letter, graded, judged_set, judgment, relabelled
from tests.labels.exporting import export_bytes

OLD_SQLITE = Path(__file__).with_name("schema1.sql")
"""The tables of schema 1 as the qrelay of that time made them: `git show b903a52^:services/sink/schema.py`."""
TABLES = ("queries", "candidate_sets", "passages", "judges", "judgments", "dead_letters")


def old_tables(url: str) -> sa.Engine:
    """An empty ledger of schema 1; only SQLite ever had one, so elsewhere the first migration makes it."""
    engine = database.make_engine(database.resolve_url(url), busy_timeout_s=1, create=True)
    if engine.dialect.name == "sqlite":
        with sqlite3.connect(str(engine.url.database)) as raw:
            raw.executescript(OLD_SQLITE.read_text())
            raw.execute("INSERT INTO ledger_meta VALUES ('schema_version', '1')")
        raw.close()
    else:
        with database.writing(engine) as connection:
            upgrade(connection, 0, "0001")
            connection.exec_driver_sql("DROP TABLE alembic_version")
    return engine


def fill(url: str, newer: Ledger) -> None:
    """Copies what a ledger of today holds into one of schema 1."""
    engine = old_tables(url)
    with database.writing(engine) as to, newer.snapshot() as snapshot:
        for name in TABLES:
            old = sa.Table(name, sa.MetaData(), autoload_with=to)
            rows = snapshot.connection.execute(sa.select(schema.metadata.tables[name])).mappings()
            to.execute(old.insert(), [{column.name: row[column.name] for column in old.c} for row in rows])
            key = next(iter(old.primary_key.columns)).name
            if engine.dialect.name == "postgresql" and name in ("queries", "judges", "dead_letters"):
                to.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{name}', '{key}'), max({key})) FROM {name}"
                )
    engine.dispose()


@pytest.fixture
def today(tmp_path: Path) -> Ledger:
    """Two collections, a re-judged query, a dead letter."""
    ledger = Ledger.open(tmp_path / "today.sqlite")
    ledger.commit(
        [judged_set("q1"), judged_set("q2", outcomes=[graded(0), graded(3)]), judged_set(collection="wiki")]
    )
    ledger.rejudge([relabelled(judged_set("q2"), judgment("d0#0", graded(2), OTHER_JUDGE))])
    ledger.record_dead_letters([dead_letter("l1", "q9")])
    return ledger


def exported(ledger: Ledger) -> list[bytes]:
    return [
        b"".join(export_bytes(ledger, name, kind, unmeasured=True))
        for name in ("docs", "wiki")
        for kind in (QRELS, TRIPLES)
    ]


def test_a_migrated_ledger_exports_what_it_held_and_takes_more(ledger_url: str, today: Ledger) -> None:
    fill(ledger_url, today)
    assert (migrate(ledger_url).before, migrate(ledger_url).before) == (1, schema.SCHEMA_VERSION)
    opened = Ledger.open(ledger_url, create=False)
    assert exported(opened) == exported(today)
    assert opened.stats() == today.stats()
    assert opened.get_dead_letter("l1") == today.get_dead_letter("l1")
    with opened.snapshot() as snapshot:
        assert snapshot.change_no("docs") == snapshot.change_no("wiki") == 1
        assert len(list(snapshot.labelled_queries("docs", changes=(0, 1)))) == 2
        found = set(
            snapshot.connection.execute(sa.select(schema.generations.c["query_no", "generation", "judgments"]))
        )
    with today.snapshot() as snapshot:
        generations = schema.generations.c["query_no", "generation", "judgments"]
        assert found == set(snapshot.connection.execute(sa.select(generations)))
    opened.commit([judged_set("q3")])
    with opened.snapshot() as snapshot:
        assert [q.query_id for q in snapshot.labelled_queries("docs", changes=(1, 2))] == ["q3"]
    opened.close()
    today.close()


def test_what_is_in_a_ledger_of_schema_2_is_round_0_and_takes_round_1(ledger_url: str, today: Ledger) -> None:
    fill(ledger_url, today)
    engine = database.make_engine(database.resolve_url(ledger_url), busy_timeout_s=1, create=False)
    with database.writing(engine) as connection:
        upgrade(connection, 1, "0002")
    engine.dispose()
    assert migrate(ledger_url).before == 2
    opened = Ledger.open(ledger_url, create=False)
    assert exported(opened) == exported(today)
    with opened.snapshot() as snapshot:
        generations = sa.select(schema.generations.c["generation", "round", "left_out"]).distinct()
        assert set(snapshot.connection.execute(generations)) == {(0, 0, 0), (1, None, 0)}
        assert set(snapshot.connection.execute(sa.select(schema.queries.c.round)).scalars()) == {0}
    old = opened.get_dead_letter("l1")
    assert old is not None and old.letter.round == 0
    first = judged_set("q1", outcomes=[graded(3)] * 4)
    query = replace(first.candidate_set.query, round=1)
    again = replace(first, candidate_set=replace(first.candidate_set, query=query))
    assert opened.commit([first, again]) == [CommitStatus.DUPLICATE, CommitStatus.COMMITTED]
    assert opened.query_states("docs", ["q1"], 1) == {"q1": "committed"}
    opened.close()
    today.close()


def test_an_older_ledger_is_refused_naming_the_command(ledger_url: str) -> None:
    old_tables(ledger_url).dispose()
    with pytest.raises(ConfigError, match=r"schema version 1; .* `qrelay ledger migrate`"):
        Ledger.open(ledger_url)


def test_a_newer_ledger_is_neither_opened_nor_migrated(ledger: Ledger, ledger_url: str) -> None:
    with ledger.writing("test") as connection:
        connection.execute(schema.ledger_meta.update().values(value="99"))
    for use in (Ledger.open, migrate):
        with pytest.raises(ConfigError, match="schema version 99"):
            use(ledger_url)


def test_the_migrations_make_the_tables_that_the_schema_declares(ledger_url: str) -> None:
    engine = old_tables(ledger_url)
    migrate(ledger_url)
    with database.reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


def test_a_migrated_file_has_the_very_columns_of_a_new_one(tmp_path: Path) -> None:
    engine = old_tables(str(tmp_path / "old.sqlite"))
    engine.dispose()
    migrate(tmp_path / "old.sqlite")
    Ledger.open(tmp_path / "new.sqlite").close()
    told = []
    for name in ("old.sqlite", "new.sqlite"):
        raw = sqlite3.connect(tmp_path / name)
        tables = [row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")]
        told.append({t: raw.execute(f"PRAGMA table_xinfo({t})").fetchall() for t in tables if t != "alembic_version"})
        raw.close()
    assert told[0] == told[1]


def test_a_migration_keeps_a_copy_of_the_file_as_it_was(tmp_path: Path, today: Ledger) -> None:
    path = tmp_path / "old.sqlite"
    fill(str(path), today)
    copy = migrate(path).copy
    assert copy == tmp_path / "old.sqlite.v1"
    with pytest.raises(ConfigError, match="schema version 1"):
        Ledger.open(copy)
    with sqlite3.connect(copy) as raw:
        assert raw.execute("SELECT count(*) FROM queries").fetchone() == (3,)
    raw.close()
    today.close()


def test_a_migration_that_fails_changes_nothing(ledger_url: str, today: Ledger) -> None:
    fill(ledger_url, today)
    engine = database.make_engine(database.resolve_url(ledger_url), busy_timeout_s=1, create=False)
    with database.writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE triggers (in_the_way INTEGER)")
    with pytest.raises(Exception, match="triggers"):
        migrate(ledger_url)
    with database.writing(engine) as connection:
        tables = set(sa.inspect(connection).get_table_names())
        assert tables & {"collections", "generations", "overrides"} == set()
        connection.exec_driver_sql("DROP TABLE triggers")
    engine.dispose()
    for copy in Path(str(engine.url.database)).parent.glob("*.v1"):
        copy.unlink()
    assert migrate(ledger_url).before == 1
    today.close()


def test_there_is_nothing_to_migrate_where_there_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ledger at"):
        migrate(tmp_path / "absent.sqlite")
