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
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry import trace
from opentelemetry.context import Context

from qrelay.config import AccessSettings, GrpcSettings, TlsSettings
from qrelay.errors import AccessError, BackendTimeout, Oversized, PortInUse, QrelayError, RateExceeded
from qrelay.runtime import telemetry
from qrelay.runtime.callers import admitted, count
from qrelay.runtime.health import PROBES, Health, checks_alone
from qrelay.runtime.intake import Intake, Reader, ServicerContext
from qrelay.runtime.translate import as_qrelay_error, rich_status, status_code
from qrelay.security.access import HEADER, Gate, bearer_of
from qrelay.security.identity import ANYBODY, Principal, acting
from qrelay.security.roles import OPEN, RPCS, require_rpc
from qrelay.security.tls import server_credentials

log = logging.getLogger(__name__)

LIVENESS: Final = "liveness"
_PUSHBACK: Final = "grpc-retry-pushback-ms"
"""Says to gRPC's own retries when to call again."""
_UNTAKEN_S: Final = 2**31 - 1
"""Seconds that a call waits to be taken up: its own deadline ends it. gRPC drops it after 30, as CANCELLED, which a
process that stood still so long (on a starved or suspended machine) would answer to callers who cancelled nothing."""
_UNTAKEN_CALLS: Final = 8
"""Times `grpc.max_calls` that may wait to be taken up, about 13 KB each; only beyond does gRPC drop calls, as
CANCELLED. Its own limits begin at 1,000."""
_WATCHED: Final = 8
"""Of so many calls at once, one may watch health, for as long as it likes."""
_STREAM_AHEAD: Final = 4
"""Requests of one stream that are worked on at once; beyond, the client's window fills: back-pressure."""

_PACE_S: Final = 1.0
"""Seconds for which a stream's message may wait for its caller's rate."""

Request = TypeVar("Request")
Response = TypeVar("Response")


class Guard(grpc.aio.ServerInterceptor):
    """Who may call, limits, deadline, trace context, metrics and error translation around every RPC.

    Each method is served as one that takes a stream of bytes, which is the same on the wire: so that a request is
    read once there is room for it, and measured before it is parsed (see `intake.py`).
    """

    def __init__(self, settings: GrpcSettings, gate: Gate) -> None:
        self._settings, self._gate = settings, gate
        self._intake = Intake(settings)

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The method's handler with everything around it; None: there is no such method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        call = _Method(
            handler_call_details.method,
            Reader(self._intake, handler.request_deserializer.__self__),
            handler.unary_unary or handler.unary_stream or handler.stream_stream,
            handler.response_serializer,
        )
        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(partial(self._unary, call))
        answers = self._streamed if handler.request_streaming else self._listed
        return grpc.stream_stream_rpc_method_handler(
            partial(self._stream, call, answers), response_serializer=partial(_once, call.serialize)
        )

    async def _unary(self, method: _Method, _: Any, context: ServicerContext) -> bytes:
        started = time.monotonic()
        try:
            with telemetry.span(method.name, _remote(context), trace.SpanKind.SERVER):
                async with asyncio.timeout(context.time_remaining() or self._settings.default_deadline_s):
                    await self._admit(method, context)
                    async with method.reader.one(context) as request:
                        answer = self._serialized(method, await method.behavior(request, context))
            method.count("OK")
            return answer
        except TimeoutError:
            await _abort(context, BackendTimeout(f"{method.name}: not answered within the call's deadline"), method)
        except Exception as error:
            await _abort(context, as_qrelay_error(error), method)
        finally:
            if method.counted:
                telemetry.GRPC_SECONDS.labels(method.name).observe(time.monotonic() - started)

    async def _stream(
        self, method: _Method, answers: Callable[..., AsyncIterator[Any]], _: Any, context: ServicerContext
    ) -> AsyncIterator[bytes]:
        # Not the current span: an iterator that is left is closed in another context, which cannot take it back.
        span = telemetry.tracer().start_span(method.name, context=_remote(context), kind=trace.SpanKind.SERVER)
        try:
            await self._admit(method, context)
            async for answer in answers(method, context):
                yield self._serialized(method, answer)
            method.count("OK")
        except Exception as error:
            await _abort(context, as_qrelay_error(error), method)
        finally:
            span.end()

    async def _admit(self, method: _Method, context: ServicerContext) -> None:
        """Notes who calls, before anything of the request is read. Raises AccessError, RateExceeded: they may not."""
        caller: Principal | None = None
        try:
            if RPCS.get(method.name, not OPEN) is OPEN:
                return
            header = next((value for key, value in context.invocation_metadata() or () if key == HEADER), "")
            bearer = bearer_of(str(header))
            caller = await admitted(self._gate, context.auth_context(), bearer, context.peer())
            if caller is not ANYBODY:
                require_rpc(caller, method.name)
            acting.set(caller)
        except AccessError as error:
            telemetry.denied(caller, method.name, error, context.peer())
            raise

    async def _listed(self, method: _Method, context: ServicerContext) -> AsyncIterator[Any]:
        """Many answers to one request."""
        async with method.reader.one(context) as request:
            answers = method.behavior(request, context)
            if not hasattr(answers, "__aiter__"):  # it writes to the context itself, as health's Watch does
                await answers
                return
            async for answer in answers:
                yield answer

    async def _streamed(self, method: _Method, context: ServicerContext) -> AsyncIterator[Any]:
        """One answer to each of many requests, in order."""
        unanswered: deque[int] = deque()
        room = self._intake.streaming
        async with self._intake.stream():
            try:
                asked = method.reader.each(context, unanswered, partial(self._turn, context))
                async for answer in method.behavior(asked, context):
                    room.give(unanswered.popleft())
                    yield answer
            finally:
                room.give(sum(unanswered))

    async def _turn(self, context: ServicerContext) -> None:
        """A stream's next message counts as a call, and waits a moment for its turn, for a refusal ends the stream.
        Raises RateExceeded: for longer."""
        if wait_s := count(self._gate, acting.get() or ANYBODY, context.peer(), _PACE_S):
            await asyncio.sleep(wait_s)

    def _serialized(self, method: _Method, answer: Any) -> bytes:
        data, limit = method.serialize(answer), self._settings.max_message_bytes
        if len(data) > limit:
            raise Oversized(
                f"answer of {len(data)} bytes; grpc.max_message_bytes is {limit}: ask for less in one call"
            )
        return data


@dataclass(frozen=True, slots=True)
class _Method:
    """One RPC as its servicer has it: reads requests, answers, and serialises the answers."""

    name: str
    reader: Reader
    behavior: Callable[[Any, ServicerContext], Any]
    serialize: Callable[[Any], bytes]

    @property
    def counted(self) -> bool:
        """Whether metrics tell of it: not of health and reflection."""
        return not self.name.startswith("/grpc.")

    def count(self, code: str) -> None:
        """One call more that ended so."""
        if self.counted:
            telemetry.GRPC_CALLS.labels(self.name, code).inc()


def _remote(context: ServicerContext) -> Context:
    """The trace context of the caller, as a call's metadata has it."""
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    return telemetry.remote_context(metadata)


def _once(serialize: Callable[[Any], bytes], answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else serialize(answer)


async def _abort(context: ServicerContext, error: QrelayError, method: _Method) -> NoReturn:
    method.count(status_code(error).name)
    status = rpc_status.to_status(rich_status(error))
    metadata = tuple(status.trailing_metadata)
    if isinstance(error, RateExceeded):
        metadata += ((_PUSHBACK, str(math.ceil(1000 * (error.retry_after_s or 0)))),)
    await context.abort(status.code, status.details, metadata)


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

    def __init__(
        self,
        settings: GrpcSettings,
        grpc_name: str,
        tls: TlsSettings | None = None,
        access: AccessSettings | None = None,
    ) -> None:
        """tls: with certificates, clients have to show theirs; None: plain text. access: None: in plain text nobody
        is asked who they are. Raises ConfigError: the file of tokens cannot be read."""
        self._grpc_name = grpc_name
        self._bind, self._tls = settings.bind, tls or TlsSettings()
        self._probes: grpc.aio.Server | None = None
        self.probes = ""
        """host:port that answers probes in plain text; "" where there is none."""
        untaken = _UNTAKEN_CALLS * settings.max_calls
        self._server = grpc.aio.server(
            interceptors=[Guard(settings, Gate(access or AccessSettings(), grpc_name))],
            maximum_concurrent_rpcs=settings.max_calls,
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),  # `Guard` measures answers
                ("grpc.so_reuseport", 0),
                ("grpc.server_max_unrequested_time_in_server", _UNTAKEN_S),
                ("grpc.server.max_pending_requests", untaken),
                ("grpc.server.max_pending_requests_hard_limit", untaken),
                ("grpc.http2.bdp_probe", 0),  # or what is not read yet may be megabytes of each call
            ],
        )
        self._health = Health(max(1, settings.max_calls // _WATCHED))
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
            ConfigError: the certificate's files do not hold.
        """
        credentials = server_credentials(self._tls) if self._tls.enabled else None
        bound = _listen(self._server, self._bind, "grpc.bind", credentials)
        await self.ready(False)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        if self._tls.probe_bind:
            self._probes = grpc.aio.server(maximum_concurrent_rpcs=PROBES)
            self._probes.add_generic_rpc_handlers((checks_alone(self._health),))
            self.probes = _listen(self._probes, self._tls.probe_bind, "tls.probe_bind", None)
            await self._probes.start()
        return bound

    async def ready(self, is_ready: bool, *, stalled: bool = False) -> None:
        """Answer readiness from now on. `stalled`: calls are served and a stage gets nowhere."""
        state = health_pb2.HealthCheckResponse
        for name, answer in (("", is_ready and not stalled), (self._grpc_name, is_ready)):
            await self._health.set(name, state.SERVING if answer else state.NOT_SERVING)
        telemetry.READY.set(int(is_ready and not stalled))

    async def drain(self, grace_s: float) -> None:
        """Finish running calls within `grace_s` seconds, then stop."""
        await self._server.stop(grace_s)
        if self._probes:
            await self._probes.stop(0)


def _listen(server: grpc.aio.Server, bind: str, setting: str, credentials: grpc.ServerCredentials | None) -> str:
    """The address bound. Raises PortInUse."""
    host = bind.rpartition(":")[0]
    try:
        if credentials:
            return f"{host}:{server.add_secure_port(bind, credentials)}"
        return f"{host}:{server.add_insecure_port(bind)}"
    except RuntimeError as error:
        raise PortInUse(f"{setting} {bind} cannot be used: stop what listens there, or take port 0") from error
