"""A service's background work: it runs beside the stages, ends with the service, and its failure ends the service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qrelay import wire
from qrelay.config import TelemetrySettings, WorkerSettings
from qrelay.errors import ConfigError
from qrelay.exitcodes import EXIT_FAILED
from qrelay.runtime import telemetry
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.service import _run, _watch_lag
from qrelay.runtime.topology import Queue
from qrelay.services.reranker.service import SERVICE
from qrelay.services.reranker.settings import RerankerSettings
from tests import samples
from tests.conftest import LONG_S, eventually

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
    await service
    assert seen[1:] == ["ended"]


async def test_background_work_that_ends_early_leaves_the_service_running() -> None:
    async def work(context: ServiceContext[Any, Any], stopping: asyncio.Event) -> None:
        done.set()

    done = asyncio.Event()
    service = asyncio.create_task(_run(replace(SERVICE, background=work), SETTINGS))
    await done.wait()
    await asyncio.sleep(0.05)
    assert not service.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await service


async def test_background_work_that_fails_stops_the_service_with_its_error() -> None:
    async def work(context: ServiceContext[Any, Any], stopping: asyncio.Event) -> None:
        raise ConfigError("the background cannot work")

    with pytest.raises(ConfigError, match="the background cannot work"):
        await _run(replace(SERVICE, background=work), SETTINGS)


async def test_every_queues_lag_is_in_the_metrics(broker: Any) -> None:
    for number in range(3):
        payload, headers = wire.encode(samples.query(number))
        await broker.publish(Queue.QUERIES.subject("docs"), payload, headers, f"feed-{number}")
    watching = asyncio.create_task(_watch_lag(broker, 60))
    await eventually(lambda: telemetry.LAG_ITEMS.labels("queries")._value.get() == 3)
    watching.cancel()
    assert telemetry.LAG_ITEMS.labels("judged")._value.get() == 0
    assert telemetry.QUEUE_BYTES.labels("queries")._value.get() > 0


async def test_the_door_says_not_serving_while_held_work_is_still_being_finished() -> None:
    told = asyncio.Event()
    answers: list[int] = []

    async def work(context: ServiceContext[Any, Any], stopping: asyncio.Event) -> None:
        await stopping.wait()
        await eventually(lambda: telemetry.READY._value.get() == 0)
        answers.append(1)
        told.set()

    service = asyncio.create_task(_run(replace(SERVICE, background=work), SETTINGS))
    await eventually(lambda: telemetry.READY._value.get() == 1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await service is True
    assert told.is_set() and answers == [1]


async def test_what_does_not_end_within_the_drain_is_not_waited_for() -> None:
    async def work(context: ServiceContext[Any, Any], stopping: asyncio.Event) -> None:
        await asyncio.Event().wait()

    closed: list[Any] = []
    hasty = SETTINGS.model_copy(update={"worker": WorkerSettings(enabled=False, drain_s=0.1)})
    service = asyncio.create_task(_run(replace(SERVICE, background=work, close=closed.append), hasty))
    await eventually(lambda: telemetry.READY._value.get() == 1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await service is False
    assert not closed, "what was not waited for may still use the core"


async def test_the_core_is_closed_also_when_the_service_ends_with_an_error() -> None:
    closed: list[Any] = []

    async def work(context: ServiceContext[Any, Any], stopping: asyncio.Event) -> None:
        raise ConfigError("the background cannot work")

    with pytest.raises(ConfigError):
        await _run(replace(SERVICE, background=work, close=closed.append), SETTINGS)
    assert len(closed) == 1


async def test_a_service_that_still_loads_its_model_ends_when_told_to() -> None:
    loading, go_on = threading.Event(), threading.Event()

    def load(settings: Any) -> Any:
        loading.set()
        go_on.wait(LONG_S)
        return SERVICE.load(settings)

    service = asyncio.create_task(_run(replace(SERVICE, load=load), SETTINGS))
    await eventually(loading.is_set)
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        assert await service is False
    finally:
        go_on.set()


def test_a_bug_ends_a_service_with_1_and_its_words_stay_out_of_the_log() -> None:
    program = """
import sys
from dataclasses import replace
from qrelay.runtime.service import main
from qrelay.services.reranker.service import SERVICE
def load(settings):
    raise ValueError("about " + "zqx" + "wvk")
sys.exit(main(replace(SERVICE, load=load)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_FAILED
    *logged, last = done.stderr.splitlines()
    assert last.startswith("reranker: unexpected ValueError: see the service's log")
    (told,) = [entry for entry in map(json.loads, logged) if "exception" in entry]
    assert "ValueError" in told["exception"] and "in load" in told["exception"]
    assert "zqxwvk" not in done.stderr


def test_a_process_whose_thread_still_computes_ends_all_the_same(tmp_path: Path) -> None:
    """asyncio would wait for the thread; what it computes was given up and returned to the queue."""
    program = """
import sys, threading, time
from dataclasses import replace
from qrelay.runtime.service import main
from qrelay.services.reranker.service import SERVICE
def load(settings):
    print("loading", flush=True)
    time.sleep(300)
sys.exit(main(replace(SERVICE, load=load)))
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"loading\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.kill()
        process.communicate()
