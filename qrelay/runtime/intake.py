"""How a gRPC server reads requests: none before there is room for it, none above a limit, none that does not parse.

A message has no size until it is read, so each is read only where the largest that is allowed would fit; what it
takes less is given back at once, the rest when its call is answered. Until then its bytes stay with the client, by
HTTP/2's flow control. `grpc.max_bytes_in_flight` is shared out, so that none of these can take another's room:

    a half      calls that carry items
    a third     streams, each with room for the message that it reads as long as it is open
    a sixth     everything else: health, GetInfo, states, lists, models
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final

import grpc.aio
from google.protobuf.message import DecodeError, Message

from qrelay.config import GrpcSettings
from qrelay.errors import BackendTimeout, MalformedInput, Overloaded, Oversized

_LEAST_MESSAGES: Final = 12
"""Messages that `grpc.max_bytes_in_flight` always has room for, or a sixth of it could not hold one."""
CONTROL_BYTES: Final = 4 * 1024**2
"""Bytes of a request without items: ids, a name, a condition."""
MAX_IDS: Final = 4_000
"""Ids in one request: as many of the longest (256 characters) as its bytes hold."""
_SMALL: Final = 64 * 1024
"""Bytes up to which a message cannot hold enough fields to matter."""
MAX_FIELDS: Final = 1_000_000
"""Fields of one message, nested ones included: an empty message of 2 bytes takes 50 when it is parsed."""
_VARINT: Final = 0
_BYTES: Final = 2
_FIXED: Final = {1: 8, 5: 4}
"""Wire type -> bytes of such a field."""

ServicerContext = grpc.aio.ServicerContext[Any, Any]


class Room:
    """Bytes that may be in memory at once. Who asks waits until there is room: first come, first served, but for
    who asks for none."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, amount: int) -> None:
        """Returns when `amount` is taken. Cancelled, it takes nothing."""
        if not amount:
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            self.give(0 if turn.cancelled() else amount)
            raise

    def give(self, amount: int) -> None:
        """Gives back what was taken."""
        self._free += amount
        self._admit()

    def _admit(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            amount, turn = self._waiting.popleft()
            if not turn.done():  # else cancelled
                self._free -= amount
                turn.set_result(None)


class Intake:
    """The room of one server, shared out."""

    def __init__(self, settings: GrpcSettings) -> None:
        self.settings = settings
        self.limit = settings.max_message_bytes
        total = max(settings.max_bytes_in_flight, _LEAST_MESSAGES * self.limit)
        self.items, self.streaming, self.control = Room(total // 2), Room(total // 3), Room(total // 6)
        self._streams_left = total // 3 // self.limit - 1  # the last place is for messages that are worked on

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[None]:
        """Room for the message that a stream reads, as long as it is open. Raises Overloaded: enough are."""
        if not self._streams_left:
            raise Overloaded(
                "as many streams are open as grpc.max_bytes_in_flight has room for: close one, try again later, or "
                "call without a stream"
            )
        self._streams_left -= 1
        try:
            await self.streaming.take(self.limit)
            try:
                yield
            finally:
                self.streaming.give(self.limit)
        finally:
            self._streams_left += 1


class Reader:
    """Reads the requests of one method. request: the type of a request."""

    def __init__(self, intake: Intake, request: type[Message]) -> None:
        self._intake = intake
        self._request = request
        carries_items = any(field.message_type for field in request.DESCRIPTOR.fields)
        self._room = intake.items if carries_items else intake.control
        self._limit = intake.limit if carries_items else min(intake.limit, CONTROL_BYTES)

    @asynccontextmanager
    async def one(self, context: ServicerContext) -> AsyncIterator[Any]:
        """The request of a unary call, which takes its room until the block ends.

        Raises:
            Oversized, MalformedInput: what came cannot be taken.
            BackendTimeout: it did not come within `grpc.receive_timeout_s`.
        """
        held = self._intake.limit
        await self._room.take(held)
        try:
            raw = await self._receive(context)
            self._room.give(held - len(raw))
            held = len(raw)
            request = await self._parsed(raw)
            del raw
            yield request
            del request
        finally:
            self._room.give(held)

    async def each(
        self, context: ServicerContext, held: deque[int], turn: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[Any]:
        """The requests of a stream; the bytes of those that are not answered yet are in `held`, oldest first. turn:
        comes before each but the first is parsed."""
        first = True
        while (raw := await context.read()) is not grpc.aio.EOF:
            if not first:
                await turn()
            first, size = False, len(raw)
            request = await self._parsed(raw)
            await self._intake.streaming.take(size)
            held.append(size)
            del raw
            yield request
            del request

    async def _receive(self, context: ServicerContext) -> bytes:
        seconds = self._intake.settings.receive_timeout_s
        try:
            async with asyncio.timeout(seconds):
                raw: Any = await context.read()
        except TimeoutError:
            raise BackendTimeout(
                f"the request did not arrive within grpc.receive_timeout_s ({seconds:g} s): send fewer items a call"
            ) from None
        if raw is grpc.aio.EOF:
            raise Oversized(
                f"no request, or one above grpc.max_message_bytes ({self._intake.limit}): send fewer items a call"
            )
        return bytes(raw)

    async def _parsed(self, raw: bytes) -> Any:
        if len(raw) > self._limit:
            raise Oversized(f"request of {len(raw)} bytes; {self._limit} are allowed: ask for less in one call")
        return self._parse(raw) if len(raw) <= _SMALL else await asyncio.to_thread(self._parse, raw)

    def _parse(self, raw: bytes) -> Message:
        if len(raw) > _SMALL and has_more_fields(raw, self._request.DESCRIPTOR, MAX_FIELDS):
            raise Oversized(f"request of more than {MAX_FIELDS} fields: send fewer items a call")
        try:
            return self._request.FromString(raw)
        except DecodeError:
            raise MalformedInput(
                f"the request is no {self._request.DESCRIPTOR.full_name}: use the protos of this service's version"
            ) from None


def has_more_fields(raw: bytes, message: Any, most: int) -> bool:
    """Whether the bytes of a message of this descriptor hold more than `most` fields, nested ones counted; nothing is
    parsed. What is malformed may be counted wrong.

    A field takes two bytes and its content, so bytes that are content are no fields: the count ends where the rest
    could not hold enough.
    """
    left, count, excess = [(0, len(raw), message)], 0, len(raw) - 2 * most
    try:
        while left and excess > 0:
            at, end, kind = left.pop()
            nested = _nested(kind)
            while at < end:
                count += 1
                if count > most:
                    return True
                tag = raw[at]
                tag, at = (tag, at + 1) if tag < 128 else _varint(raw, at)
                size = _FIXED.get(tag & 7, 0)
                if tag & 7 == _VARINT:
                    _, at = _varint(raw, at)
                elif tag & 7 == _BYTES:
                    size, at = _varint(raw, at)
                    if size and tag >> 3 in nested:
                        left.append((at, min(at + size, end), nested[tag >> 3]))
                    else:
                        excess -= min(size, end - at)
                        if excess <= 0:
                            return False
                at += size
    except IndexError:  # the parser refuses it
        pass
    return False


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends. Raises IndexError: it is cut off, or too long to be one."""
    value = 0
    for shift in range(0, 70, 7):
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise IndexError(at)


@cache
def _nested(message: Any) -> Mapping[int, Any]:
    """Of a message's descriptor: number -> descriptor of the fields that are messages."""
    return {field.number: field.message_type for field in message.fields if field.message_type}
