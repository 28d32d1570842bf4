"""Fixtures that every test may use: a real nats-server, both brokers, small records."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

from qrelay.cli.offline import OFFLINE
from qrelay.config import NatsSettings
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.memory import MemoryBroker
from qrelay.runtime.natsserver import NatsServer

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
gc.disable()  # until all is collected: importing makes no garbage, and a million objects that stay

pytest_plugins = ("tests.index.documents", "tests.ledgers", "tests.llm.engines")

LONG_S: Final = 300.0
"""For a call that must be given a limit: only what hangs takes so long. Where none is needed a test waits without: a
busy machine may take its time, and what hangs is ended by pytest's own limit, which is the last resort."""
LONGEST: Final = (
    "llm/test_backends.py",
    "training/test_rounds.py",
    "training/test_train.py",
    "fuzz/test_fuzz.py",
    "pipeline/test_kills.py",
    "deploy/k8s/test_local_overlay.py",
    "pipeline/test_swap.py",
    "pipeline/test_real_models.py",
    "pipeline/test_cascade.py",
    "pipeline/test_operations.py",
    "services/retriever/test_builder.py",
    "training/test_utility_benchmark.py",
    "training/test_job.py",
    "runtime/test_server.py",
    "models/test_openvino_encoders.py",
    "chaos/test_chaos.py",
    "bench/test_command.py",
    "web/test_api.py",
    "jobs/test_kubernetes_dispatch.py",
    "labels/test_durability.py",
    "llm/test_transformers.py",
    "labels/test_push.py",
    "jobs/test_dispatcher.py",
    "pipeline/test_hostile.py",
    "deploy/k8s/test_nats_cluster.py",
    "deploy/k8s/test_render.py",
    "models/test_embedder.py",
    "models/registry/test_kills.py",
    "jobs/test_launcher.py",
)
"""Files that take twenty seconds or wait for long, the longest first. They begin first, or the last of them would run
while other processes idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """LONGEST first, in that order; the rest as it is."""
    folder = Path(__file__).parent
    places = {folder / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


def pytest_collection_finish() -> None:
    """What is there when the tests begin stays: no garbage collection looks through it again, as in services."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 10)
    gc.enable()


@pytest.fixture(autouse=True)
def _as_online_as_before() -> Iterator[None]:
    """A command that keeps its process off hubs does so for the test alone that runs it in this process."""
    before = {name: os.environ.get(name) for name in OFFLINE}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A real nats-server on a free port with its own store. No power fails here, so it does not wait for the disk."""
    server = NatsServer(tmp_path / "nats", sync="2m")
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
        opened = await JetStreamBroker.connect(settings, name="test", owner=True)
    yield opened
    await opened.close()


async def eventually(condition: Callable[[], Any] | Callable[[], Awaitable[Any]]) -> None:
    """Wait until the condition holds."""
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        await asyncio.sleep(0.02)
