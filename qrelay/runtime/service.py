"""Runs a service: doors first, then the model, then the queue; and the same backwards on SIGTERM.

Start: settings -> logs and metrics -> gRPC listening (alive, not ready) -> core loaded off the event loop
(ready) -> NATS connected, workers fetching. Readiness does not wait for NATS; liveness waits for nothing.

Stop (SIGTERM, SIGINT): NOT_SERVING -> workers stop fetching, finish or return what they hold -> running
calls finish -> connection closed -> exit 0. A second signal ends it at once.

Exit codes: 0 stopped in order, 78 settings, model, index or port wrong (a person has to act), 1 a bug.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qrelay.config import ServiceSettings, load_settings
from qrelay.errors import SetupError
from qrelay.files import write_atomic
from qrelay.runtime import telemetry
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.exitcodes import EXIT_SETUP
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.server import GrpcServer
from qrelay.runtime.stage import ServiceDef
from qrelay.runtime.worker import StageWorker

log = logging.getLogger(__name__)


def main(definition: ServiceDef[Any, Any], config: Path | None = None) -> int:
    """Run the service until it is told to stop; returns the exit code."""
    try:
        settings = load_settings(definition.settings, definition.name, file=config)
        telemetry.setup_logging(definition.name, settings.telemetry.log_level)
        asyncio.run(_run(definition, settings))
        return 0
    except SetupError as error:
        print(f"{definition.name}: {error}", file=sys.stderr)
        return EXIT_SETUP


async def _run(definition: ServiceDef[Any, Any], settings: ServiceSettings) -> None:
    telemetry.setup_tracing(definition.name, settings.telemetry)
    metrics = telemetry.setup_metrics(settings.telemetry.metrics_bind)
    replica = settings.replica or f"{socket.gethostname()}-{os.getpid()}"
    context: ServiceContext[Any, Any] = ServiceContext(definition.name, settings, replica)
    server = GrpcServer(settings.grpc, definition.grpc_name)
    definition.add_servicer(server.raw, context)
    address = await server.start()
    _announce(definition.name, settings, address, metrics)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _on_signal, stopping)
    try:
        context.core = await asyncio.to_thread(definition.load, settings)
        _calm_garbage_collector()
        await server.ready(True)
        log.info("ready", extra={"grpc": address, "metrics": metrics, "replica": replica})
        beside = asyncio.create_task(_beside(definition, context, stopping))
        try:
            await _work(definition, context, stopping)
        finally:
            stopping.set()
            await beside
    finally:
        await server.ready(False)
        await server.drain(settings.worker.drain_s)
        if context.loaded:
            definition.close(context.core)
        log.info("stopped")


def _calm_garbage_collector() -> None:
    """Records are acyclic and many: the default thresholds scan hundreds of thousands of live objects again
    and again (a quarter of the pipeline's CPU, see docs/log.md). What was loaded is frozen out of the scans."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _on_signal(stopping: asyncio.Event) -> None:
    if stopping.is_set():
        os._exit(130)
    stopping.set()


def _announce(name: str, settings: ServiceSettings, address: str, metrics: str) -> None:
    """Tell `qrelay up`, `top` and tests where this service listens."""
    if settings.run_dir is None:
        return
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    entry = {"service": name, "pid": os.getpid(), "grpc": address, "metrics": metrics}
    write_atomic(settings.run_dir / f"{name}.json", json.dumps(entry).encode())


async def _beside(
    definition: ServiceDef[Any, Any], context: ServiceContext[Any, Any], stopping: asyncio.Event
) -> None:
    """The service's background work, until `stopping`; its failure stops the workers too."""
    try:
        if definition.background is not None:
            await definition.background(context, stopping)
    except BaseException:
        stopping.set()
        raise


async def _work(definition: ServiceDef[Any, Any], context: ServiceContext[Any, Any], stopping: asyncio.Event) -> None:
    """Connect when NATS is there, and run the workers until `stopping`."""
    if not context.settings.worker.enabled:
        await stopping.wait()
        return
    connect = asyncio.create_task(JetStreamBroker.connect(context.settings.nats, name=definition.name, owner=True))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({connect, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not connect.done():
        connect.cancel()
        return
    broker = await connect
    context.broker = broker
    workers = _workers(definition, context, broker)
    running = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        await asyncio.wait({stop, *running}, return_when=asyncio.FIRST_COMPLETED)
        for worker in workers:
            worker.stop()
        await asyncio.gather(*running)
    finally:
        await broker.close()


def _workers(
    definition: ServiceDef[Any, Any], context: ServiceContext[Any, Any], broker: JetStreamBroker
) -> Sequence[StageWorker]:
    fingerprint = " ".join(sorted(definition.info(context.core).models.values()))
    return [
        StageWorker(stage, broker, context.settings.worker, replica=context.replica, fingerprint=fingerprint)
        for stage in definition.stages(context)
    ]
