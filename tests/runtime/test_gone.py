"""A real worker on a real server whose store, streams or consumers vanish beneath it, under a real feed."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from qrelay.config import NatsSettings
from qrelay.feed.feeder import Feeder, FeedReport
from qrelay.feed.journal import Journal
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.natsserver import NatsServer
from qrelay.runtime.topology import Queue
from tests.conftest import eventually
from tests.runtime.test_brokers import deleted, wiped, without_consumers
from tests.runtime.test_worker import FAST, EchoStage, collect, running


async def fed(broker: JetStreamBroker, journal: Journal, *query_ids: str) -> FeedReport:
    async def lines() -> AsyncIterator[str]:
        for query_id in query_ids:
            yield json.dumps({"query_id": query_id, "text": f"what is {query_id}?"})

    return await Feeder(broker, journal, collection="docs").feed(lines())


@pytest.mark.parametrize("lose", [deleted, without_consumers, wiped], ids=lambda lose: lose.__name__)
async def test_whatever_is_gone_work_moves_again_with_the_services_settings(
    lose: Any, nats_server: NatsServer, nats_settings: NatsSettings, tmp_path: Path
) -> None:
    settings = nats_settings.model_copy(update={"max_stream_bytes": 5 * 1024**2})
    async with (
        await JetStreamBroker.connect(settings, name="retriever", owner=True) as service,
        await JetStreamBroker.connect(nats_settings, name="feed") as feed,
        await JetStreamBroker.connect(nats_settings, name="next") as following,
    ):
        with Journal(tmp_path / "docs.sqlite") as journal:
            async with running(EchoStage(), service):
                await fed(feed, journal, "before")
                assert [each.query.query_id for each in await collect(following, Queue.RETRIEVED, 1)] == ["before"]
                await lose(service, nats_server)
                report = await fed(feed, journal, "after", "later")
                assert (report.accepted, report.waiting) == (2, "")
                found: list[Any] = []

                async def arrived() -> bool:
                    found[:] = [message async for message in feed.stored(Queue.RETRIEVED, "docs")]
                    return len(found) == 2

                await eventually(arrived)
        info = await feed._js.stream_info(Queue.QUERIES.stream)
        assert info.config.max_bytes == 5 * 1024**2


async def test_a_worker_that_gets_nowhere_says_why_until_the_server_is_back(
    nats_server: NatsServer, nats_settings: NatsSettings
) -> None:
    impatient = FAST.model_copy(update={"stalled_after_s": 0.1})
    async with await JetStreamBroker.connect(nats_settings, name="service", owner=True) as service:
        async with running(EchoStage(), service, impatient) as worker:
            await asyncio.sleep(0.2)
            assert worker.stalled == ""
            nats_server.kill()
            await eventually(lambda: "cannot fetch: no NATS server answers" in worker.stalled)
            shutil.rmtree(nats_server._folder)
            nats_server.start()
            await eventually(lambda: worker.stalled == "")
