"""Every mutating act leaves one row that says who did it, in its own transaction, and nothing takes it away."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from qrelay.cli.main import qrelay
from qrelay.config import Role
from qrelay.errors import BackendUnavailable, InputError, QrelayError
from qrelay.jobs.decisions import abandon, trigger_manually
from qrelay.labels.deciding import decide, take_back
from qrelay.labels.importing import import_file
from qrelay.labels.ledger import database, overrides, retractions, schema
from qrelay.labels.ledger.audit_log import Act, audited, page, record
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.migrate import migrate, upgrade
from qrelay.labels.ledger.overrides import NewOverride
from qrelay.labels.ledger.retention import PruneRule, prune
from qrelay.labels.reconcile.reconcile import resolve
from qrelay.labels.settings import TrainingSettings
from qrelay.security.identity import Kind, Principal, acts
from tests.labels.builders import OTHER_JUDGE, dead_letter, graded, judged_set, judgment, relabelled

ANA = Principal("ana", Kind.PERSON, frozenset({Role.LABELLER}), bearer="secret")


def acts_of(ledger: Ledger, **chosen: str) -> list[Act]:
    with ledger.snapshot() as snapshot:
        return list(page(snapshot.connection, size=1000, **chosen).acts)  # type: ignore[arg-type]


def told(ledger: Ledger) -> list[tuple[str, str, str, int]]:
    return [(each.act, each.collection, each.subject, each.count) for each in acts_of(ledger)]


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    ledger.commit([judged_set("q1"), judged_set("q2")])
    return ledger


def test_what_the_queue_commits_leaves_no_row(filled: Ledger) -> None:
    assert told(filled) == []


def retract(ledger: Ledger) -> None:
    with ledger.writing("test") as connection:
        (judge,) = connection.execute(sa.select(schema.judges.c.judge_hash)).scalars()
        retractions.retract(connection, judge, author="ana", reason="", now_us=ledger.now_us())


def replay(ledger: Ledger) -> None:
    ledger.record_dead_letters([dead_letter("l1", "q9")])
    ledger.begin_replay(["l1", "unknown"])
    ledger.begin_replay(["unknown"])
    ledger.finish_replay([])


def start_and_abandon(ledger: Ledger) -> None:
    made = trigger_manually(ledger, "docs", TrainingSettings(command=("true",)))
    abandon(ledger, made.trigger_no)


def override(ledger: Ledger) -> None:
    wanted = NewOverride("q1", "d0#0", 2, "0-3", "ana")
    assert [decide(ledger, "docs", wanted).added for _ in range(2)] == [1, 0]


def took_back(ledger: Ledger) -> None:
    override(ledger)
    take_back(ledger, "docs", "q1", "d0#0", "ana")


def rejudged(ledger: Ledger) -> None:
    again = relabelled(judged_set("q2"), judgment("d0#0", graded(2), OTHER_JUDGE))
    assert [ledger.rejudge([again]) for _ in range(2)] == [[1], [0]]


ACTS: dict[str, tuple[Callable[[Ledger], object], list[tuple[str, str, str, int]]]] = {
    "an override": (override, [("override", "docs", "q1/d0#0", 1)]),
    "a grade taken back": (took_back, [("take back", "docs", "q1/d0#0", 1), ("override", "docs", "q1/d0#0", 1)]),
    "ingest over gRPC": (
        lambda ledger: ledger.commit([judged_set("q1"), judged_set("q3"), judged_set("w", collection="wiki")],
                                     audited=True),
        [("ingest", "wiki", "w", 1), ("ingest", "docs", "q3", 1)],
    ),
    "rejudging": (rejudged, [("rejudge", "docs", "q2", 1)]),
    "a training": (start_and_abandon, []),
    "a repair": (
        lambda ledger: resolve(ledger, [("x", 0)]), [("close dead letters of committed queries", "", "", 1)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTS)
def test_an_act_leaves_one_row_with_who_did_it(filled: Ledger, name: str) -> None:
    act, expected = ACTS[name]
    with acts(ANA):
        act(filled)
    assert {(each.who, each.kind, each.outcome) for each in acts_of(filled)} == {("ana", "person", "done")}
    if expected:
        assert told(filled) == expected
    else:
        assert [each[0] for each in told(filled)] == ["abandon a training", "start a training"]
    with filled.snapshot() as snapshot:
        assert "secret" not in str(snapshot.connection.execute(sa.select(schema.audit_log)).all())


def test_a_retraction_leaves_a_row(filled: Ledger) -> None:
    retract(filled)
    (found,) = acts_of(filled)
    assert (found.act, found.kind, found.who) == ("retract a judge", "local", getpass.getuser())
    assert found.count == 6


def test_an_import_is_one_act_that_names_some_pairs_and_counts_all(filled: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "people.qrels"
    file.write_text("q1 0 d0#0 2\nq2 0 d0#0 1\n")
    import_file(filled, "docs", file, scale="0-3", author="ana")
    assert told(filled) == [("import", "docs", "q1/d0#0 q2/d0#0", 2)]


def test_a_prune_is_one_act_and_its_preview_none(filled: Ledger) -> None:
    prune(filled, PruneRule(passages=True), dry_run=True)
    assert told(filled) == []
    prune(filled, PruneRule(passages=True), dry_run=False)
    assert [each[0] for each in told(filled)] == ["prune"]


def test_an_act_that_is_undone_leaves_no_row(filled: Ledger) -> None:
    with pytest.raises(InputError), filled.writing("test") as connection:
        overrides.add(connection, "docs", [NewOverride("q1", "d0#0", 2, "0-3", "ana")], filled.now_us())
        overrides.add(connection, "docs", [NewOverride("unknown", "d0#0", 2, "0-3", "ana")], filled.now_us())
    assert told(filled) == []


def test_a_replay_tells_what_was_taken_and_what_was_published(ledger: Ledger) -> None:
    replay(ledger)
    assert [(each.subject, each.count, each.outcome) for each in acts_of(ledger)] == [("l1", 1, "begun")]
    ledger.finish_replay(["l1"])
    last = acts_of(ledger)[0]
    assert (last.subject, last.count, last.outcome) == ("l1", 1, "done")


def test_an_act_that_changed_nothing_says_so(ledger: Ledger) -> None:
    with audited(ledger, "promote", "bi_encoder-3") as end:
        assert not end.did(False)
    assert acts_of(ledger)[0].outcome == "nothing changed"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (BackendUnavailable("postgresql://q:hunter2@db is down"), "failed: postgresql://q:***@db is down"),
        (ValueError("a passage's text"), "failed: ValueError"),
    ],
)
def test_why_an_act_failed_holds_no_secret_and_no_text(ledger: Ledger, error: Exception, outcome: str) -> None:
    with pytest.raises(type(error)), audited(ledger, "promote", "bi_encoder-3"):
        raise error
    assert acts_of(ledger)[0].outcome == outcome


def test_an_act_whose_row_cannot_be_written_stands_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger.open(tmp_path / "ledger.sqlite", busy_timeout_s=0.01)
    with ledger.writing("another's"), audited(ledger, "promote", "bi_encoder-3"):
        pass
    assert "not in the audit log: promote bi_encoder-3, done" in caplog.text
    ledger.close()


def test_an_act_elsewhere_that_fails_leaves_a_row_that_says_why(filled: Ledger) -> None:
    with pytest.raises(BackendUnavailable), audited(filled, "promote", "bi_encoder-3"):
        raise BackendUnavailable("the disk is full")
    (found,) = acts_of(filled)
    assert (found.act, found.subject, found.outcome) == ("promote", "bi_encoder-3", "failed: the disk is full")


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_log SET who = 'oz'", "DELETE FROM audit_log", "TRUNCATE audit_log"]
)
def test_the_database_changes_and_deletes_no_row(filled: Ledger, statement: str) -> None:
    override(filled)
    with filled.administering("test") as engine:
        if statement.startswith("TRUNCATE") and engine.dialect.name == "sqlite":
            pytest.skip("SQLite has no TRUNCATE")
        with pytest.raises(sa.exc.DBAPIError, match="keeps what is in it"), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    assert len(acts_of(filled)) == 1


@pytest.mark.parametrize("how", ["INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT"])
def test_no_insert_rewrites_a_row(filled: Ledger, how: str) -> None:
    override(filled)
    before = acts_of(filled)
    names = ", ".join(column.name for column in schema.audit_log.columns)
    values = names.replace("who", "'oz'")
    with filled.administering("test") as engine:
        if engine.dialect.name != "sqlite" and how != "INSERT":
            pytest.skip("PostgreSQL has no such statement")
        with pytest.raises(sa.exc.DBAPIError), engine.begin() as connection:
            connection.exec_driver_sql(f"{how} INTO audit_log ({names}) SELECT {values} FROM audit_log")
    assert acts_of(filled) == before


def test_a_ledger_of_schema_4_gets_an_empty_log_that_keeps_what_comes(ledger_url: str, tmp_path: Path) -> None:
    engine = database.make_engine(database.resolve_url(ledger_url), busy_timeout_s=1, create=True)
    with database.writing(engine) as connection:
        upgrade(connection, 0, "0004")
    engine.dispose()
    assert (migrate(ledger_url).before, migrate(ledger_url).before) == (4, schema.SCHEMA_VERSION)
    opened = Ledger.open(ledger_url, create=False)
    opened.commit([judged_set("q1")], audited=True)
    assert [each[0] for each in told(opened)] == ["ingest"]
    with pytest.raises((sa.exc.DBAPIError, QrelayError)), opened.writing("test") as connection:
        connection.execute(schema.audit_log.delete())
    opened.close()


def test_pages_go_back_in_time_and_choose_by_act_and_collection(ledger: Ledger) -> None:
    with ledger.writing("test") as connection:
        for number in range(5):
            record(connection, f"act {number % 2}", number, collection=f"c{number}", subject="a\0b\nc" * 400)
    with ledger.snapshot() as snapshot:
        first = page(snapshot.connection, size=2)
        second = page(snapshot.connection, size=2, token=first.next_page_token)
        last = page(snapshot.connection, size=2, token=second.next_page_token)
        for wrong in ({"size": 0}, {"token": "x"}, {"token": "9" * 30}):
            with pytest.raises(InputError):
                page(snapshot.connection, **wrong)  # type: ignore[arg-type]
    assert [each.collection for each in (*first.acts, *second.acts, *last.acts)] == ["c4", "c3", "c2", "c1", "c0"]
    assert last.next_page_token == ""
    assert len(first.acts[0].subject) <= 1000 and "\n" not in first.acts[0].subject
    assert [each.act for each in acts_of(ledger, act="act 1")] == ["act 1"] * 2
    assert [each.act for each in acts_of(ledger, collection="c2")] == ["act 0"]


def test_the_command_lists_the_log(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    ledger.commit([judged_set("q1"), judged_set("q2")], audited=True)
    override(ledger)
    ledger.close()
    command = ["ledger", "audit-log", "--ledger", str(tmp_path / "ledger.sqlite"), "--data-dir", str(tmp_path)]
    shown = CliRunner().invoke(qrelay, command, catch_exceptions=False)
    assert [word in shown.stdout for word in ("override", "ingest", f"local/{getpass.getuser()}")] == [True] * 3
    told = json.loads(CliRunner().invoke(qrelay, [*command, "--json", "--page-size", "1"]).stdout)
    assert [each["act"] for each in told["acts"]] == ["override"]
    more = json.loads(CliRunner().invoke(qrelay, [*command, "--json", "--page", told["next_page_token"]]).stdout)
    assert [(each["act"], each["count"]) for each in more["acts"]] == [("ingest", 2)]
