"""What stands around every request: its origin, its body and its size, its end, and the headers of its answer.

A body is read whole before anything parses it: once there is room for it, within `grpc.receive_timeout_s`, and no
more of it than its kind may have. A client that goes away cancels what was done for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qrelay.errors import BackendTimeout, MalformedInput, Overloaded, Oversized
from qrelay.runtime.intake import Room
from qrelay.web.errors import problem
from qrelay.web.pages import refusal
from qrelay.web.security import HEADERS, count_request, is_json, refuse_foreign, refuse_forged
from qrelay.web.settings import ConsoleSettings

HEALTH: Final = "/health"
"""Is answered however many requests are."""
_SHARE: Final = 2
"""A half of `grpc.max_bytes_in_flight` is for bodies, as for calls with items over gRPC."""


class Guard:
    """See the module. An ASGI application around another."""

    def __init__(self, app: ASGIApp, settings: ConsoleSettings) -> None:
        self._app, self._settings = app, settings
        self._limits = settings.grpc
        self._room = Room(max(settings.grpc.max_bytes_in_flight // _SHARE, settings.grpc.max_message_bytes))
        self._calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; a lifespan's messages pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._calls += 1
        try:
            await self._answer(scope, receive, _with_headers(send))
        finally:
            self._calls -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection, asked = HTTPConnection(scope), False
        try:
            refuse_foreign(scope["method"], connection.headers, self._settings.hosts)
            if scope["path"] != HEALTH:
                self._admit()
                await count_request(connection)
            limit = self._limit(connection)
            async with self._held(_declared(connection, limit), receive, limit) as body:
                refuse_forged(scope["method"], connection, body)
                asked = True
                await _unless_gone(self._app, scope, body, receive, send)
        except Exception as error:
            if asked:  # the application answers every error of its own, but for what breaks an answer off
                raise
            await refusal(connection, problem(error))(scope, receive, send)

    @asynccontextmanager
    async def _held(self, held: int, receive: Receive, limit: int) -> AsyncIterator[bytes]:
        """The body, read once there is room for `held` bytes; what it takes less is given back at once, the rest in
        the end. Raises Overloaded: there is no room for a whole deadline; and as `_body`."""
        try:
            async with asyncio.timeout(self._limits.default_deadline_s):
                await self._room.take(held)
        except TimeoutError:
            raise Overloaded("other requests' bodies take all of grpc.max_bytes_in_flight: try again later") from None
        try:
            body = await self._body(receive, limit)
            self._room.give(held - len(body))
            held = len(body)
            yield body
        finally:
            self._room.give(held)

    def _admit(self) -> None:
        if self._calls > self._limits.max_calls:
            raise Overloaded(
                f"{self._limits.max_calls} requests (grpc.max_calls) are being answered: try again later"
            )

    def _limit(self, connection: HTTPConnection) -> int:
        """Bytes that the body may have."""
        return self._limits.max_message_bytes if is_json(connection.headers) else self._settings.max_form_bytes

    async def _body(self, receive: Receive, limit: int) -> bytes:
        """The whole body. Raises Oversized, BackendTimeout, MalformedInput."""
        seconds, body = self._limits.receive_timeout_s, bytearray()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise MalformedInput("the client went away before its body was there")
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise Oversized(f"a body of more than {limit} bytes: send less in one request")
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            raise BackendTimeout(
                f"the body did not arrive within grpc.receive_timeout_s ({seconds:g} s): send less in one request"
            ) from None


def _declared(connection: HTTPConnection, limit: int) -> int:
    """Bytes that the body has by its header, and the most that it may have where it comes in chunks.

    Raises:
        MalformedInput, Oversized: no number, or too large a one.
    """
    if "transfer-encoding" in connection.headers:
        return limit
    text = connection.headers.get("content-length", "0")
    if not text.isdecimal() or len(text) > 18:
        raise MalformedInput(f"content-length {text[:40]!r} is no number of bytes")
    if int(text) > limit:
        raise Oversized(f"a body of {int(text)} bytes; {limit} are allowed: send less in one request")
    return int(text)


def _with_headers(send: Send) -> Send:
    """Adds what every answer says to a browser; pages and JSON stay in no cache."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sending


async def _unless_gone(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """The application's answer, cancelled when the client goes away."""
    gone = asyncio.ensure_future(_disconnected(receive))
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        if messages:
            return messages.pop()
        await asyncio.shield(gone)
        return {"type": "http.disconnect"}

    answering = asyncio.ensure_future(_awaited(app(scope, receiving, send)))
    try:
        await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            answering.result()
    finally:
        await _end(answering)
        await _end(gone)


async def _awaited(call: Awaitable[None]) -> None:
    await call


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(task: asyncio.Future[None]) -> None:
    """Cancels what still runs, and waits for its end."""
    task.cancel()
    await asyncio.wait({task})
