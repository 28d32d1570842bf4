"""A service's background work: it runs beside the stages, ends with the service, and its failure ends the service."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import Any

import pytest

from qrelay.config import TelemetrySettings, WorkerSettings
from qrelay.errors import ConfigError
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.service import _run
from services.reranker.service import SERVICE
from services.reranker.settings import RerankerSettings
from tests.conftest import eventually

SETTINGS = RerankerSettings(scorer="fake", worker=WorkerSettings(enabled=False), telemetry=TelemetrySettings())


async def test_background_work_starts_with_the_loaded_core_and_ends_with_the_service() -> None:
    seen: list[Any] = []

    async def work(context: ServiceContext[Any, Any], stopping: asyncio.Event) -> None:
        seen.append(context.core)
        await stopping.wait()
        seen.append("ended")

    service = asyncio.create_task(_run(replace(SERVICE, background=work), SETTINGS))
    await eventually(lambda: seen)
    assert seen[0] is not None and not service.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(service, 20)
    assert seen[1:] == ["ended"]


async def test_background_work_that_ends_early_leaves_the_service_running() -> None:
    async def work(context: ServiceContext[Any, Any], stopping: asyncio.Event) -> None:
        done.set()

    done = asyncio.Event()
    service = asyncio.create_task(_run(replace(SERVICE, background=work), SETTINGS))
    await asyncio.wait_for(done.wait(), 20)
    await asyncio.sleep(0.05)
    assert not service.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(service, 20)


async def test_background_work_that_fails_stops_the_service_with_its_error() -> None:
    async def work(context: ServiceContext[Any, Any], stopping: asyncio.Event) -> None:
        raise ConfigError("the background cannot work")

    with pytest.raises(ConfigError, match="the background cannot work"):
        await asyncio.wait_for(_run(replace(SERVICE, background=work), SETTINGS), 20)
