"""A server of the queues that offers no TLS where the URL asks for it gets nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats.errors
import pytest

from qrelay.config import NatsSettings, Transport
from qrelay.runtime.natsclient import QueueClient, options_of
from qrelay.runtime.natsserver import NatsServer
from qrelay.security.certs import PERSON, authority, issue

INFO = b'INFO {"server_id":"x","version":"2.11.0","max_payload":1048576,"tls_available":true}\r\n'


async def test_a_server_that_offers_no_tls_is_sent_nothing_at_any_connection(tmp_path: Path) -> None:
    heard: list[bytes] = []
    connections = asyncio.Queue[None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO)
        await writer.drain()
        heard.append(await reader.read())
        writer.close()
        connections.put_nowait(None)

    said = asyncio.Queue[Exception]()
    tls = issue(tmp_path / "ana", authority(tmp_path / "ca"), f"{PERSON}ana")
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        options = options_of(NatsSettings(url=url).by(Transport(tls)), "test") | {"reconnect_time_wait": 0}
        client = QueueClient()
        connecting = asyncio.ensure_future(client.connect(**options, error_cb=said.put))
        for _ in range(3):
            with pytest.raises(nats.errors.Error, match="offers no TLS"):
                raise await said.get()
            await connections.get()
        connecting.cancel()
        await client.close()
    assert set(heard) == {b""}


async def test_plain_text_is_spoken_where_the_url_asks_for_it(tmp_path: Path) -> None:
    server, client = NatsServer(tmp_path), QueueClient()
    server.start()
    try:
        await client.connect(**options_of(NatsSettings(url=server.url), "test"))
        assert client.is_connected
    finally:
        await client.close()
        server.stop()
