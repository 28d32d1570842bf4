"""Runs a service: gRPC first, then the model, then the queue; and the same backwards on SIGTERM.

Start: settings -> logs and metrics -> gRPC listening (alive, not ready) -> core loaded off the event loop
(ready) -> NATS connected, queues declared, workers fetching. Readiness does not wait for NATS, and falls where NATS
answers and the queues cannot be declared, or a stage can neither fetch nor publish, for `worker.stalled_after_s`;
liveness waits for nothing.
Until the core is there, GetInfo and the log say how far loading is.

Stop (SIGTERM, SIGINT): NOT_SERVING -> workers stop fetching, finish or return what they hold; beside that
running calls finish -> connection closed -> exit 0, all within `worker.drain_s` and the moment that returning
takes. A model that still computes then is not waited for: its messages are back in the queue. A second signal
ends it at once.

Exit codes: 0 stopped in order, 78 settings, model, index, port or rights wrong (a person has to act), 1 a full disk,
a database that does not answer, or a bug.
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
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from qrelay.config import ServiceSettings
from qrelay.errors import QrelayError, SetupError
from qrelay.exitcodes import EXIT_FAILED, EXIT_SETUP
from qrelay.files import disk_refusal, write_atomic
from qrelay.progress import Lines, Listener, Progress, listening, step
from qrelay.runtime import telemetry
from qrelay.runtime.broker import Broker
from qrelay.runtime.context import Preparation, ServiceContext
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.otlp import setup_export
from qrelay.runtime.server import GrpcServer
from qrelay.runtime.stage import ServiceDef
from qrelay.runtime.stall import Stall
from qrelay.runtime.translate import as_qrelay_error
from qrelay.runtime.worker import StageWorker
from qrelay.settings import load_settings
from qrelay.settings.secrets import masked

log = logging.getLogger(__name__)

_STALL_LOOK_S = 1.0


def main(definition: ServiceDef[Any, Any], config: Path | None = None) -> int:
    """Run the service until it is told to stop; returns the exit code."""
    telemetry.setup_logging(definition.name, "INFO")  # until the settings are read
    try:
        settings = load_settings(definition.settings, definition.name, file=config, data_dir=None)
        telemetry.setup_logging(definition.name, settings.telemetry.log_level)
        with asyncio.Runner() as runner:
            if not runner.run(_run(definition, settings)):
                sys.stderr.flush()
                os._exit(0)  # a thread still computes what was given up and returned: do not wait for it
        return 0
    except QrelayError as error:
        return _failed(definition.name, error)
    except Exception as error:
        refusal = disk_refusal(error) if isinstance(error, OSError) else None
        return _failed(definition.name, refusal or as_qrelay_error(error))


def _failed(name: str, error: QrelayError) -> int:
    print(f"{name}: {masked(str(error))}", file=sys.stderr)
    return EXIT_SETUP if isinstance(error, SetupError) else EXIT_FAILED


async def _run(definition: ServiceDef[Any, Any], settings: ServiceSettings) -> bool:
    """Whether all ended in order; False: threads still compute what was given up."""
    setup_export(definition.name, settings.telemetry)
    telemetry.warn_exposed(settings)
    metrics = telemetry.setup_metrics(settings.telemetry.metrics_bind, settings.tls)
    replica = settings.replica or f"{socket.gethostname()}-{os.getpid()}"
    context: ServiceContext[Any, Any] = ServiceContext(definition.name, settings, replica)
    server = GrpcServer(settings.grpc, definition.grpc_name, settings.tls, settings.access)
    definition.add_servicer(server.raw, context)
    address = await server.start()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _on_signal, stopping)
    leaving = asyncio.create_task(_leave(server, settings.worker.drain_s, stopping))
    gave_up = False
    try:
        _announce(definition.name, settings, address, metrics)
        if await _loaded(definition, context, stopping):
            await server.ready(not stopping.is_set())
            log.info("ready", extra={"grpc": address, "metrics": metrics, "replica": replica})
            gave_up = not await _serve(definition, context, server, stopping)
        else:
            gave_up = True
    finally:
        stopping.set()
        await leaving
        if context.loaded and not gave_up:  # else a thread still uses it
            definition.close(context.core)
        log.info("stopped", extra={"in_order": not gave_up})
    return not gave_up


async def _leave(server: GrpcServer, drain_s: float, stopping: asyncio.Event) -> None:
    """The gRPC server on SIGTERM: not ready at once, no new calls, running ones end; beside the workers' drain."""
    await stopping.wait()
    await server.ready(False)
    await server.drain(drain_s)


async def _loaded(
    definition: ServiceDef[Any, Any], context: ServiceContext[Any, Any], stopping: asyncio.Event
) -> bool:
    """Loads the core off the event loop. False: told to stop before it was there."""
    with listening(_reporter(context.preparation)):
        loading = asyncio.ensure_future(asyncio.to_thread(_load, definition, context.settings))
    if not await _before(stopping, loading):
        return False
    context.core = loading.result()
    _calm_garbage_collector()
    return True


def _load(definition: ServiceDef[Any, Any], settings: ServiceSettings) -> Any:
    with step("loading"):
        return definition.load(settings)


def _reporter(preparation: Preparation) -> Listener:
    """Long steps into GetInfo, and into the log at intervals."""
    lines = Lines(lambda line: log.info("preparing", extra={"step": line}))

    def report(progress: Progress) -> None:
        preparation(progress)
        lines(progress)

    return report


async def _before(stopping: asyncio.Event, awaited: asyncio.Future[Any]) -> bool:
    """Waits for the one or the other; whether `awaited` is there. If not, it is cancelled."""
    stop = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({awaited, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not awaited.done():
        awaited.cancel()
    return awaited.done()


async def _serve(
    definition: ServiceDef[Any, Any], context: ServiceContext[Any, Any], server: GrpcServer, stopping: asyncio.Event
) -> bool:
    """Works until `stopping`. Whether all of it ended within `worker.drain_s` of that."""
    beside = asyncio.create_task(_beside(definition, context, stopping))
    limit = asyncio.create_task(_limit(stopping, context.settings.worker.drain_s))
    try:
        in_order = await _work(definition, context, server, stopping)
    finally:
        stopping.set()
        await asyncio.wait({beside, limit}, return_when=asyncio.FIRST_COMPLETED)
        limit.cancel()
        if not beside.done():
            beside.cancel()
        else:
            beside.result()
    return in_order and not beside.cancelling()


async def _limit(stopping: asyncio.Event, drain_s: float) -> None:
    """Ends so many seconds after `stopping`."""
    await stopping.wait()
    await asyncio.sleep(drain_s)


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
            with listening(_reporter(context.preparation)):
                await definition.background(context, stopping)
    except BaseException:
        stopping.set()
        raise


async def _work(
    definition: ServiceDef[Any, Any], context: ServiceContext[Any, Any], server: GrpcServer, stopping: asyncio.Event
) -> bool:
    """Connect when NATS is there, and run the workers until `stopping`. Whether they gave nothing up in the end."""
    if not context.settings.worker.enabled:
        await stopping.wait()
        return True
    broker = await _declared(definition.name, context, server, stopping)
    if broker is None:
        return True
    context.broker = broker
    workers = _workers(definition, context, broker)
    context.holds = lambda: [worker.on_hold for worker in workers if worker.on_hold]
    stop = asyncio.create_task(stopping.wait())
    watching = [
        asyncio.create_task(_watch_lag(broker, context.settings.telemetry.lag_every_s)),
        asyncio.create_task(
            _watch_stalls(context, server, lambda: {each.name: each.stalled for each in workers}, stopping)
        ),
    ]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        await asyncio.wait({stop, *running}, return_when=asyncio.FIRST_COMPLETED)
        stopping.set()
        for worker in workers:
            worker.stop()
        await asyncio.gather(*running)
    finally:
        for each in watching:
            each.cancel()
        await broker.close()
    return not any(worker.gave_up for worker in workers)


async def _declared(
    name: str, context: ServiceContext[Any, Any], server: GrpcServer, stopping: asyncio.Event
) -> JetStreamBroker | None:
    """A connection with the queues declared, however long that takes; None: told to stop before."""
    stall, limit_s = Stall(time.monotonic), context.settings.worker.stalled_after_s
    watching = asyncio.create_task(_watch_stalls(context, server, lambda: {"queues": stall.lasts(limit_s)}, stopping))
    connect = asyncio.create_task(
        JetStreamBroker.connect(
            context.settings.nats,
            name=name,
            owner=context.settings.nats.nkey_seed is None,
            failed=partial(stall.failed, "cannot declare the queues"),
        )
    )
    try:
        return await connect if await _before(stopping, connect) else None
    finally:
        watching.cancel()


async def _watch_lag(broker: Broker, every_s: float) -> None:
    """Every queue's length into the metrics; every service tells of all, as any of them may be scaled to zero."""
    while every_s > 0:
        try:
            for queue in await broker.stats():
                telemetry.LAG_ITEMS.labels(queue.queue.value).set(queue.lag)
                telemetry.QUEUE_BYTES.labels(queue.queue.value).set(queue.bytes)
        except QrelayError as error:
            log.debug("cannot read the queues' lag", extra={"error": str(error)})
        await asyncio.sleep(every_s)


async def _watch_stalls(
    context: ServiceContext[Any, Any],
    server: GrpcServer,
    stalled: Callable[[], Mapping[str, str]],
    stopping: asyncio.Event,
) -> None:
    """Not ready while a stage can neither fetch nor publish, and why in the log and in GetInfo. stalled: each stage's
    reason, empty where it gets on."""
    while not stopping.is_set():
        found = {stage: why for stage, why in stalled().items() if why}
        if bool(found) != bool(context.stalled):
            for stage, why in found.items():
                log.error("not ready: %s has been getting nowhere: %s", stage, why)
            await server.ready(True, stalled=bool(found))
        context.stalled = found
        await asyncio.sleep(_STALL_LOOK_S)


def _workers(
    definition: ServiceDef[Any, Any], context: ServiceContext[Any, Any], broker: JetStreamBroker
) -> Sequence[StageWorker]:
    fingerprint = " ".join(sorted(definition.info(context.core).models.values()))
    return [
        StageWorker(stage, broker, context.settings.worker, replica=context.replica, fingerprint=fingerprint)
        for stage in definition.stages(context)
    ]
