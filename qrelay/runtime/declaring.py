"""Declares the streams and consumers, and tells which of a server's limits stand in the way.

Only services declare (and `qrelay up` for those that it is about to start), each all queues with its own settings: a
feed on somebody's laptop would declare its defaults. Everybody else looks whether they are there.
"""

from __future__ import annotations

import asyncio
import contextlib

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from qrelay.config import NatsSettings
from qrelay.errors import BackendUnavailable, ConfigError
from qrelay.runtime.natserrors import NAME_IN_USE, OFF, UNDECLARED, translated
from qrelay.runtime.topology import DEAD_LETTER_MARGIN, Lane, Queue


async def declare(js: JetStreamContext, settings: NatsSettings, max_payload: int) -> None:
    """Create every stream and consumer that is absent, and bring the others to the settings.

    The consumer of a version before lanes took every subject: it leaves the lanes' alone before the stream has them.

    Raises:
        ConfigError: the server allows less than the settings need; the text names the limit and what to set.
        BackendUnavailable, BackendTimeout: it does not answer.
    """
    await check_limits(js, settings, max_payload)
    with translated("declare the queues"):
        for queue in Queue:
            await _declare(js, queue, settings)


async def _declare(js: JetStreamContext, queue: Queue, settings: NatsSettings) -> None:
    config = _stream(queue, settings)
    consumers = [_consumer(lane, settings) for lane in queue.lanes]
    try:
        await js.add_stream(config)
    except nats.js.errors.BadRequestError as error:
        if error.err_code != NAME_IN_USE:
            raise
        await _bring(js, queue, consumers[0])
        await js.update_stream(config)
    for consumer in consumers:
        await _bring(js, queue, consumer)


async def _bring(js: JetStreamContext, queue: Queue, wanted: ConsumerConfig) -> None:
    """Write a consumer where it is absent or another: the server's disk has to confirm each write."""
    with contextlib.suppress(nats.js.errors.NotFoundError):
        stands = (await js.consumer_info(queue.stream, str(wanted.durable_name))).config.as_dict()
        if all(stands.get(name) == value for name, value in wanted.as_dict().items()):
            return
    await js.add_consumer(queue.stream, wanted)


async def look(js: JetStreamContext, settings: NatsSettings, max_payload: int) -> None:
    """Whether every stream and consumer is there, and takes this version's subjects; changes nothing.

    Raises:
        ConfigError: they are not, and the server does not allow them.
        BackendUnavailable: they are not, or the server does not answer.
    """
    try:
        with translated("look for the queues"):
            for queue in Queue:
                await asyncio.gather(*(js.consumer_info(lane.stream, lane.consumer) for lane in queue.lanes))
                takes = (await js.stream_info(queue.stream)).config.subjects or []
                if not set(queue.subjects()) <= set(takes):
                    raise BackendUnavailable(UNDECLARED)
            return
    except BackendUnavailable as error:
        gone = error.__cause__
        if not isinstance(gone, (nats.js.errors.NotFoundError, nats.js.errors.ServiceUnavailableError)):
            raise
    await check_limits(js, settings, max_payload)
    raise BackendUnavailable(UNDECLARED)


async def check_limits(js: JetStreamContext, settings: NatsSettings, max_payload: int) -> None:
    """What can be known before anything is declared. Raises as `declare` does."""
    needed = settings.max_message_bytes + DEAD_LETTER_MARGIN
    if max_payload < needed:
        raise ConfigError(
            f"NATS: the server's max_payload is {max_payload} bytes, and nats.max_message_bytes "
            f"({settings.max_message_bytes}) with what a dead letter adds is {needed}: raise max_payload, or set "
            f"nats.max_message_bytes to {max(max_payload - DEAD_LETTER_MARGIN, 0)} or less"
        )
    with translated("ask for the account's limits"):
        try:
            await js.account_info()
        except nats.js.errors.ServiceUnavailableError as error:
            if error.err_code is None:  # nobody listens to JetStream's requests
                raise ConfigError(f"NATS: {OFF}") from error
            raise


def _stream(queue: Queue, settings: NatsSettings) -> StreamConfig:
    return StreamConfig(
        name=queue.stream,
        subjects=list(queue.subjects()),
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_bytes=settings.max_stream_bytes,
        duplicate_window=settings.duplicate_window_s,
        num_replicas=settings.replicas,
    )


def _consumer(lane: Lane, settings: NatsSettings) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=lane.consumer,
        filter_subjects=list(lane.subjects) or None,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=settings.ack_wait_s,
        max_deliver=-1,
        max_ack_pending=settings.max_ack_pending,
    )
