"""A gRPC channel for qrelay's own tools: finite deadlines, retries on UNAVAILABLE only, plain errors."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import grpc

from qrelay.errors import BackendTimeout, BackendUnavailable, InputError, Overloaded, QrelayError

_RETRIES = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)
_MAX_MESSAGE_BYTES = 64 * 1024**2

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.service_config", _RETRIES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
]


@contextlib.contextmanager
def channel(address: str) -> Iterator[grpc.Channel]:
    """A channel to host:port or dns:///name:port; foreign errors leave the block as qrelay's."""
    with grpc.insecure_channel(address, options=OPTIONS) as opened, translated(address):
        yield opened


@contextlib.contextmanager
def translated(address: str) -> Iterator[None]:
    """gRPC's errors as qrelay's."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(address, error) from error


def from_rpc_error(address: str, error: Any) -> QrelayError:
    """The error of a call to `address` in qrelay's words."""
    code, text = error.code(), error.details()
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return BackendUnavailable(f"{address} does not answer: {text}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return BackendTimeout(f"{address} did not answer in time: {text}")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded(f"{address}: {text}")
        case _:
            return InputError(f"{address} answered {code.name}: {text}")
