"""Listens to what the stages publish, so that it can be published again: late, out of order, under new ids."""

from __future__ import annotations

import asyncio
import random
import secrets
import threading
from collections import deque
from typing import Any

import nats

from qrelay.config import NatsSettings, Transport
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import SUBJECT_ROOT, Queue
from tests.conftest import LONG_S
from tests.pipeline.harness import COLLECTION

_KEPT = 400


async def _being_killed_is_expected(_: Exception) -> None:
    """The server goes and comes back; the client connects again by itself."""


class Recorder:
    """A thread with a plain subscription: it consumes nothing. A context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._heard: dict[str, deque[Any]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        self._client = self._wait(self._connect())
        self._wait(self._client.subscribe(f"{SUBJECT_ROOT}.{COLLECTION}.>", cb=self._hear))
        return self

    def __exit__(self, *_: Any) -> None:
        self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONG_S)

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _connect(self) -> Any:
        return await nats.connect(
            self._url, max_reconnect_attempts=-1, reconnect_time_wait=0.2, error_cb=_being_killed_is_expected
        )

    async def _hear(self, message: Any) -> None:
        self._heard.setdefault(message.subject, deque(maxlen=_KEPT)).append((message.data, message.headers or {}))

    def again(self, queue: str, count: int, draw: random.Random) -> int:
        """Publish up to `count` of the messages of a queue once more, shuffled; how many."""
        subject = Queue(queue).subject(COLLECTION)
        heard = list(self._heard.get(subject, ()))
        chosen = draw.sample(heard, min(count, len(heard)))
        return int(asyncio.run(self._publish(subject, chosen)))

    async def _publish(self, subject: str, chosen: list[Any]) -> int:
        settings = NatsSettings(url=self._url).by(Transport(insecure=True))
        async with await JetStreamBroker.connect(settings, name="chaos") as broker:
            for payload, headers in chosen:
                kept = {name: value for name, value in headers.items() if not name.startswith("Nats-")}
                await broker.publish(subject, payload, kept, f"again-{secrets.token_hex(8)}")
        return len(chosen)
