"""Collections share a queue fairly: readers take from every lane in turn, asked of both brokers."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from qrelay.config import NatsSettings
from qrelay.errors import MalformedInput
from qrelay.runtime.broker import Message
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import LANES, Queue, lane_of, queue_of
from tests.conftest import LONG_S, eventually

FLOOD, SMALL, OTHER = "docs", "tickets", "wiki"
"""Collections of three lanes."""
FORMER = "qrelay.v1.docs.queries"
"""Where versions without lanes publish."""
HANDED = 32


async def queued(broker: Any, collection: str, count: int, subject: str = "", name: str = "") -> None:
    """`name` tells these messages from others of the collection: one that was published is not published again."""
    place, prefix = subject or Queue.QUERIES.subject(collection), f"{collection}-{subject}-{name}"
    await asyncio.gather(*(broker.publish(place, b"x", {}, f"{prefix}-{number}") for number in range(count)))


async def taken(broker: Any, most: int = HANDED) -> Counter[str]:
    """How many of each collection one fetch brings; all are acked."""
    messages = await broker.fetch(Queue.QUERIES, most, LONG_S)
    for message in messages:
        await message.ack()
    return Counter(_collection(message) for message in messages)


def _collection(message: Message) -> str:
    return message.subject.split(".")[2]


async def lag(broker: Any) -> int:
    return sum(each.lag for each in await broker.stats() if each.queue is Queue.QUERIES)


def test_a_collections_lane_is_the_same_in_every_process() -> None:
    assert [lane_of(name) for name in (FLOOD, SMALL, OTHER)] == [7, 4, 6]
    assert {lane_of(f"team-{number}") for number in range(LANES)} == set(range(LANES))


def test_each_subject_belongs_to_one_queue_and_one_of_its_lanes() -> None:
    for queue in Queue:
        for subject in (queue.subject("docs"), *(each.replace("*", "docs") for each in queue.subjects())):
            assert queue_of(subject) is queue
            assert sum(lane.takes(subject) for lane in queue.lanes) == 1
    for odd in (f"qrelay.v1.docs.{LANES}.queries", "qrelay.v1.docs.x.queries", "qrelay.v1.docs.0.1.queries"):
        with pytest.raises(MalformedInput):
            queue_of(odd)


async def all_heard(broker: Any, most: int, *collections: str) -> None:
    """Take until each of these had a turn: a busy server may tell of one later than of the others."""
    seen = Counter[str]()
    while any(not seen[each] for each in collections):
        seen += await taken(broker, most)


async def test_a_flood_of_one_collection_never_stands_before_another(broker: Any) -> None:
    """The other comes again and again, with times in between in which nothing of it is queued."""
    await queued(broker, FLOOD, 2000)
    assert (await taken(broker))[FLOOD] == HANDED
    for wave in range(3):
        await queued(broker, SMALL, 20, name=f"wave-{wave}")
        since = Counter[str]()
        while since[SMALL] < 20:
            since += await taken(broker)
        assert since[FLOOD] <= 20 + 8 * HANDED  # of 2,000: a busy server may hand out some first


async def test_three_collections_get_equal_shares(broker: Any) -> None:
    for collection in (FLOOD, SMALL, OTHER):
        await queued(broker, collection, 300)
    await all_heard(broker, 7, FLOOD, SMALL, OTHER)
    since = Counter[str]()
    while since.total() < 150:
        since += await taken(broker, 7)
    assert max(since.values()) - min(since[each] for each in (FLOOD, SMALL, OTHER)) <= 2 * 7


async def test_nobody_is_always_first_where_one_message_is_taken_at_a_time(broker: Any) -> None:
    for collection in (FLOOD, SMALL):
        await queued(broker, collection, 200)
    await all_heard(broker, 1, FLOOD, SMALL)
    since = sum([await taken(broker, 1) for _ in range(40)], Counter[str]())
    assert min(since[FLOOD], since[SMALL]) >= 15


async def test_a_collection_alone_gets_full_batches(broker: Any) -> None:
    await queued(broker, FLOOD, 200)
    assert [(await taken(broker, 50))[FLOOD] for _ in range(4)] == [50] * 4


async def test_what_former_versions_queued_is_worked_off_beside_the_lanes(broker: Any) -> None:
    await queued(broker, FLOOD, 40)
    await queued(broker, "former", 40, FORMER)
    since = Counter[str]()
    while since[FLOOD] < 80:
        since += await taken(broker)
    assert await lag(broker) == 0


async def test_no_message_is_delivered_that_was_not_asked_for(broker: Any) -> None:
    """Or each crash would count an attempt of messages that nobody handled."""
    waiting = asyncio.create_task(broker.fetch(Queue.QUERIES, 1, LONG_S))
    for collection in (FLOOD, SMALL, OTHER):
        await queued(broker, collection, 5)
    (message,) = await waiting
    stats = next(each for each in await broker.stats() if each.queue is Queue.QUERIES)
    assert (stats.held, stats.pending) == (1, 14)
    await message.ack()


async def test_waiting_for_a_message_counts_none_of_its_attempts(nats_settings: NatsSettings) -> None:
    async with (
        await JetStreamBroker.connect(nats_settings, name="one", owner=True) as first,
        await JetStreamBroker.connect(nats_settings, name="two", owner=True) as second,
    ):
        await queued(first, FLOOD, 1)
        attempts: list[int] = []
        while len(attempts) < 5:
            fetches = [broker.fetch(Queue.QUERIES, 5, 0.5) for broker in (first, second)]
            for message in [message for found in await asyncio.gather(*fetches) for message in found]:
                attempts.append(message.attempt)
                await message.retry(0.01)
        assert attempts == [1, 2, 3, 4, 5]


async def test_a_lane_whose_consumer_is_gone_is_declared_again(nats_settings: NatsSettings) -> None:
    async with await JetStreamBroker.connect(nats_settings, name="service", owner=True) as broker:
        assert await broker.fetch(Queue.QUERIES, 5, 0.05) == []
        lane = Queue.QUERIES.lanes[1 + lane_of(FLOOD)]
        await broker._js.delete_consumer(lane.stream, lane.consumer)
        await queued(broker, FLOOD, 1)
        assert (await taken(broker))[FLOOD] == 1


async def without_lanes(broker: JetStreamBroker) -> None:
    """As the version before declared its queues, and an instance of it does again where it starts."""
    for queue in Queue:
        for lane in queue.lanes[1:]:
            await broker._js.delete_consumer(lane.stream, lane.consumer)
    await declared_as_before(broker)


async def declared_as_before(broker: JetStreamBroker) -> None:
    for queue in Queue:
        config = (await broker._js.stream_info(queue.stream)).config
        await broker._js.update_stream(config.evolve(subjects=[f"qrelay.v1.*.{queue}"]))
        consumer = (await broker._js.consumer_info(queue.stream, queue.consumer)).config
        await broker._js.add_consumer(queue.stream, consumer.evolve(filter_subject=None, filter_subjects=None))


async def test_an_upgrade_beside_workers_of_the_version_before_loses_and_doubles_nothing(
    nats_settings: NatsSettings,
) -> None:
    """The former worker's consumer gets its filter while it holds messages, and while others are pending."""
    async with await JetStreamBroker.connect(nats_settings, name="former", owner=True) as former:
        await without_lanes(former)
        await queued(former, "former", 6, FORMER)
        pull = await former._js.pull_subscribe_bind(Queue.QUERIES.consumer, stream=Queue.QUERIES.stream)
        held = await pull.fetch(4, timeout=LONG_S)
        async with await JetStreamBroker.connect(nats_settings, name="new", owner=True) as new:
            await queued(new, FLOOD, 3)
            for message in held[:2]:
                await message.ack_sync()
            assert [message.data for message in await pull.fetch(2, timeout=LONG_S)] == [b"x"] * 2
            seen = list[tuple[str, int]]()
            while len(seen) < 7:
                for each in await new.fetch(Queue.QUERIES, 10, LONG_S):
                    seen.append((each.subject, each.attempt))
                    await each.ack()
            assert Counter(seen) == {(Queue.QUERIES.subject(FLOOD), 1): 3, (FORMER, 2): 4}
            assert await lag(new) == 0


async def test_an_instance_of_the_version_before_that_starts_again_loses_nothing_of_the_lanes(
    nats_settings: NatsSettings,
) -> None:
    """It takes the lanes' subjects from the streams; what lies in the lanes stays, and whoever publishes declares."""
    async with await JetStreamBroker.connect(nats_settings, name="new", owner=True) as new:
        await queued(new, FLOOD, 3)
        await declared_as_before(new)

        async def published() -> bool:
            try:
                await new.publish(Queue.QUERIES.subject(SMALL), b"x", {}, "later")
            except Exception:
                return False
            return True

        await eventually(published)
        since = Counter[str]()
        while since.total() < 4:
            since += await taken(new)
        assert since == {FLOOD: 3, SMALL: 1}
        assert await lag(new) == 0
