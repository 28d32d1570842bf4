"""Failures of pairs: what an error is recorded as, and which are worth trying again."""

from __future__ import annotations

from qrelay.errors import BackendTimeout, Oversized, QrelayError, RateLimited, TransientError
from qrelay.types import JudgedSet, Missing

_TRANSIENT = frozenset({"timeout", "unavailable", "rate_limited", "error"})
_REASONS: tuple[tuple[type[QrelayError], str], ...] = (
    (Oversized, "too_long"),
    (BackendTimeout, "timeout"),
    (RateLimited, "rate_limited"),
    (TransientError, "unavailable"),
)
"""The first class that fits gives the reason; none: "error"."""


def missing_of(error: QrelayError) -> Missing:
    """What a pair's error is recorded as."""
    reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "error")
    return Missing(reason, str(error))


def transient_missing(judged: JudgedSet) -> bool:
    """Whether a missing judgment of this set may succeed when it is tried again later."""
    return any(isinstance(each.outcome, Missing) and each.outcome.reason in _TRANSIENT for each in judged.judgments)
