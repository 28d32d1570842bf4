"""What a running service hands to its doors: settings, the core once loaded, the broker once connected,
and admission: how much work may be held at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Generic, TypeVar

from qrelay.config import ServiceSettings
from qrelay.errors import BackendUnavailable, InputError, Overloaded
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


class ServiceContext(Generic[S, C]):
    """See the module. `core` and `broker` raise until they are there: doors open before the model is loaded."""

    def __init__(self, service: str, settings: S, replica: str) -> None:
        self.service = service
        self.settings = settings
        self.replica = replica
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
            raise BackendUnavailable(f"{self.service} is still loading its model; try again", retry_after_s=2.0)
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
