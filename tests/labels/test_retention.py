"""What may go from a ledger, what never does, and what the command says of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from qrelay.cli.labels.ledger import ledger as command
from qrelay.labels.exports.catalogue import QRELS, TRIPLES
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.retention import DAY_US, Pruned, PruneRule, compact, prune
from qrelay.types import Missing
from tests.labels.builders import OTHER_JUDGE, dead_letter, graded, judged_set, judgment, later, relabelled
from tests.labels.exporting import export_bytes

DAYS = 86_400.0


def exported(ledger: Ledger) -> list[bytes]:
    return [b"".join(export_bytes(ledger, "docs", kind, unmeasured=True)) for kind in (QRELS, TRIPLES)]


def rows(ledger: Ledger, table: sa.Table) -> list[dict[str, Any]]:
    with ledger.snapshot() as snapshot:
        chosen = sa.select(table).order_by(*table.primary_key.columns)
        return [dict(row) for row in snapshot.connection.execute(chosen).mappings()]


@pytest.fixture
def aged(ledger: Ledger) -> Ledger:
    """A ledger whose clock stands 40 days after everything in it happened."""
    ledger.record_dead_letters([dead_letter("closed", "q1"), dead_letter("open", "q9")])
    ledger.commit([judged_set("q1"), judged_set("q2", outcomes=[graded(3), graded(0)])])
    ledger.rejudge([relabelled(judged_set("q2"), judgment("d0#0", graded(2), OTHER_JUDGE))])
    ledger._clock = lambda: later(40 * DAYS)
    return ledger


def test_a_dry_run_says_what_the_run_does_and_does_nothing(aged: Ledger) -> None:
    rule = PruneRule(30, 30, passages=True)
    before = [rows(aged, table) for table in schema.metadata.sorted_tables]
    told = prune(aged, rule, dry_run=True)
    assert [rows(aged, table) for table in schema.metadata.sorted_tables] == before
    assert told == prune(aged, rule, dry_run=False)
    assert (told.dead_letters, told.raw_replies) == (1, 6)
    assert prune(aged, rule, dry_run=True) == Pruned()


def test_raw_replies_go_and_every_label_stays(aged: Ledger) -> None:
    before, labels = exported(aged), rows(aged, schema.judgments)
    assert prune(aged, PruneRule(raw_replies_days=30), dry_run=False).raw_replies == 6
    assert exported(aged) == before
    kept = rows(aged, schema.judgments)
    assert [{**row, "raw_reply": "", "missing_detail": None} for row in labels] == [
        {**row, "missing_detail": None} for row in kept
    ]
    assert {row["missing_detail"] for row in kept if row["grade"] is None} == {""}
    with aged.snapshot() as snapshot:
        found = snapshot.judged_set("docs", "q1")
    assert found is not None
    assert found.judgments[2].outcome == Missing("timeout", "")


def test_only_closed_letters_lose_their_payload_and_none_its_reason(aged: Ledger) -> None:
    assert prune(aged, PruneRule(dead_letters_days=30), dry_run=False).dead_letters == 1
    closed, waiting = aged.get_dead_letter("closed"), aged.get_dead_letter("open")
    assert closed is not None
    assert waiting is not None
    assert dataclasses.replace(closed.letter, payload=b"") == dataclasses.replace(dead_letter("closed"), payload=b"")
    assert closed.letter.payload == b""
    assert waiting.letter == dead_letter("open", "q9")


def test_what_is_younger_stays(aged: Ledger) -> None:
    assert prune(aged, PruneRule(50, 50), dry_run=False) == Pruned()


def test_only_texts_that_no_query_names_go(aged: Ledger) -> None:
    before = exported(aged)
    with aged.writing("test") as connection:
        for collection in ("docs", "gone"):
            connection.execute(
                schema.passages.insert(), {"collection": collection, "text_hash": "f" * 32, "title": "t", "text": "x"}
            )
    found = prune(aged, PruneRule(passages=True), dry_run=False)
    assert (found.passages, found.passage_characters) == (2, 4)
    assert exported(aged) == before
    assert prune(aged, PruneRule(passages=True), dry_run=False) == Pruned()


def test_pruning_goes_through_more_than_a_page(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qrelay.labels.ledger.retention._PAGE", 2)
    ledger.record_dead_letters([dead_letter(f"l{n}", f"q{n}") for n in range(5)])
    ledger.commit([judged_set(f"q{n}") for n in range(5)])
    ledger._clock = lambda: later(40 * DAYS)
    found = prune(ledger, PruneRule(30, 30, passages=True), dry_run=False)
    assert (found.dead_letters, found.raw_replies, found.passages) == (5, 15, 0)
    assert prune(ledger, PruneRule(30, 30), dry_run=True) == Pruned()


def test_compacting_changes_no_row(aged: Ledger) -> None:
    prune(aged, PruneRule(30, 30), dry_run=False)
    before = [rows(aged, table) for table in schema.metadata.sorted_tables]
    sizes = compact(aged)
    assert min(sizes) > 0
    assert [rows(aged, table) for table in schema.metadata.sorted_tables] == before


def test_compacting_a_file_gives_space_back(sqlite_ledger: Ledger) -> None:
    sqlite_ledger.record_dead_letters([dead_letter("l1", "q1", payload=b"x" * 2_000_000)])
    sqlite_ledger.commit([judged_set("q1")])
    sqlite_ledger._clock = lambda: later(40 * DAYS)
    prune(sqlite_ledger, PruneRule(dead_letters_days=30), dry_run=False)
    before, after = compact(sqlite_ledger)
    assert after < before - 1_900_000


def run(url: str, *arguments: str) -> Any:
    return CliRunner().invoke(command, [*arguments, "--ledger", url, "--json"], catch_exceptions=False)


def test_the_command_prunes_only_when_told_to(aged: Ledger, ledger_url: str) -> None:
    asked = ("prune", "--dead-letters-older-than", "0", "--raw-replies-older-than", "0")
    first, second = json.loads(run(ledger_url, *asked).output), json.loads(run(ledger_url, *asked, "--yes").output)
    assert first == {**second, "dry_run": True}
    assert second["raw_replies"] == 6
    assert json.loads(run(ledger_url, *asked).output)["raw_replies"] == 0
    assert json.loads(run(ledger_url, "compact").output).keys() == {"before", "after"}


def test_the_command_wants_to_hear_what_may_go(aged: Ledger, ledger_url: str) -> None:
    result = CliRunner().invoke(command, ["prune", "--ledger", ledger_url])
    assert result.exit_code == 2
    assert "--unused-passages" in result.output


def test_the_command_tells_version_rows_and_changes(aged: Ledger, ledger_url: str) -> None:
    found = json.loads(run(ledger_url, "info").output)
    assert found["schema_version"] == schema.SCHEMA_VERSION
    assert (found["rows"]["queries"], found["rows"]["judgments"], found["rows"]["generations"]) == (2, 6, 3)
    (docs,) = found["collections"]
    assert (docs["collection"], docs["queries"], docs["change_no"]) == ("docs", 2, 2)
    assert found["bytes"] == sum(found["bytes_by_part"].values()) > 0


def test_the_command_migrates_and_then_finds_nothing_to_do(tmp_path: Path) -> None:
    from tests.labels.test_migrations import old_tables

    old_tables(str(tmp_path / "old.sqlite")).dispose()
    done = json.loads(run(str(tmp_path / "old.sqlite"), "migrate").output)
    assert done == {"before": 1, "after": schema.SCHEMA_VERSION, "copy": str(tmp_path / "old.sqlite.v1")}
    assert json.loads(run(str(tmp_path / "old.sqlite"), "migrate").output)["before"] == schema.SCHEMA_VERSION


def test_a_day_is_a_day() -> None:
    assert DAY_US == DAYS * 1e6
