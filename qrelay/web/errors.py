"""Errors over HTTP: the gRPC status of each (`qrelay/runtime/translate.py`) as an HTTP status, and the body or page
that says it.

    {"error": {"code": "INVALID_ARGUMENT", "reason": "invalid_query", "message": "...", "retryable": false}}
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import grpc
from starlette.exceptions import HTTPException

from qrelay.errors import Oversized, TransientError
from qrelay.runtime.translate import as_qrelay_error, status_code
from qrelay.settings.secrets import masked

STATUS: Final[dict[grpc.StatusCode, int]] = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""As google.rpc.code documents it."""
TOO_LARGE: Final = 413
"""Where a byte limit refuses: 429, as RESOURCE_EXHAUSTED is otherwise, would make clients try again."""
UNAUTHENTICATED: Final = STATUS[grpc.StatusCode.UNAUTHENTICATED]
_HTTP_CODES: Final = {
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as it is answered. retry_after_s: None where trying again cannot help."""

    status: int
    code: str
    reason: str
    message: str
    retry_after_s: float | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that says it."""
        said = {"code": self.code, "reason": self.reason, "message": self.message}
        return {"error": {**said, "retryable": self.retry_after_s is not None}}

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After, in whole seconds, where waiting helps; how to sign in, where that does."""
        if self.status == UNAUTHENTICATED:
            return {"WWW-Authenticate": "Bearer"}
        return {} if self.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}


def problem(error: BaseException) -> Problem:
    """Any error of a request; what nobody raised on purpose goes to the log, as over gRPC."""
    if isinstance(error, HTTPException):
        code = _HTTP_CODES.get(error.status_code, grpc.StatusCode.INVALID_ARGUMENT)
        return Problem(error.status_code, code.name, "http", error.detail)
    ours = as_qrelay_error(error)
    code = status_code(ours)
    retry = (ours.retry_after_s or 1.0) if isinstance(ours, TransientError) else None
    status = TOO_LARGE if isinstance(ours, Oversized) else STATUS[code]
    return Problem(status, code.name, ours.reason, masked(str(ours)), retry)
