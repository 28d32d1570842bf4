"""Collects what is there when all is over: from the ledger's rows, the streams' messages and the jobs' file, past
every reader of our own that might hide something."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from qrelay import wire
from qrelay.config import NatsSettings
from qrelay.labels.ledger.ledger import Ledger
from qrelay.runtime.dead_letters import query_of
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import Queue
from tests.chaos.checker import Evidence
from tests.chaos.scene import Scene
from tests.chaos.training import jobs_file
from tests.conftest import LONG_S
from tests.pipeline.harness import COLLECTION

_ROWS = "SELECT query_id, text FROM queries WHERE collection = :c"
_LABELLED = (
    "SELECT q.query_id, COUNT(*) FROM generations g JOIN queries q ON q.query_no = g.query_no"
    " WHERE q.collection = :c GROUP BY q.query_id"
)
_PAIRS = (
    "SELECT q.query_id, j.passage_id FROM queries q JOIN judgments j ON j.query_no = q.query_no"
    " WHERE q.collection = :c ORDER BY 1, 2"
)
_WAITING = "SELECT query_id, state FROM dead_letters WHERE collection = :c AND state IN ('open', 'replaying')"
_TRIGGERS = "SELECT job_name, state FROM triggers WHERE collection = :c"
_PENDING = (
    "SELECT t.job_name, t.state FROM triggers t LEFT JOIN training_runs r ON r.job_name = t.job_name"
    " WHERE t.collection = :c AND (t.state = 'pending' OR r.state = 'running')"
)
_CALM_LOOKS = 3


def collect(scene: Scene) -> Evidence:
    """The evidence of a scene in which nothing moves any more."""
    jobs = jobs_file(scene.installation.folder.parent)
    return replace(
        collect_queries(scene.ledger_url, _nats(scene), COLLECTION),
        triggers=dict(_rows(scene.ledger_url, _TRIGGERS)),
        jobs=jobs.read_text().split() if jobs.exists() else [],
    )


def collect_queries(ledger_url: str, nats: NatsSettings, collection: str) -> Evidence:
    """What became of a collection's queries; without jobs."""
    return Evidence(
        committed=_rows(ledger_url, _ROWS, collection),
        labelled={query_id: int(times) for query_id, times in _rows(ledger_url, _LABELLED, collection)},
        pairs=_rows(ledger_url, _PAIRS, collection),
        waiting=[row[0] for row in _rows(ledger_url, _WAITING, collection)],
        in_flight=asyncio.run(_in_flight(nats, collection)),
    )


def _rows(ledger_url: str, query: str, collection: str = COLLECTION) -> Sequence[tuple[str, str]]:
    ledger = Ledger.open(ledger_url, create=False)
    try:
        with ledger.snapshot() as snapshot:
            return [(row[0], row[1]) for row in snapshot.connection.execute(sa.text(query), {"c": collection})]
    finally:
        ledger.close()


def _nats(scene: Scene) -> NatsSettings:
    return NatsSettings(url=scene.installation.endpoint("nats").grpc)


async def _in_flight(settings: NatsSettings, collection: str) -> list[str]:
    async with await JetStreamBroker.connect(settings, name="evidence") as broker:
        messages = [message for queue in Queue async for message in broker.stored(queue, collection)]
    return [query_of(wire.decode(message.payload, message.headers)).query_id for message in messages]


def await_calm(scene: Scene) -> bool:
    """Wait until no stream holds a message and no trigger waits, several looks in a row; False where neither changes
    any more before that."""
    before, changed, calm = None, time.monotonic(), 0
    while calm < _CALM_LOOKS and time.monotonic() < changed + LONG_S:
        now = asyncio.run(_lag(_nats(scene))), sorted(_rows(scene.ledger_url, _PENDING))
        calm = 0 if any(now) else calm + 1
        if now != before:
            before, changed = now, time.monotonic()
        time.sleep(0.15)
    return calm >= _CALM_LOOKS


async def _lag(settings: NatsSettings) -> int:
    async with await JetStreamBroker.connect(settings, name="evidence") as broker:
        return sum(stats.lag for stats in await broker.stats())


def exports(scene: Scene, kinds: Sequence[str]) -> dict[str, bytes]:
    """The exports now, written over what killed exports may have left."""
    found = {}
    for kind in kinds:
        target: Path = scene.installation.folder / f"killed.{kind}"
        code = scene.start_export(kind, target).wait()
        found[kind] = target.read_bytes() if code == 0 else b""
    return found
