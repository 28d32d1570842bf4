"""A forgotten query is in no store, comes back by no way, and the other queries are as they were."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from qrelay import wire
from qrelay.config import NatsSettings
from qrelay.errors import BackendUnavailable
from qrelay.feed.journal import Journal
from qrelay.forgetting.forget import Place, Report, forget
from qrelay.labels.exports.catalogue import QRELS, TRIPLES
from qrelay.labels.ledger.audit_log import page
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.runtime import faults
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import Queue
from qrelay.training.evaluation.frozen import FrozenSet
from tests.forgetting.planted import LONGER, OTHER, PLANT, TEXT, fill, planted_set
from tests.forgetting.reader import holding, in_database
from tests.labels.builders import dead_letter
from tests.labels.exporting import export_bytes
from tests.pipeline.harness import called

NAMED = ("triples.jsonl", "backup.sqlite")
"""What is named and stays: an export and a copy."""


class Installed:
    """A data folder whose every store is filled. The judgment cache lies where the ledger does: in a file, or in the
    same database."""

    def __init__(self, folder: Path, ledger_url: str, nats: NatsSettings) -> None:
        self.folder, self.ledger_url, self.nats = folder, ledger_url, nats
        self.on_server = "://" in ledger_url
        self.cache = ledger_url if self.on_server else str(folder / "judge-cache.sqlite")
        self.environ = {"QRELAY_DATA_DIR": str(folder), "QRELAY_SINK__LEDGER": ledger_url,
                        "QRELAY_ALL__NATS__URL": nats.url, "QRELAY_JUDGE__CACHE": self.cache}  # fmt: skip

    async def fill(self) -> None:
        async with await self.connected() as broker:
            with_ledger = Ledger.open(self.ledger_url)
            await fill(self.folder, broker, with_ledger, self.cache)
            with_ledger.close()

    async def connected(self) -> JetStreamBroker:
        return await JetStreamBroker.connect(self.nats, name="test", owner=True)

    async def run(self, *arguments: str, code: int = 0) -> Any:
        """A command with --json."""
        done = await asyncio.to_thread(called, *arguments, "--json", environ=self.environ)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    async def forget(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        told = await self.run("forget", *arguments, "--collection", "docs", code=code)
        return dict(told["reports"][0])

    def holding(self, plant: str) -> list[str]:
        """Every place of the plant but those that are named."""
        inside = in_database(self.ledger_url, plant) if self.on_server else []
        return [*holding(self.folder, plant, but=NAMED), *inside]

    def exported(self) -> list[bytes]:
        ledger = Ledger.open(self.ledger_url)
        found = [b"".join(export_bytes(ledger, "docs", kind, unmeasured=True)) for kind in (QRELS, TRIPLES, "labels")]
        ledger.close()
        return found


@pytest.fixture
async def installed(tmp_path: Path, ledger_url: str, nats_settings: NatsSettings) -> AsyncIterator[Installed]:
    found = Installed(tmp_path, ledger_url, nats_settings)
    await found.fill()
    yield found


def only_of(exported: list[bytes], gone: str) -> list[bytes]:
    """An export's lines without a query's."""
    return [b"".join(line for line in each.splitlines(True) if gone.encode() not in line) for each in exported]


async def test_no_store_holds_a_forgotten_query_and_the_others_are_as_they_were(installed: Installed) -> None:
    before = installed.exported()
    assert len(installed.holding(PLANT)) > 8, "not every store was filled"
    told = await installed.forget("q1", "--yes")
    assert installed.holding(PLANT) == []
    assert only_of(before, "q1")[0] == installed.exported()[0]
    assert only_of(only_of(before, "q1"), PLANT) == installed.exported()
    # the query, a message a stage, a dead letter of it and a nameless one; its and the nameless one in the ledger
    assert (told["queries"], told["journal"], told["messages"], told["dead_letters"]) == (1, 1, 6, 2)
    assert (told["labels"], told["requests"]) == (2, 1)
    files = {str(Path(name).relative_to(installed.folder)): count for name, count in told["files"].items()}
    assert files == {
        "reports/judges.html": 1, "sets/small/queries.jsonl": 1, "to-grade/sample.tsv": 1,
        "training/job/data/triples/train.jsonl": 1,
    }  # fmt: skip


async def test_what_may_hold_it_and_stays_is_named(installed: Installed) -> None:
    told = await installed.forget("q1")
    assert [Path(name).name for name in told["other_files"]] == sorted(NAMED)
    assert [name.split(" (")[1].split(",")[0] for name in told["exports"]] == ["qrels", "triples"]
    assert len(told["models"]) == 1
    assert (await installed.forget("q1", "--yes"))["models"] == told["models"]


async def test_without_yes_nothing_changes_and_the_counts_are_those_of_the_run(installed: Installed) -> None:
    everywhere, before = installed.holding(PLANT), installed.exported()
    told = await installed.forget("q1")
    assert (installed.holding(PLANT), installed.exported()) == (everywhere, before)
    assert await installed.forget("q1", "--yes") == told


async def test_queries_are_found_by_their_text_and_part_of_another_text_is_none(installed: Installed) -> None:
    (installed.folder / "texts").write_text(OTHER + "\n")
    told = await installed.forget("--text-file", str(installed.folder / "texts"), "--yes")
    (installed.folder / "texts").unlink()
    assert told["queries"] == 2  # q2, and q9 whose dead letter has the same text
    train = (installed.folder / "training" / "job" / "data" / "triples" / "train.jsonl").read_text()
    assert [json.loads(line)["query"] for line in train.splitlines()] == [TEXT, LONGER]
    assert LONGER in (installed.folder / "reports" / "judges.html").read_text()


async def test_a_frozen_set_without_the_query_is_whole(installed: Installed) -> None:
    before = FrozenSet.read(installed.folder / "sets" / "small")
    await installed.forget("q1", "--yes")
    after = FrozenSet.read(installed.folder / "sets" / "small")
    assert [*after.collection.queries] == [*after.collection.qrels] == ["q2"]
    assert after.sha256 != before.sha256


async def test_reconcile_counts_it_as_forgotten_and_nothing_as_lost(installed: Installed) -> None:
    await installed.forget("q1", "--yes")
    told = await installed.run("reconcile", "--collection", "docs", "--pause", "0.05")
    assert (told["accepted"], told["forgotten"], told["committed"], told["lost"]) == (3, 1, 1, 0)
    assert told["in_flight"] == {"queries": 1}


async def test_a_journal_on_another_machine_counts_it_as_forgotten_too(installed: Installed) -> None:
    journal = installed.folder / "feed" / "docs.sqlite"
    kept = journal.read_bytes()
    await installed.forget("q1", "--yes")
    journal.write_bytes(kept)
    told = await installed.run("reconcile", "--collection", "docs", "--pause", "0.05", "--repair")
    assert (told["accepted"], told["forgotten"], told["lost"], told["reemitted"]) == (3, 1, 0, 0)


async def test_late_messages_and_another_feed_do_not_bring_it_back_unless_allowed(installed: Installed) -> None:
    await installed.forget("q1", "--yes")
    ledger = Ledger.open(installed.ledger_url)
    late = ledger.commit([planted_set(), planted_set("q4", "new", "2")])
    assert late == [CommitStatus.FORGOTTEN, CommitStatus.COMMITTED]
    ledger.record_dead_letters([dead_letter("late", "q1", TEXT)])
    assert ledger.get_dead_letter("late") is None
    queries = installed.folder / "queries.jsonl"
    queries.write_text(json.dumps({"query_id": "q1", "text": TEXT}) + "\n")
    again = await installed.run("feed", str(queries), "--collection", "docs", code=3)
    assert "was forgotten" in str(again["rejected"])
    queries.unlink()
    assert installed.holding(PLANT) == []
    assert (
        "1 queries"
        in called("forget", "q1", "--collection", "docs", "--allow-again", environ=installed.environ).stdout
    )
    assert ledger.commit([planted_set()]) == [CommitStatus.COMMITTED]
    with ledger.snapshot() as snapshot:
        row = page(snapshot.connection, act="allow again").acts[0]
    assert (row.collection, row.subject, row.count) == ("docs", "q1", 1)
    ledger.close()
    with Journal(installed.folder / "feed" / "docs.sqlite") as journal:
        assert list(journal.forgotten()) == []


async def test_an_id_that_no_store_knows_leaves_no_tombstone(installed: Installed) -> None:
    assert (await installed.forget("nobody", "--yes", code=1))["unknown"] == ["nobody"]
    assert (await installed.forget("nobody", "q1", "--yes", code=3))["unknown"] == ["nobody"]
    ledger = Ledger.open(installed.ledger_url)
    assert ledger.commit([planted_set("nobody", OTHER, "2")]) == [CommitStatus.COMMITTED]
    ledger.close()


async def test_queries_older_than_a_collection_keeps_them_are_forgotten(installed: Installed) -> None:
    for days, gone in (("1000", 0), ("0.0000001", 4)):
        installed.environ["QRELAY_SINK__KEEP_QUERIES_DAYS"] = json.dumps({"docs": float(days)})
        told = await installed.run("forget", "--expired", "--yes")
        assert sum(each["queries"] for each in told["reports"]) == gone
    assert installed.holding(PLANT) == []


async def killed(installed: Installed, point: str, tmp_path: Path, *arguments: str) -> None:
    """`qrelay forget … --yes`, which dies after that step."""
    points = tmp_path.parent / f"{tmp_path.name}-points"
    points.mkdir()
    (points / point).write_text("1")
    command = [sys.executable, "-m", "qrelay.cli.main", "forget", *arguments, "--yes"]
    environ = {**os.environ, **installed.environ, faults.VARIABLE: str(points)}
    died = await asyncio.to_thread(subprocess.run, command, env=environ, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr


KILLS = [*(("sqlite", point) for point in faults.FORGET_POINTS), ("postgresql", "forget.ledger")]


@pytest.mark.parametrize(("ledger_url", "point"), KILLS, indirect=["ledger_url"])
async def test_killed_after_any_step_the_same_command_finishes(
    installed: Installed, point: str, tmp_path: Path
) -> None:
    before = only_of(only_of(installed.exported(), "q1"), PLANT)
    await killed(installed, point, tmp_path, "q1", "--collection", "docs")
    ledger = Ledger.open(installed.ledger_url)
    if point != "forget.marked":
        assert ledger.commit([planted_set()])[0] is not CommitStatus.COMMITTED
    ledger.close()
    assert (await installed.forget("q1", "--yes"))["queries"] == 1
    assert installed.holding(PLANT) == []
    assert installed.exported() == before
    told = await installed.run("reconcile", "--collection", "docs", "--pause", "0.05")
    assert (told["accepted"], told["forgotten"], told["lost"]) == (3, 1, 0)


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("point", ["forget.queues", "forget.ledger", "forget.journal", "forget.compacted"])
async def test_retention_that_was_killed_goes_on_when_it_runs_again(
    installed: Installed, point: str, tmp_path: Path
) -> None:
    """After the erasure no store knows the ids any more, and the bytes are still there."""
    installed.environ["QRELAY_SINK__KEEP_QUERIES_DAYS"] = json.dumps({"docs": 0.0000001})
    await killed(installed, point, tmp_path, "--expired")
    planned = (await installed.run("forget", "--expired"))["reports"]
    done = (await installed.run("forget", "--expired", "--yes"))["reports"]
    assert [sum(each["queries"] for each in reports) for reports in (planned, done)] == [4, 4]
    assert installed.holding(PLANT) == []
    assert (await installed.run("forget", "--expired", "--yes"))["reports"] == []


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
async def test_bytes_that_a_killed_run_left_go_with_the_next_run_of_the_collection(
    installed: Installed, tmp_path: Path
) -> None:
    await killed(installed, "forget.journal", tmp_path, "q1", "--collection", "docs")
    assert installed.holding(PLANT) != []
    (_, left) = (await installed.run("forget", "q2", "--collection", "docs", "--yes"))["reports"]
    assert left["queries"] == 1
    assert installed.holding(PLANT) == []


async def test_forgetting_again_finds_nothing_more_and_names_the_same(installed: Installed) -> None:
    first = await installed.forget("q1", "--yes")
    again = await installed.forget("q1", "--yes")
    assert (again["queries"], again["messages"], again["dead_letters"], again["files"]) == (1, 0, 0, {})
    assert (again["exports"], again["models"]) == (first["exports"], first["models"])


async def test_the_queues_keep_what_is_others(installed: Installed) -> None:
    await installed.forget("q1", "--yes")
    async with await installed.connected() as broker:
        left = [len([message async for message in broker.stored(queue, "docs")]) for queue in Queue]
    assert left == [2, 1, 1, 1, 1]


async def test_messages_that_were_acknowledged_leave_no_bytes_either(installed: Installed) -> None:
    async with await installed.connected() as broker:
        for message in await broker.fetch(Queue.QUERIES, 10, 1.0):
            await message.ack()
    await installed.forget("q1", "--yes")
    assert installed.holding(PLANT) == []


class Passing:
    """What services and feeds do while the queries are forgotten: an erased message of the query comes back, `left`
    times: from the first queue in the second, from the others in the first, which was searched already."""

    def __init__(self, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.erase = left, JetStreamBroker.erase
        monkeypatch.setattr(JetStreamBroker, "erase", lambda *given: self._erase(*given))

    async def _erase(self, broker: JetStreamBroker, queue: Queue, sequence: int) -> None:
        await self.erase(broker, queue, sequence)
        if self.left:
            self.left -= 1
            payload, headers = wire.encode(planted_set().candidate_set)
            into = Queue.RETRIEVED if queue is Queue.QUERIES else Queue.QUERIES
            await broker.publish(into.subject("docs"), payload, headers, f"again {self.left}")


async def forgotten_meanwhile(installed: Installed) -> Report:
    ledger = Ledger.open(installed.ledger_url)
    folder = installed.folder
    place = Place(folder, ledger, installed.cache, folder / "registry", installed.nats)
    try:
        return (await forget(place, {"docs": ["q1"]}, dry_run=False))[0]
    finally:
        ledger.close()


async def test_messages_that_come_while_the_queues_are_searched_are_erased_too(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    Passing(7, monkeypatch)
    told = await forgotten_meanwhile(installed)
    assert told.messages == 6 + 7
    assert installed.holding(PLANT) == []


async def test_where_messages_keep_coming_the_ledger_still_knows_the_texts_and_the_next_run_ends(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing = Passing(10**6, monkeypatch)
    with pytest.raises(BackendUnavailable, match="still under way"):
        await forgotten_meanwhile(installed)
    assert len(installed.holding(PLANT)) > 2
    passing.left = 0
    await forgotten_meanwhile(installed)
    assert installed.holding(PLANT) == []


async def test_an_unreadable_dead_letter_that_holds_the_text_in_a_sentence_is_named_and_stays(
    installed: Installed,
) -> None:
    ledger = Ledger.open(installed.ledger_url)
    payload = json.dumps({"text": f"somebody else asks: is it so that {TEXT} And why?"}).encode()
    ledger.record_dead_letters([dead_letter("l9", "", "", collection="", payload=payload, detail="unreadable")])
    told = await installed.forget("q1", "--yes")
    assert [each.split()[:2] for each in told["letters"]] == [["dead", "letter"]]
    assert ledger.get_dead_letter("l9") is not None
    ledger.close()


async def test_a_dead_letter_teaches_nothing_of_the_query_that_it_wraps(installed: Installed) -> None:
    ledger = Ledger.open(installed.ledger_url)
    payload, headers = wire.encode(planted_set("q2", OTHER, "2").candidate_set)
    ledger.record_dead_letters([dead_letter("l9", "q1", TEXT, payload=payload, headers=headers)])
    await installed.forget("q1", "--yes")
    ledger.close()
    sample = (installed.folder / "to-grade" / "sample.tsv").read_text()
    assert OTHER in sample and PLANT not in sample


@pytest.mark.parametrize("wrong", [("--expired",), ("--collection", "docs", "--expired")])
def test_allowing_again_without_named_queries_of_a_collection_is_refused(wrong: tuple[str, ...]) -> None:
    assert called("forget", "q1", "--allow-again", *wrong, environ={}).returncode == 2


async def test_a_query_that_was_fed_elsewhere_is_refused_here_and_not_counted(installed: Installed) -> None:
    ledger = Ledger.open(installed.ledger_url)
    ledger.commit([planted_set("q8", "elsewhere fed", "2")])
    await installed.forget("q8", "--yes")
    queries = installed.folder / "queries.jsonl"
    queries.write_text(json.dumps({"query_id": "q8", "text": "elsewhere fed"}) + "\n")
    again = await installed.run("feed", str(queries), "--collection", "docs", code=3)
    assert "was forgotten" in str(again["rejected"])
    told = await installed.run("reconcile", "--collection", "docs", "--pause", "0.05")
    assert (told["accepted"], told["forgotten"]) == (3, 0)
    assert ledger.query_states("docs", ["q8", "q2"]) == {"q8": "forgotten", "q2": "committed"}
    ledger.close()


async def test_allowing_again_in_a_collection_that_is_none_is_refused_and_makes_none(installed: Installed) -> None:
    said = called("forget", "q1", "--collection", "dosc", "--allow-again", environ=installed.environ)
    assert said.returncode != 0 and "was forgotten" in said.stderr
    ledger = Ledger.open(installed.ledger_url)
    with ledger.snapshot() as snapshot:
        names = snapshot.connection.exec_driver_sql("SELECT collection FROM collections").scalars().all()
    assert "dosc" not in names
    ledger.close()
