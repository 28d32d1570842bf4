"""The short version: a seed, and an installation from which a message was taken by hand. The long one: make chaos."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qrelay import wire
from qrelay.config import NatsSettings
from qrelay.identity import query_fingerprint
from qrelay.rundir import endpoints
from qrelay.runtime.dead_letters import query_of
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import Queue
from tests.chaos import evidence as collecting
from tests.chaos import material
from tests.chaos.checker import classify
from tests.chaos.run import Setting, run_seed, undisturbed
from tests.chaos.scene import Scene, scene
from tests.chaos.schedule import Step
from tests.pipeline.harness import COLLECTION

QUERIES = 60
STEPS = [
    Step("sink.commit.before", 0.0, 1, "sink", "judged", 0.5),
    Step("worker.publish.after", 0.1, 2, "judge", "judged", 0.5),
    Step("sink.commit.after", 0.0, 1, "sink", "judged", 0.5),
    Step("kill.nats", 0.1, 1, "sink", "judged", 0.5),
    Step("deliver.again", 0.0, 1, "sink", "reranked", 0.5),
    Step("kill.export", 0.0, 1, "sink", "judged", 0.2),
]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return material.prepare(tmp_path_factory.mktemp("material"))


def test_a_seed_of_kills_and_repeated_deliveries_leaves_no_trace(environ: dict[str, str], tmp_path: Path) -> None:
    queries = material.queries(QUERIES)
    expected = undisturbed(tmp_path / "undisturbed", environ, queries)
    setting = Setting(tmp_path, environ, queries, expected, None, print)
    outcome = run_seed(setting, 1, "sqlite", STEPS)
    assert outcome.missed == []
    assert outcome.wrong == []
    assert dict(+outcome.states) == {"ok": QUERIES}
    assert outcome.exports_identical


@pytest.fixture
def installation(environ: dict[str, str], tmp_path: Path) -> Iterator[Scene]:
    ledger = str(tmp_path / "ledger.sqlite")
    with scene(tmp_path, environ, material.queries(20), 1, 1, ledger) as running:
        yield running


async def take_away(settings: NatsSettings, queue: Queue, query_id: str) -> bool:
    """Delete a query's message from a stream, as an operator's slip would."""
    async with await JetStreamBroker.connect(settings, name="test") as broker:
        async for message in broker.stored(queue, COLLECTION):
            if query_of(wire.decode(message.payload, message.headers)).query_id == query_id:
                return bool(await broker._js.delete_msg(queue.stream, message.sequence))
    return False


def test_a_message_taken_from_the_middle_of_the_line_is_lost_and_comes_back_with_repair(installation: Scene) -> None:
    """The stages' streams still know the ids of the lost query's messages: its second way must not be dropped."""
    queries, running = material.queries(20), installation.installation
    victim = sorted(queries)[7]
    judge = endpoints(running.folder)["judge"].pid
    os.kill(judge, signal.SIGSTOP)
    time.sleep(1.5)  # until its last request for messages has expired, so that it holds none
    running.run("feed", "-", "--collection", COLLECTION, stdin=lines(queries))
    settings = NatsSettings(url=running.endpoint("nats").grpc)
    running.until(lambda: asyncio.run(take_away(settings, Queue.RERANKED, victim)))
    os.kill(judge, signal.SIGCONT)
    running.until(lambda: ended(installation, queries, victim))

    found = running.run("reconcile", "--collection", COLLECTION, "--pause", "0.2")
    assert (found["lost_ids"], found["committed"], found["exit"]) == ([victim], 19, 1)
    assert classify(queries, collecting.collect(installation))["lost"] == [victim]
    repaired = running.run("reconcile", "--collection", COLLECTION, "--pause", "0.2", "--repair")
    assert (repaired["reemitted"], repaired["exit"]) == (1, 0)
    running.until(lambda: ended(installation, queries, ""))
    assert collecting.await_calm(installation)
    whole = classify(queries, collecting.collect(installation))
    assert {state: len(ids) for state, ids in whole.items() if ids} == {"ok": 20}
    assert running.run("reconcile", "--collection", COLLECTION)["exit"] == 0


def lines(queries: dict[str, str]) -> str:
    return "".join(f"{query_id}\t{text}\n" for query_id, text in queries.items())


def ended(installation: Scene, queries: dict[str, str], absent: str) -> bool:
    """Whether all but `absent` are committed, and it is not where it was held: a held message comes back once."""
    found = collecting.collect(installation)
    committed = {query_fingerprint(COLLECTION, *each) for each in found.committed}
    wanted = {query_fingerprint(COLLECTION, *each) for each in queries.items() if each[0] != absent}
    return committed == wanted and not found.in_flight
