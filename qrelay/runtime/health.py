"""gRPC's health service, within limits: anybody may ask, so nobody may take the room of the others."""

from __future__ import annotations

from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

from qrelay.errors import Overloaded

PROBES: Final = 16
"""Checks at once, of those that come in plain text."""


class Health(aio.HealthServicer):  # type: ignore[misc]
    """Answers Check, and at most `watches` of Watch at once."""

    def __init__(self, watches: int) -> None:
        super().__init__()
        self._left = self._watches = watches

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        """Tells each change for as long as the caller listens. Raises Overloaded."""
        if not self._left:
            raise Overloaded(f"{self._watches} callers watch this service's health already: ask with Check")
        self._left -= 1
        try:
            await super().Watch(request, context)
        finally:
            self._left += 1


def checks_alone(health: Health) -> grpc.GenericRpcHandler:
    """Check without Watch, which lasts as long as callers like: for a port where nobody is asked who they are."""
    check = grpc.unary_unary_rpc_method_handler(
        health.Check,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
