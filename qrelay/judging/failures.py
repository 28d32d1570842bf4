"""Failures of pairs: what an error is recorded as, which are worth trying again, and which are no pair's fault."""

from __future__ import annotations

from qrelay.errors import (
    BackendTimeout,
    ContentFiltered,
    EndpointPaused,
    EndpointRefuses,
    InputError,
    MalformedInput,
    OnHold,
    Oversized,
    QrelayError,
    RateLimited,
    TransientError,
)
from qrelay.types import JudgedSet, Missing

_TRANSIENT = frozenset({"timeout", "unavailable", "rate_limited", "error"})
_REASONS: tuple[tuple[type[QrelayError], str], ...] = (
    (Oversized, "too_long"),
    (ContentFiltered, "filtered"),
    (MalformedInput, "unparseable"),
    (InputError, "refused"),
    (BackendTimeout, "timeout"),
    (RateLimited, "rate_limited"),
    (EndpointPaused, "rate_limited"),
    (EndpointRefuses, "error"),
    (TransientError, "unavailable"),
)
"""The first class that fits gives the reason; none: "error"."""


def missing_of(error: QrelayError) -> Missing:
    """What a pair's error is recorded as."""
    reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "error")
    return Missing(reason, str(error), error.retry_after_s if isinstance(error, OnHold) else None)


def transient_missing(judged: JudgedSet) -> bool:
    """Whether a missing judgment of this set may succeed when it is tried again later."""
    return any(isinstance(each.outcome, Missing) and each.outcome.reason in _TRANSIENT for each in judged.judgments)


def hold_of(judged: JudgedSet) -> OnHold | None:
    """What holds this set up: the longest pause of an endpoint, or its refusal; None: nothing does."""
    outcomes = [each.outcome for each in judged.judgments]
    held = [(each.on_hold_s, each) for each in outcomes if isinstance(each, Missing) and each.on_hold_s is not None]
    if not held:
        return None
    seconds, longest = max(held, key=lambda each: each[0])
    kind = EndpointPaused if longest.reason == "rate_limited" else EndpointRefuses
    return kind(longest.detail, retry_after_s=seconds)
