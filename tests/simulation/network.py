"""What lies between a process and the broker: time, and what gets lost on the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

from qrelay.errors import BackendTimeout, BackendUnavailable, Overloaded
from qrelay.runtime.broker import Message
from qrelay.runtime.topology import Queue, QueueStats

if TYPE_CHECKING:
    from tests.simulation.world import World

_PUBLISH_TIMEOUT_S = 2.0
_ACK_TIMEOUT_S = 2.0


@dataclass(slots=True)
class Weather:
    """How bad the network is: probabilities (0 to 1) at each operation, and its delay in seconds."""

    delivery_lost: float = 0.0
    """Fetched messages do not arrive: they are held by nobody until ack_wait."""
    confirmation_lost: float = 0.0
    """The ack arrives and its confirmation does not."""
    answer_lost: float = 0.0
    """A retry or heartbeat does not arrive; nobody learns of it."""
    delay_s: float = 0.002

    def calm(self) -> None:
        """No more faults."""
        for each in fields(self):
            setattr(self, each.name, each.default)


class Connection:
    """A process's connection: `Broker` on the simulated network. `cut_until`: no message passes before that time."""

    def __init__(self, world: World, name: str, draw: random.Random) -> None:
        self._world, self._name, self._draw = world, name, draw
        self.cut_until = 0.0

    @property
    def cut(self) -> bool:
        """Whether nothing passes now."""
        return self._world.loop.time() < self.cut_until

    def _lost(self, probability: float) -> bool:
        return self.cut or (probability > 0 and self._draw.random() < probability)

    async def _travel(self) -> None:
        await asyncio.sleep(self._draw.expovariate(1.0 / self._world.weather.delay_s))

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str], msg_id: str) -> None:
        await self._travel()
        if self.cut:
            await asyncio.sleep(_PUBLISH_TIMEOUT_S)
            raise BackendTimeout(f"publish to {subject}: NATS did not answer in time (simulated)")
        if (queue := self._world.queue_of(subject)) in self._world.full:
            raise Overloaded(f"publish to {subject}: the stream {queue} is full (simulated)")
        try:
            await self._world.broker.publish(subject, payload, headers, msg_id)
        except BackendTimeout:
            self._stored(subject, payload, headers, msg_id, "unconfirmed")
            await asyncio.sleep(_PUBLISH_TIMEOUT_S)
            raise
        self._stored(subject, payload, headers, msg_id, "confirmed")
        await self._travel()
        if self.cut:
            await asyncio.sleep(_PUBLISH_TIMEOUT_S)
            raise BackendTimeout(f"publish to {subject}: NATS did not answer in time (simulated)")

    async def store(self, subject: str, payload: bytes, headers: Mapping[str, str], msg_id: str) -> None:
        """As a client that is not qrelay's publishes."""
        self._world.broker.store(subject, payload, headers, msg_id)
        self._stored(subject, payload, headers, msg_id, "confirmed")

    def _stored(self, subject: str, payload: bytes, headers: Mapping[str, str], msg_id: str, how: str) -> None:
        self._world.check(lambda checker: checker.stored(subject, payload, headers, msg_id))
        number = self._world.checker.number(subject, payload)
        self._world.log("stored", self._name, subject, msg_id, f"#{number}", how)

    async def fetch(self, queue: Queue, max_items: int, timeout_s: float) -> Sequence[Delivery]:
        if self.cut:
            await asyncio.sleep(timeout_s)
            raise BackendUnavailable(f"fetch from {queue.stream}: no connection (simulated)")
        messages = await self._world.broker.fetch(queue, max_items, timeout_s)
        if not messages:
            return []
        lost = self._lost(self._world.weather.delivery_lost)
        for message in messages:
            self._log("lost" if lost else "fetched", message, message.attempt)
        return [] if lost else [Delivery(self, queue, message) for message in messages]

    def _log(self, what: str, message: Message, *details: object) -> None:
        """Without the message's bytes: a dead letter holds the trace ids of whoever traces this process."""
        number = self._world.checker.number(message.subject, message.payload)
        self._world.log(what, self._name, message.subject, f"#{number}", *details)

    async def ack(self, queue: Queue, message: Message) -> None:
        """See `Delivery.ack`."""
        weather = self._world.weather
        await self._travel()
        if not self.cut:
            self._log("ack", message)
            self._world.check(lambda checker: checker.acked(queue, message))
            await message.ack()
            await self._travel()
            if not self._lost(weather.confirmation_lost):
                return
        await asyncio.sleep(_ACK_TIMEOUT_S)
        raise BackendTimeout("the ack was not confirmed (simulated)")

    async def retry(self, message: Message, delay_s: float) -> None:
        """See `Delivery.retry`: sent and forgotten, as in NATS."""
        if not self._lost(self._world.weather.answer_lost):
            self._log("retry", message, delay_s)
            await message.retry(delay_s)

    async def heartbeat(self, message: Message) -> None:
        """See `Delivery.heartbeat`: sent and forgotten."""
        if not self._lost(self._world.weather.answer_lost):
            await message.heartbeat()

    async def stats(self) -> Sequence[QueueStats]:
        return await self._world.broker.stats()

    async def close(self) -> None:
        """Nothing to do."""


class Delivery:
    """One delivery, answered through the connection that it came by."""

    def __init__(self, connection: Connection, queue: Queue, message: Message) -> None:
        self._connection, self._queue, self._message = connection, queue, message
        self.subject, self.payload, self.headers = message.subject, message.payload, message.headers
        self.attempt = message.attempt
        self.published_at: datetime = message.published_at

    async def ack(self) -> None:
        await self._connection.ack(self._queue, self._message)

    async def retry(self, delay_s: float) -> None:
        await self._connection.retry(self._message, delay_s)

    async def heartbeat(self) -> None:
        await self._connection.heartbeat(self._message)
