"""The one place that translates qrelay's errors: to a gRPC status and back, or to what happens to a message.

A test walks the tree in `qrelay/errors.py` and proves that no class is unmapped.
"""

from __future__ import annotations

import enum
import logging
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from qrelay import errors
from qrelay.errors import InternalError, QrelayError, TransientError
from qrelay.settings.secrets import masked
from qrelay.v1 import service_info_pb2

log = logging.getLogger(__name__)

ERROR_DOMAIN: Final = "qrelay"


class Fate(enum.Enum):
    """What happens to a queued message whose handling ended in an error."""

    RETRY = "retry"
    """Give it back with a delay; dead-letter it after the last attempt."""
    DEAD_LETTER = "dead_letter"
    """Trying again cannot help."""


_TABLE: Final[dict[type[QrelayError], tuple[grpc.StatusCode, Fate]]] = {
    errors.MalformedInput: (grpc.StatusCode.INVALID_ARGUMENT, Fate.DEAD_LETTER),
    errors.InvalidQuery: (grpc.StatusCode.INVALID_ARGUMENT, Fate.DEAD_LETTER),
    errors.UnknownCollection: (grpc.StatusCode.NOT_FOUND, Fate.DEAD_LETTER),
    errors.QueryConflict: (grpc.StatusCode.ALREADY_EXISTS, Fate.DEAD_LETTER),
    errors.UnknownVersion: (grpc.StatusCode.NOT_FOUND, Fate.DEAD_LETTER),
    errors.NotPromotable: (grpc.StatusCode.FAILED_PRECONDITION, Fate.DEAD_LETTER),
    errors.NotQualified: (grpc.StatusCode.FAILED_PRECONDITION, Fate.DEAD_LETTER),
    errors.Oversized: (grpc.StatusCode.RESOURCE_EXHAUSTED, Fate.DEAD_LETTER),
    errors.RequestRefused: (grpc.StatusCode.FAILED_PRECONDITION, Fate.DEAD_LETTER),
    errors.ContentFiltered: (grpc.StatusCode.FAILED_PRECONDITION, Fate.DEAD_LETTER),
    errors.InputError: (grpc.StatusCode.INVALID_ARGUMENT, Fate.DEAD_LETTER),
    errors.Overloaded: (grpc.StatusCode.RESOURCE_EXHAUSTED, Fate.RETRY),
    errors.RateExceeded: (grpc.StatusCode.RESOURCE_EXHAUSTED, Fate.RETRY),
    errors.BackendUnavailable: (grpc.StatusCode.UNAVAILABLE, Fate.RETRY),
    errors.BackendTimeout: (grpc.StatusCode.DEADLINE_EXCEEDED, Fate.RETRY),
    errors.RateLimited: (grpc.StatusCode.UNAVAILABLE, Fate.RETRY),
    errors.BudgetExhausted: (grpc.StatusCode.RESOURCE_EXHAUSTED, Fate.RETRY),
    errors.StoreUnavailable: (grpc.StatusCode.UNAVAILABLE, Fate.RETRY),
    errors.EndpointPaused: (grpc.StatusCode.UNAVAILABLE, Fate.RETRY),
    errors.EndpointRefuses: (grpc.StatusCode.FAILED_PRECONDITION, Fate.RETRY),
    errors.AnswersPending: (grpc.StatusCode.UNAVAILABLE, Fate.RETRY),
    errors.OnHold: (grpc.StatusCode.UNAVAILABLE, Fate.RETRY),
    errors.Exhausted: (grpc.StatusCode.UNAVAILABLE, Fate.DEAD_LETTER),
    errors.TransientError: (grpc.StatusCode.UNAVAILABLE, Fate.RETRY),
    errors.Unauthenticated: (grpc.StatusCode.UNAUTHENTICATED, Fate.RETRY),
    errors.PermissionDenied: (grpc.StatusCode.PERMISSION_DENIED, Fate.RETRY),
    errors.AccessError: (grpc.StatusCode.PERMISSION_DENIED, Fate.RETRY),
    errors.ConfigError: (grpc.StatusCode.FAILED_PRECONDITION, Fate.RETRY),
    errors.ModelError: (grpc.StatusCode.FAILED_PRECONDITION, Fate.RETRY),
    errors.CorpusIndexError: (grpc.StatusCode.DATA_LOSS, Fate.RETRY),
    errors.PortInUse: (grpc.StatusCode.FAILED_PRECONDITION, Fate.RETRY),
    errors.BrokerDenied: (grpc.StatusCode.FAILED_PRECONDITION, Fate.RETRY),
    errors.SetupError: (grpc.StatusCode.FAILED_PRECONDITION, Fate.RETRY),
    errors.InternalError: (grpc.StatusCode.INTERNAL, Fate.RETRY),
}


def as_qrelay_error(error: BaseException) -> QrelayError:
    """The error itself if it is one of ours, else an InternalError, which quotes nothing; the original goes to the
    log."""
    if isinstance(error, QrelayError):
        return error
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return InternalError(f"unexpected {type(error).__name__}: see the service's log")


def _entry(error: QrelayError) -> tuple[grpc.StatusCode, Fate]:
    """The table's line for this error: its class's, else that of the nearest class above."""
    return next((_TABLE[each] for each in type(error).__mro__ if each in _TABLE), _TABLE[InternalError])


def fate(error: QrelayError) -> Fate:
    """What becomes of a message that ended in this error."""
    return _entry(error)[1]


def status_code(error: QrelayError) -> grpc.StatusCode:
    """The gRPC status code of this error."""
    return _entry(error)[0]


def rich_status(error: QrelayError) -> status_pb2.Status:
    """The error as google.rpc.Status: ErrorInfo with the stable reason, RetryInfo where waiting helps."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason.upper(), domain=ERROR_DOMAIN)]
    if isinstance(error, TransientError):
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after_s or 1.0)))
    packed = []
    for detail in details:
        box = any_pb2.Any()
        box.Pack(detail)
        packed.append(box)
    code: int = status_code(error).value[0]
    if code not in code_pb2.Code.values():
        raise InternalError(f"no google.rpc code for {code}")
    return status_pb2.Status(code=code, message=masked(str(error)), details=packed)


def item_error(error: QrelayError, query_id: str) -> service_info_pb2.ItemError:
    """The error of one item in a batch whose others continued."""
    return service_info_pb2.ItemError(
        query_id=query_id,
        reason=error.reason,
        message=masked(str(error)),
        retryable=fate(error) is Fate.RETRY,
    )


def error_of(reason: str, message: str, retry_after_s: float | None = None, retryable: bool = False) -> QrelayError:
    """The error that a service told of, as it was raised there. reason: its stable word, in any case; one that only a
    newer service knows is a TransientError where trying again may help, else an InputError."""
    kind = _KINDS.get(reason.lower()) or (TransientError if retryable else errors.InputError)
    error = kind.__new__(kind)
    QrelayError.__init__(error, message)  # an InternalError's text says already whose fault it is
    if isinstance(error, TransientError):
        error.retry_after_s = retry_after_s
    return error


def error_of_item(told: service_info_pb2.ItemError) -> QrelayError:
    """The error of one item in a batch, with its query's id."""
    who = f"{told.query_id}: " if told.query_id else ""
    return error_of(told.reason, f"{who}{told.message}", retryable=told.retryable)


def error_of_status(status: status_pb2.Status | None, address: str) -> QrelayError | None:
    """The error that `rich_status` told of a call to `address`; None: no service of qrelay says why it failed."""
    reason, seconds = "", None
    for detail in status.details if status else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
            reason = info.reason
        elif detail.Unpack(retry):
            seconds = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return error_of(reason, f"{address}: {status.message}", seconds) if status and reason else None


_KINDS: Final = {
    each.reason: each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, QrelayError)
}
"""reason -> the error of `qrelay/errors.py` that has it, whatever special cases of it modules define."""


def _duration(seconds: float) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
