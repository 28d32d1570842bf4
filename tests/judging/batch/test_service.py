"""The judge's service by batches: messages wait for hours without an attempt; a restart finds them as they were."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qrelay import wire
from qrelay.config import WorkerSettings
from qrelay.judging.load import load_serving
from qrelay.runtime.memory import MemoryBroker
from qrelay.runtime.topology import Queue
from qrelay.runtime.worker import StageWorker
from qrelay.services.judge.service import JudgeStage
from qrelay.types import Graded
from tests.conftest import LONG_S, eventually
from tests.judging.batch.dying import sets, settings
from tests.llm.batch_endpoint import BatchEndpoint, Plan

WORKER = WorkerSettings(max_items=1, max_delay_s=0.01, batches_in_flight=8, max_attempts=9, drain_s=LONG_S)


@pytest.fixture
def endpoint() -> Iterator[BatchEndpoint]:
    with BatchEndpoint() as running:
        yield running


async def queued(broker: MemoryBroker) -> None:
    for each in sets():
        payload, headers = wire.encode(each)
        await broker.publish(Queue.RERANKED.subject("docs"), payload, headers, each.query.query_id)


async def lag(broker: MemoryBroker, queue: Queue) -> int:
    return next(each.lag for each in await broker.stats() if each.queue is queue)


async def judged(broker: MemoryBroker) -> list[Any]:
    return [wire.decode(each.payload, each.headers) for each in await broker.fetch(Queue.JUDGED, 100, 0.1)]


async def test_messages_are_held_while_their_batch_runs_returned_by_a_drain_and_judged_after_a_restart(
    endpoint: BatchEndpoint, tmp_path: Path
) -> None:
    endpoint.default = Plan(polls=1 << 30)
    own, broker = (
        settings(str(tmp_path / "cache.sqlite"), endpoint.url, max_requests=9, max_wait_s=3600.0),
        MemoryBroker(),
    )
    await queued(broker)
    for _ in range(2):
        core = load_serving(own)
        worker = StageWorker(JudgeStage(core), broker, WORKER)
        running = asyncio.create_task(worker.run())
        await eventually(lambda: endpoint.calls.count("GET /batches/*") > 1)
        await eventually(lambda: worker.on_hold is not None and "1 in flight" in str(worker.on_hold))  # noqa: B023
        worker.stop()
        await running
        core.close()
        endpoint.calls.clear()
    assert (await lag(broker, Queue.RERANKED), await lag(broker, Queue.DLQ)) == (3, 0)
    for batch in endpoint.batches.values():
        batch.plan.polls = 1
    core = load_serving(own)
    worker = StageWorker(JudgeStage(core), broker, WORKER)
    running = asyncio.create_task(worker.run())
    found: list[Any] = []
    while len(found) < 3:
        found += await judged(broker)
    worker.stop()
    await running
    core.close()
    assert all(isinstance(each.outcome, Graded) for one in found for each in one.judgments)
    assert [len(endpoint.batches), len(endpoint.paid), set(endpoint.paid.values())] == [1, 9, {1}]
