"""Milvus Lite as a server in this process, and settings that name it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qrelay.index.milvus.settings import MilvusSettings


@contextmanager
def lite_server(folder: Path) -> Iterator[MilvusSettings]:
    """While it lasts, Milvus Lite answers on a port of its own; what it keeps is in `folder`."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(folder))
    try:
        yield MilvusSettings(uri=f"http://127.0.0.1:{port}", index="FLAT", batch_rows=128, timeout_s=60)
    finally:
        server.stop(None).wait()
        database.close()
