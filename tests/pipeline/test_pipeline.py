"""The pipeline whole: the same stages on the in-memory broker and on a real nats-server; then as processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from qrelay import wire
from qrelay.cli.serve import load_definition
from qrelay.config import WorkerSettings
from qrelay.feed.feeder import Feeder
from qrelay.feed.journal import Journal
from qrelay.rundir import endpoints
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.topology import Queue
from qrelay.runtime.worker import StageWorker
from qrelay.settings import load_settings
from qrelay.types import JudgedSet, Query
from tests.conftest import eventually
from tests.pipeline.harness import (
    COLLECTION,
    DOUBLES,
    IMPATIENT,
    SERVICES,
    Installation,
    called,
    qrelay,
    write_queries,
)

FAST = WorkerSettings(max_delay_s=0.01, retry_delays_s=(0.01,), drain_s=5)


@asynccontextmanager
async def four_stages(broker: Any, folder: Path, **settings: str) -> AsyncIterator[dict[str, Any]]:
    """Every service's core and stages in this process, on one broker; `settings` as environment variables."""
    cores, workers = {}, []
    environ = {**DOUBLES, "QRELAY_ALL__DATA_DIR": str(folder), **settings}
    for name in SERVICES:
        definition = load_definition(name)
        settings = load_settings(definition.settings, name, environ=environ)
        context: ServiceContext[Any, Any] = ServiceContext(name, settings, "test")
        context.core = cores[name] = definition.load(settings)
        context.broker = broker
        workers += [StageWorker(stage, broker, FAST) for stage in definition.stages(context)]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    yield cores
    for worker in workers:
        worker.stop()
    await asyncio.gather(*running)
    for name in SERVICES:
        load_definition(name).close(cores[name])


async def lines(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"q{number}\thow does thing {number} work?"


async def test_queries_become_judgments_in_the_ledger_on_both_brokers(broker: Any, tmp_path: Path) -> None:
    async with four_stages(broker, tmp_path) as cores:
        with Journal(tmp_path / "feed") as journal:
            report = await Feeder(broker, journal, collection=COLLECTION).feed(lines(20))
        ledger = cores["sink"].ledger
        await eventually(lambda: len(ledger.query_states(COLLECTION)) == 20)
        assert set(ledger.query_states(COLLECTION).values()) == {"committed"}
        (stats,) = ledger.stats(COLLECTION)
    assert report.accepted == stats.queries == 20
    assert stats.judgments == 20 * 25


async def label_in_round(broker: Any, folder: Path, number: int, **settings: str) -> tuple[JudgedSet, Any]:
    """Three queries fed twice in a round to services with these settings: q0 in the ledger then, and its counts."""
    async with four_stages(broker, folder, **settings) as cores:
        for _ in range(2):  # the second time all of it is known
            with Journal(folder / "feed") as journal:
                await Feeder(broker, journal, collection=COLLECTION, query_round=number).feed(lines(3))
        ledger = cores["sink"].ledger
        await eventually(lambda: len(ledger.query_states(COLLECTION, ["q0", "q1", "q2"], number)) == 3)
        (stats,) = ledger.stats(COLLECTION)
        with ledger.snapshot() as snapshot:
            return snapshot.judged_set(COLLECTION, "q0"), stats


async def test_a_query_that_is_fed_in_a_later_round_is_one_query_with_the_union(broker: Any, tmp_path: Path) -> None:
    first, _ = await label_in_round(broker, tmp_path, 0, QRELAY_RERANKER__MAX_CANDIDATES="30")
    both, stats = await label_in_round(broker, tmp_path, 1)
    before, after = ({each.passage.passage_id for each in one.candidate_set.candidates} for one in (first, both))
    assert (stats.queries, stats.open_dead_letters, both.candidate_set.query.round) == (3, 0, 1)
    assert len(before) == 30 and before < after and len(after) > 40, "40 are kept of 100: some were kept before only"
    assert set(first.judgments) < set(both.judgments)
    assert len({each.judgment_key for each in both.judgments}) == len(both.judgments), "the cache's are not doubled"
    texts = {each.passage.passage_id: each.passage.text for each in both.candidate_set.candidates}
    assert all(texts[judgment.passage_id] for judgment in both.judgments)


async def test_what_cannot_be_labelled_is_a_dead_letter_with_its_reason(broker: Any, tmp_path: Path) -> None:
    bad = {"long": Query("long", "x" * 100_000, COLLECTION), "empty": Query("empty", "  ", COLLECTION)}
    conflict = [Query("same", "the first text", COLLECTION), Query("same", "another text", COLLECTION)]
    async with four_stages(broker, tmp_path) as cores:
        ledger = cores["sink"].ledger
        for number, query in enumerate([*bad.values(), conflict[0]]):
            payload, headers = wire.encode(query)
            await broker.publish(Queue.QUERIES.subject(COLLECTION), payload, headers, f"m{number}")
        await eventually(lambda: ledger.query_states(COLLECTION).get("same") == "committed")
        payload, headers = wire.encode(conflict[1])
        await broker.publish(Queue.QUERIES.subject(COLLECTION), payload, headers, "m9")
        await eventually(lambda: len(ledger.list_dead_letters(None, False, 10, "").entries) == 3)
        letters = {e.letter.query_id: e.letter for e in ledger.list_dead_letters(None, False, 10, "").entries}
    assert {name: letter.reason for name, letter in letters.items()} == {
        "long": "invalid_query",
        "empty": "invalid_query",
        "same": "query_conflict",
    }
    assert "max_query_chars" in letters["long"].detail
    assert letters["same"].query_text == "another text"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("up"), {**DOUBLES, **IMPATIENT}) as running:
        yield running


def test_four_processes_label_what_is_fed_and_counts_agree(installation: Installation, tmp_path: Path) -> None:
    report = installation.run(
        "feed", str(write_queries(tmp_path / "q.jsonl", 200)), "--collection", "counts", "--wait"
    )
    assert report == {"accepted": 200, "known": 0, "rejected": {}, "committed": 200, "dead": 0, "exit": 0}
    again = installation.run("feed", str(tmp_path / "q.jsonl"), "--collection", "counts", "--wait")
    assert (again["accepted"], again["known"], again["committed"]) == (0, 200, 200)
    file = str(tmp_path / "q.jsonl")
    later = installation.run("feed", file, "--collection", "counts", "--round", "1", "--wait")
    assert (later["accepted"], later["known"], later["committed"]) == (200, 0, 200)
    qrels = installation.export("qrels", "counts").decode().splitlines()
    assert len({line.split()[0] for line in qrels}) == 200
    assert len(qrels) == 200 * 25


def test_a_file_with_bad_lines_feeds_the_good_ones_names_the_bad_and_exits_3(installation: Installation) -> None:
    text = 'a\tfirst\n{"query_id": "b", \nc\tthird\na\tanother text\n'
    report = installation.run("feed", "-", "--collection", "lines", "--wait", stdin=text)
    assert (report["accepted"], report["committed"], report["exit"]) == (2, 2, 3)
    assert sorted(report["rejected"]) == ["2", "4"]


def test_standard_input_may_be_a_file_as_well_as_a_pipe(installation: Installation, tmp_path: Path) -> None:
    write_queries(tmp_path / "queries.jsonl", 3)
    with (tmp_path / "queries.jsonl").open() as file:
        done = subprocess.run(
            [sys.executable, "-m", "qrelay.cli.main", "feed", "-", "--collection", "redirected", "--wait", "--json"],
            env={**os.environ, **installation.environ}, stdin=file, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["committed"] == 3


def test_a_dead_letter_is_listed_shown_and_replayed(installation: Installation) -> None:
    report = installation.run("feed", "-", "--collection", "dlq", "--wait", stdin="big\t" + "long " * 20_000)
    assert (report["dead"], report["exit"]) == (1, 3)
    (entry,) = installation.run("dlq", "list", "--collection", "dlq")["dead_letters"]
    letter = entry["dead_letter"]
    assert (letter["query_id"], letter["reason"], letter["stage"]) == ("big", "invalid_query", "retriever")
    shown = called("dlq", "show", letter["dead_letter_id"][:10], environ=installation.environ)
    assert json.loads(shown.stdout)["dead_letter"]["payload"]
    replayed = installation.run("dlq", "replay", letter["dead_letter_id"])
    assert (replayed["replayed"], replayed["exit"]) == (1, 0)
    installation.until(lambda: len(_open_letters(installation)) == 1)
    (again,) = _open_letters(installation)
    assert again["dead_letter_id"] != letter["dead_letter_id"]
    assert again["headers"]["Qrelay-Replay"] == "1"
    unknown = installation.run("dlq", "replay", "no-such-id")
    assert (unknown["skipped_ids"], unknown["exit"]) == (["no-such-id"], 1)


def _open_letters(installation: Installation) -> list[dict[str, Any]]:
    """Of all collections: between the replay of its only letter and what comes of it the sink knows none of it."""
    entries = installation.run("dlq", "list")["dead_letters"]
    return [entry["dead_letter"] for entry in entries if entry["dead_letter"]["collection"] == "dlq"]


def test_top_shows_every_service_and_what_it_did(installation: Installation) -> None:
    state = installation.run("top", "--interval", "0.2")
    rows = {row["service"]: row for row in state["services"]}
    assert all(rows[name]["up"] and rows[name]["lag"] == 0 for name in SERVICES)
    assert rows["retriever"]["ok"] >= 200
    assert state["judgments"]["graded"] > 0


def test_a_second_up_on_the_same_folder_is_refused(installation: Installation) -> None:
    done = qrelay("up", "--port-base", "0", environ=installation.environ)
    assert done.returncode == 78
    assert "another `qrelay up` runs" in done.stderr


def test_up_detached_returns_ready_and_down_stops_it(tmp_path: Path) -> None:
    environ = {**DOUBLES, "QRELAY_DATA_DIR": str(tmp_path)}
    assert "nothing runs" in called("down", environ=environ).stdout
    started = qrelay("up", "--detach", "--port-base", "0", environ=environ)
    assert started.returncode == 0, started.stderr
    assert set(endpoints(tmp_path)) == {*SERVICES, "nats"}
    fed = qrelay("feed", "-", "--collection", "c", "--wait", environ=environ, stdin="a\tone\n")
    assert "committed 1" in fed.stdout
    assert called("down", environ=environ).stdout.strip() == "stopped"
    assert endpoints(tmp_path) == {}


def test_up_detached_says_why_it_cannot(tmp_path: Path) -> None:
    environ = {**DOUBLES, "QRELAY_DATA_DIR": str(tmp_path), "QRELAY_SINK__MAX_NEGATIVES": "0"}
    done = qrelay("up", "--detach", "--port-base", "0", environ=environ)
    assert done.returncode == 78
    assert "sink.max_negatives" in done.stderr


def test_feeding_without_a_server_says_what_to_do(tmp_path: Path) -> None:
    done = qrelay("feed", "-", "--collection", "c", "--nats", "nats://127.0.0.1:9", stdin="a\tb\n",
                  environ={"QRELAY_DATA_DIR": str(tmp_path)})  # fmt: skip
    assert done.returncode == 1
    assert "start one with `qrelay up`" in done.stderr
