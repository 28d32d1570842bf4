"""What the worker relies on, asserted of both brokers; and JetStream's declarations."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import nats.errors
import psutil
import pytest

from qrelay.config import NatsSettings
from qrelay.errors import (
    BackendUnavailable,
    InvalidQuery,
    MalformedInput,
    Overloaded,
    Oversized,
    PortInUse,
    TransientError,
)
from qrelay.runtime import natsclient
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.memory import MemoryBroker
from qrelay.runtime.natsclient import ATTEMPTS
from qrelay.runtime.natsserver import NatsServer
from qrelay.runtime.topology import Queue
from tests.conftest import LONG_S, eventually
from tests.simulation.loop import SimulatedLoop, in_simulated_time

SUBJECT = Queue.QUERIES.subject("docs")


async def test_a_message_arrives_with_its_headers_and_leaves_when_acked(broker: Any) -> None:
    await broker.publish(SUBJECT, b"one", {"traceparent": "t"}, "id-1")
    (message,) = await broker.fetch(Queue.QUERIES, 10, 1)
    assert (message.payload, message.headers["traceparent"], message.attempt) == (b"one", "t", 1)
    assert message.subject == SUBJECT
    await message.ack()
    await eventually(lambda: _lag(broker, 0))
    assert await broker.fetch(Queue.QUERIES, 1, 0.05) == []


async def _lag(broker: Any, lag: int) -> bool:
    stats = {each.queue: each for each in await broker.stats()}
    return bool(stats[Queue.QUERIES].lag == lag)


async def test_the_same_message_id_is_stored_once(broker: Any) -> None:
    for _ in range(3):
        await broker.publish(SUBJECT, b"one", {}, "id-1")
    assert len(await broker.fetch(Queue.QUERIES, 10, 1)) == 1


async def test_a_message_given_back_comes_again_with_the_next_attempt(broker: Any) -> None:
    await broker.publish(SUBJECT, b"one", {}, "id-1")
    (message,) = await broker.fetch(Queue.QUERIES, 1, 1)
    await message.retry(0.1)
    (again,) = await broker.fetch(Queue.QUERIES, 1, 5)
    assert again.attempt == 2


def test_in_memory_a_message_without_a_heartbeat_comes_again_after_ack_wait() -> None:
    async def claim(broker: MemoryBroker, loop: SimulatedLoop) -> None:
        await broker.publish(SUBJECT, b"one", {}, "id")
        (message,) = await broker.fetch(Queue.QUERIES, 1, 1)
        for _ in range(10):
            await asyncio.sleep(50)
            await message.heartbeat()
        beat = loop.time()
        (again,) = await broker.fetch(Queue.QUERIES, 1, 3600)
        assert (again.attempt, loop.time() - beat) == (2, 60.0)

    in_simulated_time(claim)


def test_in_memory_a_message_id_is_forgotten_after_the_duplicate_window() -> None:
    async def claim(broker: MemoryBroker, loop: SimulatedLoop) -> None:
        for wait_s in (0, 599, 601):
            await asyncio.sleep(wait_s)
            await broker.publish(SUBJECT, b"%d" % wait_s, {}, "id")
        assert [message.payload for message in await broker.fetch(Queue.QUERIES, 5, 1)] == [b"0", b"601"]

    in_simulated_time(claim)


async def test_an_oversized_message_is_refused_and_names_the_limit() -> None:
    broker = MemoryBroker(max_message_bytes=10)
    with pytest.raises(Oversized, match="max_message_bytes is 10"):
        await broker.publish(SUBJECT, b"x" * 11, {}, "id")


async def test_jetstream_refuses_an_oversized_message_and_names_the_limit(nats_settings: NatsSettings) -> None:
    settings = nats_settings.model_copy(update={"max_message_bytes": 1024})
    async with await JetStreamBroker.connect(settings, name="test", owner=True) as broker:
        with pytest.raises(Oversized, match="max_message_bytes is 1024"):
            await broker.publish(SUBJECT, b"x" * 1025, {}, "id")


@pytest.mark.parametrize(
    "subject",
    [
        "qrelay.v1.docs.v2.queries",
        "qrelay.v1.my docs.queries",
        "qrelay.v1.*.queries",
        "qrelay.v1..queries",
        "qrelay.v1.docs.nothing",
        "qrelay.v1.docs.queries ",
        "other.v1.docs.queries",
        "$JS.API.STREAM.DELETE.QRELAY_V1_QUERIES",
        "",
        f"qrelay.v1.{'x' * 5000}.queries",  # a server hangs up on it, for good
    ],
)
async def test_both_brokers_publish_to_no_subject_but_qrelays_own(broker: Any, subject: str) -> None:
    with pytest.raises(MalformedInput, match=r"is no subject of qrelay's: qrelay\.v1\.COLLECTION\.QUEUE"):
        await broker.publish(subject, b"{}", {}, "id")
    assert len(await broker.stats()) == len(Queue)


def test_a_collection_that_is_no_token_has_no_subject() -> None:
    for name in ("docs.v2", "my docs", "", "*", "Docs"):
        with pytest.raises(InvalidQuery, match="use 1 to 64 of"):
            Queue.QUERIES.subject(name)


@pytest.mark.parametrize("status", ["100", "404", "409", "503", "no number"])
async def test_a_message_with_a_status_of_its_own_is_fetched_as_any_other(broker: Any, status: str) -> None:
    for number in range(3):
        await broker.publish(SUBJECT, b"%d" % number, {"Status": status} if number == 1 else {}, f"id-{number}")
    fetched: list[bytes] = []
    while len(fetched) < 3:
        for message in await broker.fetch(Queue.QUERIES, 10, 1):
            fetched.append(message.payload)
            await message.ack()
    assert fetched == [b"0", b"1", b"2"]


async def test_headers_count_against_what_the_server_takes(nats_settings: NatsSettings) -> None:
    settings = nats_settings.model_copy(update={"max_message_bytes": 1024**2})
    async with (
        await JetStreamBroker.connect(nats_settings, name="service", owner=True),
        await JetStreamBroker.connect(settings, name="test") as broker,
    ):
        with pytest.raises(Oversized, match="max_payload"):
            await broker.publish(SUBJECT, bytes(1024**2 - 100), {"long": "x" * 200}, "id")
        await broker.publish(SUBJECT, b"still connected", {}, "id")


async def test_a_full_stream_pushes_back_and_loses_nothing(nats_settings: NatsSettings) -> None:
    settings = nats_settings.model_copy(update={"max_stream_bytes": 1024**2})
    async with await JetStreamBroker.connect(settings, name="test", owner=True) as broker:
        stored = 0
        with pytest.raises(Overloaded, match="full"):
            while True:
                await broker.publish(SUBJECT, bytes(100_000), {}, f"id-{stored}")
                stored += 1
        assert 5 <= stored <= 11
        messages = await broker.fetch(Queue.QUERIES, 20, 1)
        assert len(messages) == stored
        await messages[0].ack()
        await broker.publish(SUBJECT, bytes(100_000), {}, "one more")


async def test_declaring_twice_changes_nothing_and_a_changed_limit_is_updated(nats_settings: NatsSettings) -> None:
    async with await JetStreamBroker.connect(nats_settings, name="a", owner=True) as broker:
        await broker.publish(SUBJECT, b"kept", {}, "id")
        await broker.declare()
        changed = nats_settings.model_copy(update={"max_stream_bytes": 5 * 1024**2})
        async with await JetStreamBroker.connect(changed, name="b", owner=True) as second:
            info = await second._js.stream_info(Queue.QUERIES.stream)
            assert info.config.max_bytes == 5 * 1024**2
            assert info.state.messages == 1


async def test_who_is_no_owner_declares_nothing_and_waits_for_the_services(nats_settings: NatsSettings) -> None:
    with pytest.raises(BackendUnavailable, match="the services declare them, so start these"):
        await JetStreamBroker.connect(nats_settings, name="feed", attempts=1)
    waiting = asyncio.create_task(JetStreamBroker.connect(nats_settings, name="feed"))
    async with await JetStreamBroker.connect(nats_settings, name="service", owner=True) as service:
        async with await waiting as feed:
            await feed.publish(SUBJECT, b"one", {}, "1")
            await deleted(service, None)
            with pytest.raises(BackendUnavailable, match="the services declare them"):
                await feed.publish(SUBJECT, b"two", {}, "2")
            with pytest.raises(BackendUnavailable, match="the services declare them"):
                await feed.fetch(Queue.QUERIES, 1, 0.05)
            assert (await service._js.account_info()).streams == 0


async def test_who_is_no_owner_changes_nothing(nats_settings: NatsSettings) -> None:
    queue = Queue.QUERIES
    async with await JetStreamBroker.connect(nats_settings, name="service", owner=True):
        others = nats_settings.model_copy(update={"max_stream_bytes": 5 * 1024**2, "ack_wait_s": 77.0})
        async with await JetStreamBroker.connect(others, name="feed") as feed:
            stream = await feed._js.stream_info(queue.stream)
            consumer = await feed._js.consumer_info(queue.stream, queue.consumer)
            assert stream.config.max_bytes == nats_settings.max_stream_bytes
            assert consumer.config.ack_wait == nats_settings.ack_wait_s


async def test_a_message_held_by_a_dead_worker_returns_after_ack_wait(nats_settings: NatsSettings) -> None:
    async with await JetStreamBroker.connect(nats_settings, name="dies", owner=True) as dead:
        await dead.publish(SUBJECT, b"one", {}, "id")
        assert len(await dead.fetch(Queue.QUERIES, 1, 1)) == 1
    async with await JetStreamBroker.connect(nats_settings, name="lives", owner=True) as alive:
        (message,) = await alive.fetch(Queue.QUERIES, 1, 10)
        assert message.attempt == 2


async def test_a_heartbeat_keeps_a_message_from_a_second_worker(nats_settings: NatsSettings) -> None:
    async with await JetStreamBroker.connect(nats_settings, name="slow", owner=True) as broker:
        await broker.publish(SUBJECT, b"one", {}, "id")
        (message,) = await broker.fetch(Queue.QUERIES, 1, 1)
        for _ in range(6):
            await asyncio.sleep(nats_settings.ack_wait_s / 4)
            await message.heartbeat()
        assert await broker.fetch(Queue.QUERIES, 1, 0.1) == []


async def test_publishing_goes_on_after_nats_is_killed_and_restarted(
    nats_server: NatsServer, nats_settings: NatsSettings
) -> None:
    async with await JetStreamBroker.connect(nats_settings, name="test", owner=True) as broker:
        await broker.publish(SUBJECT, b"before", {}, "1")
        nats_server.kill()
        nats_server.start()

        async def publish() -> bool:
            try:
                await broker.publish(SUBJECT, b"after", {}, "2")
            except TransientError:
                return False
            return True

        await eventually(publish)
        assert [m.payload for m in await broker.fetch(Queue.QUERIES, 5, 5)] == [b"before", b"after"]


async def test_no_server_is_a_clear_error_after_the_attempts_given() -> None:
    with pytest.raises(BackendUnavailable, match=r"no NATS server answers at .*: start one"):
        await JetStreamBroker.connect(NatsSettings(url="nats://127.0.0.1:9"), name="test", attempts=1)


async def test_a_server_that_stands_still_is_waited_for(
    nats_server: NatsServer,
    nats_settings: NatsSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await (await JetStreamBroker.connect(nats_settings, name="service", owner=True)).close()
    os.kill(nats_server.pid, signal.SIGSTOP)
    try:  # one of its threads has to run once for all to stop
        await eventually(lambda: psutil.Process(nats_server.pid).status() == psutil.STATUS_STOPPED)
        monkeypatch.setattr(natsclient, "_ANSWER_S", 0.1)
        with pytest.raises(BackendUnavailable, match="no NATS server answers"):
            await JetStreamBroker.connect(nats_settings, name="test", attempts=2)
        caplog.clear()
        monkeypatch.setattr(natsclient, "_ANSWER_S", 1.0)
        waits = asyncio.create_task(JetStreamBroker.connect(nats_settings, name="test", attempts=ATTEMPTS))
        await eventually(lambda: len(caplog.records) >= 2)
    finally:
        os.kill(nats_server.pid, signal.SIGCONT)
    await (await waits).close()


def test_a_taken_port_is_named(nats_server: NatsServer, tmp_path: Path) -> None:
    port = int(nats_server.url.rsplit(":", 1)[1])
    with pytest.raises(PortInUse, match=str(port)):
        NatsServer(tmp_path / "second", port=port).start()


async def deleted(broker: JetStreamBroker, server: NatsServer | None) -> None:
    for queue in Queue:
        await broker._js.delete_stream(queue.stream)


async def without_consumers(broker: JetStreamBroker, server: NatsServer) -> None:
    for lane in [lane for queue in Queue for lane in queue.lanes]:
        await broker._js.delete_consumer(lane.stream, lane.consumer)


async def wiped(broker: JetStreamBroker, server: NatsServer) -> None:
    server.kill()
    shutil.rmtree(server._folder)
    server.start()


@pytest.mark.parametrize("lose", [deleted, without_consumers, wiped], ids=lambda lose: lose.__name__)
async def test_what_is_gone_is_declared_again_with_the_owners_settings(
    lose: Any, nats_server: NatsServer, nats_settings: NatsSettings
) -> None:
    settings = nats_settings.model_copy(update={"max_stream_bytes": 5 * 1024**2, "ack_wait_s": 77.0})
    async with await JetStreamBroker.connect(settings, name="service", owner=True) as broker:
        assert await broker.fetch(Queue.QUERIES, 5, 0.05) == []
        await lose(broker, nats_server)

        async def declared() -> bool:
            with contextlib.suppress(TransientError, nats.errors.Error):
                await broker.fetch(Queue.QUERIES, 5, 0.05)
                found = [await broker._js.consumer_info(queue.stream, queue.consumer) for queue in Queue]
                return {each.config.ack_wait for each in found} == {77.0}
            return False

        await eventually(declared)
        for queue in Queue:
            assert (await broker._js.stream_info(queue.stream)).config.max_bytes == 5 * 1024**2


async def test_an_owner_that_only_publishes_declares_again_what_is_gone(
    nats_server: NatsServer, nats_settings: NatsSettings
) -> None:
    async with await JetStreamBroker.connect(nats_settings, name="service", owner=True) as broker:
        await deleted(broker, nats_server)

        async def published() -> bool:
            with contextlib.suppress(TransientError):
                await broker.publish(SUBJECT, b"one", {}, "1")
                return True
            return False

        await eventually(published)
        (message,) = await broker.fetch(Queue.QUERIES, 1, LONG_S)
        assert message.payload == b"one"
