"""Hostile messages among as many good ones, and what they cost: `python -m tests.runtime.hostile_run [--count 1000]`.

Prints one JSON object a broker: how many good ones came out, how many dead letters there are, and the resident memory
(MiB) when a tenth was settled, at the end, and at its highest between. Every fourteenth hostile message is a query of
60 MiB in a few kilobytes, which the stage refuses as the retriever does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import zstandard

from qrelay import wire
from qrelay.config import NatsSettings, WorkerSettings
from qrelay.errors import InvalidQuery
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.memory import MemoryBroker
from qrelay.runtime.natsserver import NatsServer
from qrelay.runtime.stage import Work
from qrelay.runtime.topology import Queue
from tests import samples
from tests.runtime.hostile import MISPLACED, UNREADABLE, Published, enveloped, hostile, query_proto
from tests.runtime.test_worker import EchoStage, publish, running

_HEAVY_BYTES = 60 * 1024**2
_LONGEST_QUERY = 8192


@cache
def _heavy(kind: int) -> bytes:
    payload, _ = enveloped(query=query_proto(kind, text=chr(ord("a") + kind) * _HEAVY_BYTES))
    return zstandard.compress(payload)


def a_heavy_query(number: int) -> Published:
    return _heavy(number % 26) + str(number).encode(), {wire.CONTENT_ENCODING: wire.ZSTD}


def answer(work: Work) -> InvalidQuery | None:
    return InvalidQuery("too long") if len(work.record.text) > _LONGEST_QUERY else None


async def put(broker: Any, count: int) -> None:
    kinds = (*UNREADABLE, *MISPLACED, a_heavy_query)
    for number, (payload, headers) in enumerate(hostile(count, kinds)):
        await broker.publish(Queue.QUERIES.subject("docs"), payload, headers, f"hostile-{number}")
        await publish(broker, samples.query(number))


async def take(broker: Any, queue: Queue, ids: set[str]) -> None:
    for message in await broker.fetch(queue, 100, 0.1):
        record = wire.decode(message.payload, message.headers)
        ids.add(record.dead_letter_id if queue is Queue.DLQ else record.query.query_id)  # type: ignore[union-attr]
        await message.ack()


async def measured(broker: Any, count: int) -> dict[str, Any]:
    await put(broker, count)
    good, dead, resident, began = set[str](), set[str](), list[float](), time.monotonic()
    async with running(EchoStage(answer), broker, WorkerSettings(retry_delays_s=(0.01,))):
        while len(good) < count or len(dead) < count:
            await take(broker, Queue.RETRIEVED, good)
            await take(broker, Queue.DLQ, dead)
            if len(good) + len(dead) > count / 5:
                resident.append(psutil.Process().memory_info().rss / 2**20)
    left = {each.queue.value: each.lag for each in await broker.stats() if each.lag}
    return {
        "good": len(good), "dead_letters": len(dead), "left": left, "seconds": round(time.monotonic() - began, 1),
        "mib_at_a_tenth": round(resident[0]), "mib_at_the_end": round(resident[-1]),
        "mib_at_most": round(max(resident)),
    }  # fmt: skip


async def run(count: int) -> None:
    print(json.dumps({"broker": "memory", **await measured(MemoryBroker(), count)}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder))
        server.start()
        try:
            settings = NatsSettings(url=server.url)
            async with await JetStreamBroker.connect(settings, name="hostile", owner=True) as broker:
                print(json.dumps({"broker": "jetstream", **await measured(broker, count)}), flush=True)
        finally:
            server.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    asyncio.run(run(parser.parse_args().count))
