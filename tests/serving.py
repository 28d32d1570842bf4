"""A real gRPC server beside the test, in a thread of its own: for commands that run to their end."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qrelay.config import AccessSettings, GrpcSettings, TlsSettings
from qrelay.runtime.server import GrpcServer
from tests.conftest import LONG_S


@contextmanager
def serving(
    grpc_name: str,
    add: Callable[[Any], None],
    tls: TlsSettings | None = None,
    access: AccessSettings | None = None,
) -> Iterator[str]:
    """The address of a server that `add` gave its servicer."""
    started = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        server = GrpcServer(GrpcSettings(), grpc_name, tls, access)
        add(server.raw)
        found["address"] = await server.start()
        found["stop"], found["loop"] = asyncio.Event(), asyncio.get_running_loop()
        started.set()
        await found["stop"].wait()
        await server.drain(1)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(LONG_S)
    try:
        yield found["address"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join()


def announce(data_dir: Path, service: str, address: str) -> None:
    """As a running service does."""
    folder = data_dir / "run"
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"service": service, "pid": os.getpid(), "grpc": address, "metrics": ""}
    (folder / f"{service}.json").write_text(json.dumps(entry))
