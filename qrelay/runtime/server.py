"""The gRPC server: health, reflection, limits, deadlines, errors. Servicers add only their RPCs.

Health: the service's full gRPC name answers whether calls are served (the model is loaded); the service name ""
answers readiness, for which every stage must get on with its queues too; "liveness" answers whether the process
serves at all, whatever NATS and the model do.

Every QrelayError that leaves a handler becomes a google.rpc.Status with ErrorInfo (see translate.py).
A call without a deadline gets `grpc.default_deadline_s`; work for a call that was cancelled is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_interceptor.server import AsyncServerInterceptor
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry import trace

from qrelay.config import GrpcSettings
from qrelay.errors import BackendTimeout, Oversized, PortInUse, QrelayError
from qrelay.runtime import telemetry
from qrelay.runtime.translate import as_qrelay_error, rich_status, status_code

log = logging.getLogger(__name__)

LIVENESS: Final = "liveness"
_TRANSPORT_FACTOR: Final = 2
"""gRPC's own receive limit, above ours: so that a request somewhat too large gets our words and details."""
_STREAM_AHEAD: Final = 4
"""Requests of one stream that are worked on at once; beyond, the client's window fills: back-pressure."""

ServicerContext = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")


class Guard(AsyncServerInterceptor):  # type: ignore[misc]
    """Size check, deadline, trace context, metrics and error translation around every RPC."""

    def __init__(self, settings: GrpcSettings) -> None:
        self._settings = settings

    async def intercept(
        self,
        method: Callable[[Any, ServicerContext], Any],
        request_or_iterator: Any,
        context: ServicerContext,
        method_name: str,
    ) -> Any:
        """One call. Streaming responses come back as an async iterator; unary ones are awaited here."""
        if method_name.startswith("/grpc."):  # health and reflection keep their own behaviour
            return await _plain(method(request_or_iterator, context))
        response = method(request_or_iterator, context)
        if hasattr(response, "__aiter__"):
            return self._stream(response, context, method_name)
        return await self._unary(response, request_or_iterator, context, method_name)

    async def _unary(self, response: Awaitable[Any], request: Any, context: ServicerContext, name: str) -> Any:
        started = time.monotonic()
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        try:
            with telemetry.tracer().start_as_current_span(
                name, context=telemetry.remote_context(metadata), kind=trace.SpanKind.SERVER
            ):
                self._check_size(request, response)
                async with asyncio.timeout(context.time_remaining() or self._settings.default_deadline_s):
                    result = await response
            telemetry.GRPC_CALLS.labels(name, "OK").inc()
            return result
        except TimeoutError:
            await _abort(context, BackendTimeout(f"{name}: not answered within the call's deadline"), name)
        except Exception as error:
            await _abort(context, as_qrelay_error(error), name)
        finally:
            telemetry.GRPC_SECONDS.labels(name).observe(time.monotonic() - started)

    async def _stream(self, responses: AsyncIterator[Any], context: ServicerContext, name: str) -> AsyncIterator[Any]:
        try:
            async for response in responses:
                yield response
            telemetry.GRPC_CALLS.labels(name, "OK").inc()
        except Exception as error:
            await _abort(context, as_qrelay_error(error), name)

    def _check_size(self, request: Any, response: Awaitable[Any]) -> None:
        size, limit = request.ByteSize(), self._settings.max_message_bytes
        if size > limit:
            response.close()  # type: ignore[attr-defined]
            raise Oversized(f"request of {size} bytes; grpc.max_message_bytes is {limit}: send fewer items a call")


async def _plain(response: Any) -> Any:
    return response if hasattr(response, "__aiter__") else await response


async def _abort(context: ServicerContext, error: QrelayError, name: str) -> NoReturn:
    telemetry.GRPC_CALLS.labels(name, status_code(error).name).inc()
    status = rpc_status.to_status(rich_status(error))
    await context.abort(status.code, status.details, status.trailing_metadata)


async def answer_stream(
    requests: AsyncIterator[Request], answer: Callable[[Request], Awaitable[Response]]
) -> AsyncIterator[Response]:
    """Answers in order, reading ahead while earlier requests are worked on: with one thing at a time, a
    client that writes before it reads would deadlock on a full window."""
    pending: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue(_STREAM_AHEAD)

    async def read() -> None:
        try:
            async for request in requests:
                await pending.put(asyncio.ensure_future(answer(request)))
        finally:
            await pending.put(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await pending.get()) is not None:
            yield await task
        await reader
    finally:
        reader.cancel()
        while not pending.empty():
            if (left := pending.get_nowait()) is not None:
                left.cancel()


class GrpcServer:
    """One service's gRPC server. `ready` flips readiness; `drain` ends it in order."""

    def __init__(self, settings: GrpcSettings, grpc_name: str) -> None:
        self._grpc_name = grpc_name
        self._bind = settings.bind
        self._server = grpc.aio.server(
            interceptors=[Guard(settings)],
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes * _TRANSPORT_FACTOR),
                ("grpc.max_send_message_length", settings.max_message_bytes * _TRANSPORT_FACTOR),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (
            grpc_name,
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(names, self._server)

    @property
    def raw(self) -> grpc.aio.Server:
        """The server to add servicers to, before `start`."""
        return self._server

    async def start(self) -> str:
        """Listen; alive, not ready. Returns the address bound as host:port.

        Raises:
            PortInUse: the address is taken.
        """
        host, _, port = self._bind.rpartition(":")
        try:
            bound = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise PortInUse(
                f"grpc.bind {self._bind} cannot be used: stop what listens there, or take port 0"
            ) from error
        await self.ready(False)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        return f"{host}:{bound}"

    async def ready(self, is_ready: bool, *, stalled: bool = False) -> None:
        """Answer readiness from now on. `stalled`: calls are served and a stage gets nowhere."""
        state = health_pb2.HealthCheckResponse
        for name, answer in (("", is_ready and not stalled), (self._grpc_name, is_ready)):
            await self._health.set(name, state.SERVING if answer else state.NOT_SERVING)
        telemetry.READY.set(int(is_ready and not stalled))

    async def drain(self, grace_s: float) -> None:
        """Finish running calls within `grace_s` seconds, then stop."""
        await self._server.stop(grace_s)
