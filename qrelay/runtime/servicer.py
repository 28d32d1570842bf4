"""What every gRPC servicer shares: GetInfo, streams of its calls, and what it does with a batch: admit, translate,
compute, and answer item by item."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, ClassVar, Final, TypeVar

from google.protobuf.message import Message

from qrelay import __version__, wire
from qrelay.errors import QrelayError
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.dead_letters import query_of
from qrelay.runtime.gathering import Computed
from qrelay.runtime.server import answer_stream
from qrelay.runtime.stage import Info
from qrelay.runtime.trace import closed, is_open
from qrelay.runtime.translate import item_error
from qrelay.security.expiry import valid_until
from qrelay.settings.secrets import masked
from qrelay.types import TraceStep
from qrelay.v1 import service_info_pb2 as pb

ON_HOLD: Final = "on hold"
"""The detail of GetInfo that says what a service waits for."""
INSECURE: Final = "insecure"
"""The detail of GetInfo that says what leaves this machine in plain text."""

CERTIFICATE: Final = "certificate"
"""The detail of GetInfo that says until when the service's certificate holds."""

Result = TypeVar("Result")
Response = TypeVar("Response")


class Servicer:
    """The part of a service's gRPC servicer that is the same in all. info_response: the type of GetInfo's answer."""

    info_response: ClassVar[Callable[..., Any]]

    def __init__(self, context: ServiceContext[Any, Any]) -> None:
        self._context = context

    async def GetInfo(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802  gRPC's names
        """What the core says of itself, and how far the service is before that."""
        return self.info_response(info=service_info(self._context))


async def streamed(
    requests: AsyncIterator[Any],
    call: Callable[[Any, Any], Awaitable[Any]],
    wrap: Callable[..., Response],
    context: Any,
) -> AsyncIterator[Response]:
    """The unary `call` for request after request of a stream; `wrap`: the type of the stream's responses."""

    async def answer(request: Any) -> Response:
        return wrap(response=await call(request.request, context))

    async for response in answer_stream(requests, answer):
        yield response


async def answer_items(
    context: ServiceContext[Any, Any],
    items: Sequence[Message],
    compute: Callable[[list[Any]], Awaitable[Computed]],
    wrap: Callable[[Any], Result],
    refuse: Callable[[pb.ItemError], Result],
    read: Callable[[Any], Any] = wire.from_proto,
) -> list[Result]:
    """One result for each item, in order. An item that fails gets `refuse(ItemError)`; the others continue.

    `compute` takes the records of the readable items and answers each with a value or a QrelayError: `Calls.answer`,
    or `computed` where calls are not batched together. `read` makes a record of an item, or what the core takes for
    one.
    """
    with context.admission.hold(len(items)):
        arrived = time.monotonic()
        records = [_record(item, read) for item in items]
        readable = [record for record in records if not isinstance(record, QrelayError)]
        found = await compute(readable) if readable else Computed((), arrived, 0.0)
        step = TraceStep(context.service, context.replica, "", max(0.0, found.began - arrived), found.seconds)
        answers = iter(found.answers)
        results = []
        for record in records:
            answer = record if isinstance(record, QrelayError) else next(answers)
            try:
                if isinstance(answer, QrelayError):
                    raise answer
                results.append(wrap(closed(answer, step) if is_open(answer, context.service) else answer))
            except QrelayError as error:  # of the item, or of an answer that no message can hold
                error.__traceback__ = None  # its frames hold the whole request, in a circle
                query_id = "" if isinstance(record, QrelayError) else query_of(record).query_id
                results.append(refuse(item_error(error, query_id)))
        return results


def _record(item: Message, read: Callable[[Any], Any]) -> Any:
    try:
        return read(item)
    except QrelayError as error:
        return error


def service_info(context: ServiceContext[Any, Any]) -> pb.ServiceInfo:
    """GetInfo's answer: what the core says of itself once it is loaded, and how far the service is before that."""
    info = context.core.info() if context.loaded else Info()
    state = pb.SERVICE_STATE_READY if context.loaded else pb.SERVICE_STATE_PREPARING
    answer = pb.ServiceInfo(
        service=context.service,
        version=__version__,
        replica=context.replica,
        models=masked(info.models),
        details=masked(
            {
                **info.details,
                **{f"stalled.{stage}": why for stage, why in context.stalled.items()},
                **({INSECURE: "; ".join(exposed)} if (exposed := context.settings.exposed) else {}),
                **({CERTIFICATE: until} if (until := valid_until(context.settings.tls)) else {}),
                **({ON_HOLD: "; ".join(map(str, holds))} if (holds := context.holds()) else {}),
            }
        ),
        state=state,
    )
    if step := context.preparation.current:
        preparation = pb.Preparation(
            step=step.name, done=step.done, total=step.total, unit=step.unit, idle_s=context.preparation.idle_s
        )
        answer.preparation.CopyFrom(preparation)
    return answer
