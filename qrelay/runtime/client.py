"""A gRPC channel for qrelay's own tools: finite deadlines, retries on UNAVAILABLE only, plain errors."""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from qrelay.config import PLAIN, Transport
from qrelay.errors import (
    BackendTimeout,
    BackendUnavailable,
    InputError,
    Overloaded,
    Oversized,
    QrelayError,
    RateExceeded,
)
from qrelay.runtime.translate import error_of_status
from qrelay.security import tls
from qrelay.security.access import header_of, own_token
from qrelay.v1 import service_info_pb2

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
Metadata = tuple[tuple[str, str], ...]
_LIMIT = "grpc.max_message_bytes"
_MAX_MESSAGE_BYTES = 64 * 1024**2

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.service_config", _RETRIES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
]


@contextlib.contextmanager
def channel(address: str, transport: Transport = PLAIN) -> Iterator[grpc.Channel]:
    """A channel to host:port or dns:///name:port; foreign errors leave the block as qrelay's."""
    with tls.channel(address, transport, OPTIONS) as opened, translated(address):
        yield opened


S = TypeVar("S")


def signed(stub: S) -> S:
    """The stub, whose calls show this process's token, where it has one, beside the metadata that each call gives: as
    its file is by then. A unary call that blocks comes again when the service says that it may, within its timeout.
    The calls raise ConfigError: the token's file is gone."""
    for name, call in vars(stub).items():
        setattr(stub, name, partial(_showing, call))
    return stub


def _showing(call: Callable[..., Any], *arguments: Any, metadata: Metadata | None = None, **options: Any) -> Any:
    left_s: float = options.get("timeout") or 0.0
    while True:
        try:
            return call(*arguments, metadata=(*(metadata or ()), *header_of(own_token())), **options)
        except grpc.RpcError as error:
            rest_s = told_s(error_of_status(_status(error), ""))
            if rest_s is None or rest_s > left_s:
                raise
        left_s -= rest_s
        time.sleep(rest_s)


def told_s(error: QrelayError | None) -> float | None:
    """Seconds after which a service that finds us too quick says to come again; None: that is not what it says."""
    return (error.retry_after_s or 0.0) if isinstance(error, RateExceeded) else None


def get_info(
    service: str, address: str, timeout_s: float, transport: Transport = PLAIN
) -> service_info_pb2.ServiceInfo:
    """What the service (retriever, reranker, judge or sink) at the address says of itself, asked once.

    Raises:
        TransientError: nothing answers within `timeout_s` seconds.
        InputError: something else than this service does.
    """
    messages = importlib.import_module(f"qrelay.v1.{service}_pb2")
    stubs = importlib.import_module(f"qrelay.v1.{service}_pb2_grpc")
    name = f"{service.capitalize()}Service"
    with tls.channel(address, transport) as opened, translated(address):
        stub = getattr(stubs, f"{name}Stub")(opened)
        request = getattr(messages, f"{name}GetInfoRequest")()
        info: service_info_pb2.ServiceInfo = stub.GetInfo(request, timeout=timeout_s).info
    return info


@contextlib.contextmanager
def translated(address: str) -> Iterator[None]:
    """gRPC's errors as qrelay's."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(address, error) from error


def from_rpc_error(address: str, error: Any) -> QrelayError:
    """The error of a call to `address` in qrelay's words: the service's own error where it says which, else by the
    status code."""
    if told := error_of_status(_status(error), address):
        return told
    code, text = error.code(), error.details() or ""
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return BackendUnavailable(f"{address} does not answer: {text}{tls_hint(text)}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return BackendTimeout(f"{address} did not answer in time: {text}")
        case grpc.StatusCode.CANCELLED:  # not by us, or nobody would ask: the server, or what stands before it
            return BackendUnavailable(f"{address} dropped the call before it was answered: try again")
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in text:  # gRPC's words, at either end
            return Oversized(f"{address}: {text}: ask for less in one call, or raise the service's {_LIMIT}")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded(f"{address}: {text}")
        case _:
            return InputError(f"{address} answered {code.name}: {text}")


def tls_hint(text: str) -> str:
    """What to look at where gRPC's words for a failed connection may mean a certificate."""
    signs = ("Socket closed", "andshake", "SSL", "ertificate", "Verification")
    return "; it may want certificates, or other ones: see all.tls" if any(each in text for each in signs) else ""


def _status(error: Any) -> Any:
    """The call's google.rpc.Status; None where there is none, or none that can be read."""
    try:
        return rpc_status.from_call(error)
    except (ValueError, DecodeError, AttributeError):
        return None
