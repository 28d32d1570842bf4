"""What a service is to the runtime: a core, stages that the queue drives, and a gRPC servicer.

The core computes on records and knows neither gRPC nor NATS. A `Stage` adapts it to the queue; a
servicer adapts it to gRPC; a `ServiceDef` names the parts so that `qrelay.runtime.service` can run them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from qrelay.config import ServiceSettings
from qrelay.errors import QrelayError
from qrelay.runtime.topology import Queue
from qrelay.types import CandidateSet, DeadLetter, JudgedSet, Query

Record = Query | CandidateSet | JudgedSet | DeadLetter
I_contra = TypeVar("I_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Work:
    """One message for a stage: its record, which delivery this is (from 1), and whether it is the last
    before the dead letters. A stage may settle for less on the last attempt, never lose the item."""

    record: Any
    attempt: int = 1
    last_attempt: bool = False


class Stage(Protocol):
    """One service's work on one queue.

    `handle` answers each item, in order, with the record to publish on `target`, None where there is
    nothing to publish (the last stage), or this item's own error. An exception raised
    instead befalls the whole batch, whose items are then tried one by one.
    """

    @property
    def name(self) -> str:
        """The stage's name in metrics, traces and dead letters."""

    @property
    def source(self) -> Queue:
        """Where its input comes from."""

    @property
    def target(self) -> Queue | None:
        """Where its output goes; None at the end of the line."""

    def read(self, message: Any) -> Any:
        """The record that `handle` gets, from the queue's protobuf message: `wire.from_proto`, or a form of the
        stage's own that has a `query`."""

    def cost(self, record: Any) -> int:
        """What the item adds to a batch, in the stage's own unit (tokens, candidates)."""

    async def handle(self, works: Sequence[Work]) -> Sequence[Record | QrelayError | None]:
        """Work on one batch."""


@dataclass(frozen=True, slots=True)
class Info:
    """What a core says of itself: `models` maps a use to model@revision, `details` are notes."""

    models: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)


S = TypeVar("S", bound=ServiceSettings)
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class ServiceDef(Generic[S, C]):
    """A service's parts. `load` may take minutes and raises SetupError; it runs off the event loop."""

    name: str
    grpc_name: str
    settings: type[S]
    load: Callable[[S], C]
    stages: Callable[[Any], Sequence[Stage]]
    """From a ServiceContext whose core is loaded."""
    add_servicer: Callable[[Any, Any], None]
    """(grpc.aio.Server, ServiceContext): called before the core is loaded."""
    info: Callable[[C], Info]
    close: Callable[[C], None] = lambda _: None
    models: Callable[[S], Sequence[str]] = lambda _: ()
    """The models these settings need: names of the catalogue, which `qrelay models prepare` fetches, or paths."""
    prepare: Callable[[S], None] = lambda _: None
    """Convert those models, which are on this machine, so that `load` finds them ready; reports its progress."""
    check: Callable[[S], None] = lambda _: None
    """Raises SetupError for what would keep `load` from beginning, found in a moment (an absent model, an unset key),
    so that whoever starts several services is told before any has started."""
    background: Callable[[Any, asyncio.Event], Awaitable[None]] | None = None
    """(ServiceContext, stopping): what runs beside the stages, with or without a queue, from when the core is loaded
    until `stopping` is set; it must then end soon. If it raises, the service stops with its error."""
