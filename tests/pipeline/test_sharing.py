"""One collection's flood before a judge that stands still, then a few queries of another: whose labels come first."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from pathlib import Path

from qrelay.config import NatsSettings
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import Queue, lane_of
from tests.pipeline.harness import DOUBLES, Installation, write_queries

FLOOD, SMALL = "docs", "tickets"
FLOODED, FEW = 300, 10
MAX_ITEMS, BATCHES = 8, 2
IN_HAND = 2 * MAX_ITEMS * (BATCHES + 1)
"""What judge and sink may hold: batches that are handled, and one that waits."""


def waiting(url: str) -> int:
    """Messages before the judge."""

    async def ask() -> int:
        async with await JetStreamBroker.connect(NatsSettings(url=url), name="top") as broker:
            return next(each.lag for each in await broker.stats() if each.queue is Queue.RERANKED)

    return asyncio.run(ask())


def committed(installation: Installation) -> list[str]:
    """The collection of each query, in the order in which they came into the ledger."""
    with sqlite3.connect(f"file:{installation.folder / 'ledger.sqlite'}?mode=ro", uri=True) as connection:
        return [row[0] for row in connection.execute("SELECT collection FROM queries ORDER BY query_no")]


def test_a_small_collection_is_labelled_in_the_middle_of_anothers_flood(tmp_path: Path) -> None:
    assert lane_of(FLOOD) != lane_of(SMALL)
    environ = {**DOUBLES, "QRELAY_ALL__WORKER__MAX_ITEMS": str(MAX_ITEMS),
               "QRELAY_ALL__WORKER__BATCHES_IN_FLIGHT": str(BATCHES)}  # fmt: skip
    with Installation(tmp_path / "data", environ) as installation:
        judge, url = installation.endpoint("judge"), installation.endpoint("nats").grpc
        os.kill(judge.pid, signal.SIGSTOP)
        try:
            for collection, count in ((FLOOD, FLOODED), (SMALL, FEW)):
                queries = write_queries(tmp_path / f"{collection}.jsonl", count)
                installation.run("feed", str(queries), "--collection", collection)
            installation.until(lambda: waiting(url) == FLOODED + FEW)
        finally:
            os.kill(judge.pid, signal.SIGCONT)
        installation.until(lambda: len(committed(installation)) == FLOODED + FEW)
        order = committed(installation)
        last = max(place for place, collection in enumerate(order) if collection == SMALL)
        assert order[:last].count(FLOOD) <= FEW + IN_HAND
        report = installation.run("feed", str(tmp_path / f"{FLOOD}.jsonl"), "--collection", FLOOD, "--wait")
        assert (report["committed"], report["dead"]) == (FLOODED, 0)
