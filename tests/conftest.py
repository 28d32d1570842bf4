"""Fixtures that every test may use: a real nats-server, both brokers, small records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qrelay.config import NatsSettings
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.memory import MemoryBroker
from qrelay.runtime.natsserver import NatsServer

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A real nats-server on a free port with its own store."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def nats_settings(nats_server: NatsServer) -> NatsSettings:
    return NatsSettings(url=nats_server.url, ack_wait_s=2.0)


@pytest.fixture(params=["memory", "jetstream"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """The same test on both brokers."""
    if request.param == "memory":
        opened: Any = MemoryBroker()
    else:
        settings = request.getfixturevalue("nats_settings")
        opened = await JetStreamBroker.connect(settings, name="test", timeout_s=10, owner=True)
    yield opened
    await opened.close()


async def eventually(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], within_s: float = 20.0) -> None:
    """Wait until the condition holds; fail when it does not within the time."""
    async with asyncio.timeout(within_s):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.02)
