"""Many items through one stream, answered in order, with a bounded number in flight.

    items ──► puller ──► requests (unanswered, in order) ──► writer ──► stream ──► reader ──► answers
                 ▲                                                                  │
                 └────────────── room: as many items as the service answers well within the deadline

Where the stream breaks, or is refused, the first request without an answer goes by itself, until it has one; then a
new stream gets the others. (By itself, because gRPC's asyncio loses a stream's status where a write meets its end:
https://github.com/grpc/grpc/issues/36066.) So does the only request of a flow. The answer of an item is its record or
its error: one bad item fails no other.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final, Generic, TypeVar

import grpc.aio

from qrelay.client.methods import Method
from qrelay.client.patience import Patience
from qrelay.client.requests import Request, packed
from qrelay.errors import (
    BackendTimeout,
    BackendUnavailable,
    InternalError,
    InvalidQuery,
    MalformedInput,
    Oversized,
    QrelayError,
    TransientError,
)
from qrelay.runtime.telemetry import trace_context

Answer = TypeVar("Answer")

_REQUESTS: Final = 6
"""In flight at most: a service works on four of a stream at once, and one is on its way each way."""
_MOST_ALONE: Final = 64
"""Requests that go by themselves before another stream is tried: a service has room for few streams at once."""
_QUICK: Final = 1 / 8
_SLOW: Final = 1 / 3
"""Shares of the deadline: an answer within the first makes room for twice as many items, one beyond the second halves
it."""
_LOST_STATUS: Final = "Internal error from Core"
_OF_AN_ITEM: Final = (Oversized, MalformedInput, InvalidQuery)
"""What a service says of a request, and not of itself."""


class _AgainError(Exception):
    """What is unanswered is to be asked for on a new stream, after a pause. why: for people."""

    def __init__(self, why: TransientError) -> None:
        super().__init__(str(why))
        self.why = why


class Flow(Generic[Answer]):
    """See the module. One use: iterate `batches` once."""

    def __init__(self, method: Method[Answer], patience: Patience, batches: AsyncIterator[Sequence[Any]]) -> None:
        """batches: of records for the call; a QrelayError among them is its own answer."""
        self._method, self._patience, self._source = method, patience, batches
        self._requests: deque[Request] = deque()
        self._sent = 0
        self._ended = False
        self._failure: BaseException | None = None
        self._room = method.begin
        self._alone, self._next_alone = 0, 1
        self._changed = asyncio.Event()

    async def batches(self) -> AsyncGenerator[list[Answer | QrelayError], None]:
        """The answers, in the order of the items, a few at a time.

        Raises:
            QrelayError: the service cannot be asked; what it says of one item is that item's answer.
        """
        puller = asyncio.create_task(self._pull())
        try:
            while await self._more():
                by_itself = self._alone or (self._ended and len(self._requests) == 1)
                async with aclosing(self._unary() if by_itself else self._until_broken()) as answered:
                    async for answers in answered:
                        yield answers
            if self._failure:
                raise self._failure
        finally:
            puller.cancel()
            with suppress(asyncio.CancelledError):
                await puller

    # -- items to requests

    async def _pull(self) -> None:
        try:
            async for batch in self._source:
                most = max(1, min(self._method.items, self._room // 2))
                for request in packed(batch, most):
                    await self._until_room()
                    self._requests.append(request)
                    self._tell()
        except Exception as error:
            self._failure = error
        finally:
            self._ended = True
            self._tell()

    async def _until_room(self) -> None:
        while self._requests and (
            len(self._requests) >= _REQUESTS or sum(len(each.answers) for each in self._requests) >= self._room
        ):
            await self._changed.wait()

    async def _more(self) -> bool:
        """Whether a request is there to be answered, once that is known."""
        while not self._requests and not self._ended:
            await self._changed.wait()
        return bool(self._requests)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # -- requests to answers

    async def _stream(self) -> AsyncGenerator[list[Any], None]:
        """Answers of one stream, until the items end. Raises _AgainError: it broke, and can be begun anew."""
        try:
            address, stub = self._patience.places.stub(self._method.service)
        except BackendUnavailable as error:
            raise _AgainError(error) from error
        call = getattr(stub, self._method.name)(metadata=trace_context())
        self._sent = 0
        writer = asyncio.create_task(self._write(call))
        try:
            while await self._more():
                request = self._requests[0]
                if request.messages:
                    await self._read(call, address, request)
                yield self._done()
            with suppress(TimeoutError):  # so that it ends well on the other side; all is answered
                await asyncio.wait_for(call.code(), self._patience.timeout_s)
        finally:
            writer.cancel()
            call.cancel()

    async def _until_broken(self) -> AsyncGenerator[list[Any], None]:
        """Answers of one stream. Where it breaks, some requests go by themselves before another is begun: the more,
        the more streams in a row broke before they had an answer."""
        try:
            async with aclosing(self._stream()) as stream:
                async for answers in stream:
                    self._next_alone = 1
                    yield answers
        except _AgainError:
            self._alone, self._next_alone = self._next_alone, min(2 * self._next_alone, _MOST_ALONE)

    async def _unary(self) -> AsyncGenerator[list[Any], None]:
        """The answers of the first request, by a call of its own, tried again where that may help."""
        failures = 0
        while self._requests[0].messages:
            try:
                await self._ask(self._requests[0])
            except _AgainError as again:
                failures = await self._patience.pause(self._method.service, again.why, failures)
        self._alone = max(0, self._alone - 1)
        yield self._done()

    async def _ask(self, request: Request) -> None:
        """Take the answer to a call of its own. Raises _AgainError, or the service's error."""
        asked, began = self._method.request(request.messages), time.monotonic()
        name = self._method.name.removeprefix("Stream")
        try:
            answer = await self._patience.ask(self._method.service, name, asked.request)
        except QrelayError as error:
            raise self._broken(error, request) from error
        self._adapt(time.monotonic() - began)
        self._take(request, answer.results)

    def _done(self) -> list[Any]:
        """The answers of the first request, which is over."""
        request = self._requests.popleft()
        self._sent = max(0, self._sent - 1)  # one without messages may not have been passed yet
        self._tell()
        return request.answers

    async def _write(self, call: Any) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reader hears why
            while (request := await self._unsent()) is not None:
                if request.messages:
                    await call.write(self._method.request(request.messages))
            await call.done_writing()

    async def _unsent(self) -> Request | None:
        while self._sent >= len(self._requests):
            if self._ended:
                return None
            await self._changed.wait()
        request = self._requests[self._sent]
        self._sent += 1
        request.sent_at = time.monotonic()
        return request

    async def _read(self, call: Any, address: str, request: Request) -> None:
        """Take the answer to the first request. Raises _AgainError, or the service's error."""
        service = self._method.service
        try:
            async with asyncio.timeout(self._patience.timeout_s):
                answer = await call.read()
        except TimeoutError:
            raise self._patience.late(service, address) from None
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INTERNAL and _LOST_STATUS in (error.details() or ""):
                raise _AgainError(BackendUnavailable(f"{address} ended a stream")) from error
            raise self._broken(self._patience.error(service, address, error), request) from error
        if answer is grpc.aio.EOF:
            raise _AgainError(BackendUnavailable(f"the {service} at {address} ended a stream without an answer"))
        self._adapt(time.monotonic() - request.sent_at)
        self._take(request, answer.response.results)

    def _broken(self, error: QrelayError, request: Request) -> Exception:
        """What follows from a call's end while this request was the first without an answer."""
        if isinstance(error, _OF_AN_ITEM):
            self._blame(request, error)
            return _AgainError(BackendUnavailable(str(error)))  # for the others
        if isinstance(error, TransientError) and not isinstance(error, BackendTimeout):
            return _AgainError(error)
        return error

    def _answer(self, result: Any) -> Any:
        try:
            return self._method.answer(result)
        except QrelayError as error:
            return error

    def _take(self, request: Request, results: Sequence[Any]) -> None:
        """Raises _AgainError: an item failed in a way that may pass, and is to be asked for again."""
        found = [self._answer(each) for each in results]
        if len(found) != len(request.messages):
            raise InternalError(
                f"a {self._method.service} gave {len(found)} answers to {len(request.messages)} items"
            )
        passing = [each for each in found if isinstance(each, TransientError)]
        request.failures += 1
        if not passing or request.failures >= self._patience.attempts:
            request.take(found)
            return
        messages = [m for m, each in zip(request.messages, found, strict=True) if isinstance(each, TransientError)]
        request.take([None if isinstance(each, TransientError) else each for each in found])
        request.messages = messages
        raise _AgainError(passing[0])

    def _blame(self, request: Request, error: QrelayError) -> None:
        """The request was refused whole: its item is to blame or, of several, each is asked for alone."""
        if len(request.messages) == 1:
            request.take([error])
            return
        self._requests.popleft()
        self._requests.extendleft(reversed(request.divided()))

    def _adapt(self, seconds: float) -> None:
        """More items in flight where answers come quickly, fewer where they take long."""
        if seconds <= _QUICK * self._patience.timeout_s:
            self._room = min(2 * self._room, _REQUESTS * self._method.items)
        elif seconds >= _SLOW * self._patience.timeout_s:
            self._room = max(1, self._room // 2)
