"""Runs the console's server until SIGTERM: listens on this machine, announces itself, drains."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Final

import uvicorn
from starlette.routing import BaseRoute

from qrelay.errors import PortInUse
from qrelay.files import write_atomic
from qrelay.runtime import telemetry
from qrelay.runtime.otlp import setup_export
from qrelay.security.tls import server_context
from qrelay.settings.sections import CONSOLE
from qrelay.web.app import ROUTES, create_app
from qrelay.web.settings import ConsoleSettings
from qrelay.web.site import Site

log = logging.getLogger(__name__)

_BACKLOG: Final = 256


def listen(bind: str) -> socket.socket:
    """A listening socket. Raises PortInUse: something else listens there."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio does not switch off Nagle's algorithm, which holds small answers for 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, int(port)))
        listening.listen(_BACKLOG)
        return listening
    except OSError as error:
        listening.close()
        raise PortInUse(
            f"console.bind {bind}: {error.strerror}; stop what listens there (another console?), or take port 0"
        ) from error


def address_of(listening: socket.socket) -> str:
    """host:port."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def server(site: Site, routes: Sequence[BaseRoute] = ROUTES) -> uvicorn.Server:
    """A server of the site, to be given a socket."""
    tls = site.settings.tls
    config = uvicorn.Config(
        create_app(site, routes),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=max(1, round(site.settings.worker.drain_s)),
        h11_max_incomplete_event_size=64 * 1024,
        ssl_context_factory=(lambda *_: server_context(tls, people=True)) if tls.enabled else None,
    )
    found = uvicorn.Server(config)
    site.stopping = lambda: found.should_exit
    return found


def serve(site: Site, say: Callable[[str], None] = lambda _: None) -> None:
    """Serve until told to stop; `say` hears the address. Raises PortInUse."""
    settings = site.settings
    telemetry.setup_logging(CONSOLE, settings.telemetry.log_level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    setup_export(CONSOLE, settings.telemetry)
    telemetry.warn_exposed(settings)
    warn_open(settings)
    with listen(settings.bind) as listening:
        metrics = telemetry.setup_metrics(settings.telemetry.metrics_bind, settings.tls)
        url = f"{'https' if settings.tls.enabled else 'http'}://{address_of(listening)}"
        running = server(site)
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again in the end: this ends with 0
            signal.signal(number, lambda *_: setattr(running, "should_exit", True))
        _announce(settings, url, metrics)
        say(f"{url}  (Ctrl-C ends it)")
        log.info("ready", extra={"url": url, "metrics": metrics})
        running.run(sockets=[listening])
    log.info("stopped")


def warn_open(settings: ConsoleSettings) -> None:
    """Certificates alone ask nobody who they are; beyond this machine the settings refuse that."""
    if settings.tls.enabled and not settings.access.on:
        log.warning("OPEN: whoever reaches console.bind %s may do everything in any name: set access", settings.bind)


def _announce(settings: ConsoleSettings, url: str, metrics: str) -> None:
    if settings.run_dir is None:
        return
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    entry = {"service": CONSOLE, "pid": os.getpid(), "grpc": url, "metrics": metrics}
    write_atomic(settings.run_dir / f"{CONSOLE}.json", json.dumps(entry).encode())
