"""What a running service hands to its gRPC servicer and stages: settings, what it does until it is ready, the core
once loaded, the broker once connected, and admission: how much work may be held at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from qrelay.config import ServiceSettings
from qrelay.errors import BackendUnavailable, InputError, Overloaded
from qrelay.progress import Progress
from qrelay.runtime import telemetry
from qrelay.runtime.broker import Broker

S = TypeVar("S", bound=ServiceSettings)
C = TypeVar("C")


class Admission:
    """Counts the items that gRPC calls hold and refuses beyond the limit, instead of queueing without end."""

    def __init__(self, max_pending: int, max_per_request: int) -> None:
        self._max_pending = max_pending
        self._max_per_request = max_per_request
        self._pending = 0

    @contextlib.contextmanager
    def hold(self, items: int) -> Iterator[None]:
        """Hold `items` while the block runs.

        Raises:
            InputError: one request with too many items.
            Overloaded: no room now.
        """
        if items > self._max_per_request:
            raise InputError(
                f"{items} items in one request; grpc.max_items_per_request is {self._max_per_request}: send fewer"
            )
        if self._pending + items > self._max_pending:
            raise Overloaded(
                f"{self._pending} items held and {items} more asked; grpc.max_pending_items is "
                f"{self._max_pending}: wait and try again, or add replicas"
            )
        self._pending += items
        telemetry.PENDING_ITEMS.set(self._pending)
        try:
            yield
        finally:
            self._pending -= items
            telemetry.PENDING_ITEMS.set(self._pending)


class Preparation:
    """The long steps that a service is at, as they are reported: a listener of `qrelay.progress`, in any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, Progress] = {}
        self._advanced_at = clock()

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            if self._running.get(progress.name) == progress:
                return
            if progress.finished:
                self._running.pop(progress.name, None)
            else:
                self._running[progress.name] = progress
            self._advanced_at = self._clock()

    @property
    def current(self) -> Progress | None:
        """The innermost step; None: there is none."""
        with self._lock:
            return next(reversed(self._running.values()), None)

    @property
    def idle_s(self) -> float:
        """Seconds since anything advanced."""
        return self._clock() - self._advanced_at


class ServiceContext(Generic[S, C]):
    """See the module. `core` and `broker` raise until they are there: gRPC answers before the model is loaded."""

    def __init__(self, service: str, settings: S, replica: str) -> None:
        self.service = service
        self.settings = settings
        self.replica = replica
        self.preparation = Preparation()
        self.stalled: dict[str, str] = {}
        """stage -> why it can neither fetch nor publish."""
        self.admission = Admission(settings.grpc.max_pending_items, settings.grpc.max_items_per_request)
        self._core: C | None = None
        self._broker: Broker | None = None

    @property
    def core(self) -> C:
        """The loaded core.

        Raises:
            BackendUnavailable: still loading.
        """
        if self._core is None:
            step = self.preparation.current
            doing = f" ({step})" if step else ""
            raise BackendUnavailable(
                f"{self.service} is still loading its model{doing}; try again, GetInfo says how far it is",
                retry_after_s=2.0,
            )
        return self._core

    @core.setter
    def core(self, core: C) -> None:
        self._core = core

    @property
    def loaded(self) -> bool:
        """Whether the core is there."""
        return self._core is not None

    @property
    def broker(self) -> Broker:
        """The connected broker.

        Raises:
            BackendUnavailable: not connected.
        """
        if self._broker is None:
            raise BackendUnavailable(f"{self.service} is not connected to NATS at {self.settings.nats.url}")
        return self._broker

    @broker.setter
    def broker(self, broker: Broker) -> None:
        self._broker = broker
