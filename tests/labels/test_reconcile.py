"""Reconciliation on a real nats-server and both databases: what is lost is found, fed again and committed once."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from qrelay import wire
from qrelay.cli.labels.reconcile import reconcile as command
from qrelay.config import NatsSettings
from qrelay.errors import ConfigError
from qrelay.feed.feeder import Feeder
from qrelay.feed.journal import Journal
from qrelay.identity import query_fingerprint
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.schema import dead_letters
from qrelay.labels.reconcile.evidence import Report
from qrelay.labels.reconcile.reconcile import LETTER_TEXT_CHARS, reconcile
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import Queue
from qrelay.types import JudgedSet, Query
from tests.labels.builders import dead_letter, judged_set


@pytest.fixture
async def broker(nats_settings: NatsSettings) -> AsyncIterator[JetStreamBroker]:
    async with await JetStreamBroker.connect(nats_settings, name="test", owner=True) as opened:
        yield opened


@pytest.fixture
def journal_path(tmp_path: Path) -> Path:
    return tmp_path / "feed" / "docs.sqlite"


async def feed(broker: JetStreamBroker, journal_path: Path, *ids: str, text: str = "", query_round: int = 0) -> None:
    async def lines() -> AsyncIterator[str]:
        for query_id in ids:
            yield f"{query_id}\t{text or f'text of {query_id}'}"

    with Journal(journal_path) as journal:
        report = await Feeder(broker, journal, collection="docs", query_round=query_round).feed(lines())
    assert not report.rejected


async def label(broker: JetStreamBroker, ledger: Ledger, *, dying: Sequence[str] = ()) -> int:
    """What the services do with the queries in the stream, in one step; the ids in `dying` become dead letters."""
    messages = await broker.fetch(Queue.QUERIES, 100, 0.2)
    for message in messages:
        query = wire.decode(message.payload, message.headers)
        assert isinstance(query, Query)
        if query.query_id in dying:
            cut = query.text[:LETTER_TEXT_CHARS]
            letter = dead_letter(f"l-{query.query_id}", query.query_id, cut, round=query.round)
            ledger.record_dead_letters([letter])
        else:
            made = judged_set(query.query_id, query.text)
            ledger.commit([replace(made, candidate_set=replace(made.candidate_set, query=query))])
        await message.ack()
    return len(messages)


async def delete(broker: JetStreamBroker, query_id: str) -> None:
    """By hand, as an operator with the NATS tool would."""
    async for message in broker.stored(Queue.QUERIES, "docs"):
        query = wire.decode(message.payload, message.headers)
        assert isinstance(query, Query)
        if query.query_id == query_id:
            assert await broker._js.delete_msg(Queue.QUERIES.stream, message.sequence)


async def look(nats: NatsSettings, ledger: Ledger, journal_path: Path, *, repair: bool = False) -> Report:
    return await reconcile(nats, ledger, journal_path, "docs", repair=repair, pause_s=0.05)


async def test_a_message_deleted_by_hand_is_lost_then_fed_again_and_committed_once(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    await feed(broker, journal_path, "a", "b", "c")
    await delete(broker, "b")
    await label(broker, ledger)
    found = await look(nats_settings, ledger, journal_path)
    assert (found.accepted, found.committed, found.lost, found.lost_ids, found.unsound) == (3, 2, 1, ["b"], 1)
    repaired = await look(nats_settings, ledger, journal_path, repair=True)
    assert (repaired.reemitted, repaired.unsound) == (1, 0)
    again = await look(nats_settings, ledger, journal_path, repair=True)
    assert (again.in_flight, again.lost, again.reemitted) == ({"queries": 1}, 0, 0)
    assert await label(broker, ledger) == 1
    done = await look(nats_settings, ledger, journal_path)
    assert (done.committed, done.lost, done.in_flight, done.unexpected) == (3, 0, {}, 0)


async def test_every_query_is_counted_in_the_state_that_it_is_in(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    await feed(broker, journal_path, "committed", "dead")
    await label(broker, ledger, dying=["dead"])
    await feed(broker, journal_path, "waiting")
    payload, headers = wire.encode(judged_set("judged", "text of judged"))
    await feed(broker, journal_path, "judged")
    await delete(broker, "judged")
    await broker.publish(Queue.JUDGED.subject("docs"), payload, headers, "m1")
    report = await look(nats_settings, ledger, journal_path)
    assert (report.accepted, report.committed, report.dead) == (4, 1, 1)
    assert report.in_flight == {"queries": 1, "judged": 1}
    assert (report.lost, report.duplicated, report.unexpected, report.unsound) == (0, 0, 0, 0)


async def test_a_query_is_where_its_latest_round_is(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    await feed(broker, journal_path, "a", "b", "c")
    await label(broker, ledger)
    await feed(broker, journal_path, "a", "b", query_round=2)
    found = await look(nats_settings, ledger, journal_path)
    assert (found.accepted, found.committed, found.in_flight) == (3, 1, {"queries": 2})
    await delete(broker, "a")
    await label(broker, ledger, dying=["b"])
    found = await look(nats_settings, ledger, journal_path)
    assert (found.committed, found.dead, found.lost_ids, found.unexpected) == (1, 1, ["a"], 0)
    await feed(broker, journal_path, "b", query_round=3)
    assert (await look(nats_settings, ledger, journal_path, repair=True)).reemitted == 1
    assert (await look(nats_settings, ledger, journal_path)).in_flight == {"queries": 2}
    assert await label(broker, ledger) == 2
    done = await look(nats_settings, ledger, journal_path)
    assert (done.committed, done.dead, done.lost, done.duplicated, done.in_flight) == (3, 0, 0, 0, {})
    assert ledger.query_states("docs", ["a", "b", "c"], 2) == {"a": "committed", "b": "committed"}


async def test_a_committed_query_whose_letter_waits_is_duplicated_until_the_letter_is_closed(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    await feed(broker, journal_path, "a", "b")
    await label(broker, ledger)
    ledger.record_dead_letters([dead_letter("l1", "a")])
    with ledger.writing("reopen a letter, as no code of ours does") as connection:
        connection.execute(dead_letters.update().values(state="open", closed_us=None))
    found = await look(nats_settings, ledger, journal_path)
    assert (found.duplicated, found.duplicated_ids, found.committed, found.unsound) == (1, ["a"], 1, 1)
    repaired = await look(nats_settings, ledger, journal_path, repair=True)
    assert (repaired.resolved, repaired.unsound) == (1, 0)
    assert (await look(nats_settings, ledger, journal_path)).duplicated == 0
    entry = ledger.get_dead_letter("l1")
    assert entry is not None and entry.state == "resolved"


async def test_a_replayed_letter_whose_message_is_gone_is_lost(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    await feed(broker, journal_path, "a")
    await label(broker, ledger, dying=["a"])
    ledger.begin_replay(["l-a"])
    ledger.finish_replay(["l-a"])
    assert (await look(nats_settings, ledger, journal_path)).lost_ids == ["a"]


async def test_what_another_feed_sent_is_unexpected_and_neither_lost_nor_duplicated(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    await feed(broker, journal_path, "a")
    await label(broker, ledger)
    ledger.commit([judged_set("foreign")])
    ledger.record_dead_letters([dead_letter("l1", "foreign-dead")])
    report = await look(nats_settings, ledger, journal_path)
    assert (report.unexpected, report.unexpected_ids, report.unsound) == (2, ["foreign", "foreign-dead"], 0)


async def test_the_same_id_committed_with_another_text_does_not_cover_a_lost_query(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    await feed(broker, journal_path, "a")
    await delete(broker, "a")
    ledger.commit([judged_set("a", "another text")])
    report = await look(nats_settings, ledger, journal_path)
    assert (report.lost_ids, report.unexpected_ids) == (["a"], ["a"])


async def test_a_letter_that_holds_only_the_beginning_of_a_long_text_still_counts(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    await feed(broker, journal_path, "long", text="x" * (LETTER_TEXT_CHARS + 1))
    await label(broker, ledger, dying=["long"])
    report = await look(nats_settings, ledger, journal_path)
    assert (report.dead, report.lost, report.unexpected) == (1, 0, 0)


async def test_a_query_that_is_journalled_while_we_look_is_not_called_unexpected(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    await feed(broker, journal_path, "a")
    await label(broker, ledger)
    ledger.commit([judged_set("late", "text of late")])
    looking = asyncio.create_task(reconcile(nats_settings, ledger, journal_path, "docs", repair=False, pause_s=1.0))
    await asyncio.sleep(0.5)
    with Journal(journal_path) as journal:
        journal.record([Query("late", "text of late", "docs")])
    report = await looking
    assert (report.accepted, report.committed, report.unexpected) == (2, 2, 0)


async def test_looking_consumes_nothing_and_sees_held_messages(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    await feed(broker, journal_path, "a", "b")
    held = await broker.fetch(Queue.QUERIES, 1, 1.0)
    report = await look(nats_settings, ledger, journal_path)
    assert report.in_flight == {"queries": 2}
    assert (await broker.stats())[0].lag == 2
    await held[0].retry(0)


async def test_queries_on_their_way_are_never_called_lost(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    await feed(broker, journal_path, *(f"q{n:03d}" for n in range(200)))

    async def work() -> None:
        while True:
            await label(broker, ledger)

    working = asyncio.create_task(work())
    looks = 0
    while True:
        report = await look(nats_settings, ledger, journal_path)
        looks += 1
        assert (report.accepted, report.lost, report.duplicated) == (200, 0, 0)
        if report.committed == 200:
            break
    working.cancel()
    assert looks > 1, "the work was over at the first look: nothing was tested"


def strip_records(journal_path: Path) -> None:
    """The journal as an older version wrote it."""
    with sqlite3.connect(journal_path) as connection:
        connection.execute("ALTER TABLE accepted DROP COLUMN record")


async def test_an_old_journal_says_what_it_cannot_emit_and_feeding_again_completes_it(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    await feed(broker, journal_path, "a")
    await delete(broker, "a")
    strip_records(journal_path)
    report = await look(nats_settings, ledger, journal_path, repair=True)
    assert (report.lost, report.without_record, report.reemitted, report.unsound) == (1, 1, 0, 1)
    await feed(broker, journal_path, "a")
    assert (await look(nats_settings, ledger, journal_path)).lost == 1  # known to the feed, so not fed again
    report = await look(nats_settings, ledger, journal_path, repair=True)
    assert (report.without_record, report.reemitted) == (0, 1)


async def test_a_query_is_fed_again_exactly_as_it_was(
    broker: JetStreamBroker, nats_settings: NatsSettings, ledger: Ledger, journal_path: Path
) -> None:
    query = Query("a", "text", "docs", judged_set().candidate_set.query.submitted_at, {"k": "v"}, ("an answer",))
    with Journal(journal_path) as journal:
        journal.record([query])
        (entry,) = journal.entries()
        assert entry.query == query
        assert entry.fingerprint == query_fingerprint("docs", "a", "text")
    ledger.commit([judged_set("other")])
    await look(nats_settings, ledger, journal_path, repair=True)
    (message,) = await broker.fetch(Queue.QUERIES, 10, 1.0)
    assert wire.decode(message.payload, message.headers) == query
    labelled: JudgedSet = judged_set("a", "text")
    ledger.commit([replace(labelled, candidate_set=replace(labelled.candidate_set, query=query))])


def test_the_command_reports_repairs_and_exits_as_documented(
    nats_settings: NatsSettings, ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QRELAY_SINK__LEDGER", ledger_url)
    journal_path = tmp_path / "feed" / "docs.sqlite"
    opened = Ledger.open(ledger_url)

    async def prepare() -> None:
        async with await JetStreamBroker.connect(nats_settings, name="test", owner=True) as broker:
            await feed(broker, journal_path, "a", "b", "c")
            await delete(broker, "b")
            await label(broker, opened, dying=["c"])

    asyncio.run(prepare())
    arguments = ["--collection", "docs", "--data-dir", str(tmp_path), "--nats", nats_settings.url, "--pause", "0.05"]
    told = CliRunner().invoke(command, arguments)
    assert told.exit_code == 1
    assert "accepted 3: committed 1, dead letters 1, in flight 0" in told.output
    assert "lost: b" in told.output
    assert "--repair" in told.output
    repaired = CliRunner().invoke(command, [*arguments, "--repair", "--json"])
    assert repaired.exit_code == 3
    assert json.loads(repaired.stdout)["reemitted"] == 1
    absent = CliRunner().invoke(command, [*arguments, "--collection", "nothing"])
    assert isinstance(absent.exception, ConfigError)
    opened.close()
