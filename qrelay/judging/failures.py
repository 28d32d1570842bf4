"""Failures of pairs: what an error is recorded as, which are worth trying again, and which are no pair's fault."""

from __future__ import annotations

import math

from qrelay.errors import (
    AnswersPending,
    BackendTimeout,
    BudgetExhausted,
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
    (AnswersPending, "unavailable"),
    (TransientError, "unavailable"),
)
"""The first class that fits gives the reason; none: "error"."""
_HOLDS: dict[str, type[OnHold]] = {
    "rate_limited": EndpointPaused,
    "error": EndpointRefuses,
    "unavailable": AnswersPending,
}


def missing_of(error: QrelayError) -> Missing:
    """What a pair's error is recorded as."""
    reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "error")
    return Missing(reason, str(error), _hold_s(error) if isinstance(error, OnHold) else None)


def _hold_s(error: OnHold) -> float:
    return math.inf if error.retry_after_s is None else error.retry_after_s


def transient_missing(judged: JudgedSet) -> bool:
    """Whether a missing judgment of this set may succeed when it is tried again later."""
    return any(isinstance(each.outcome, Missing) and each.outcome.reason in _TRANSIENT for each in judged.judgments)


def hold_of(judged: JudgedSet) -> OnHold | None:
    """What holds this set up: the longest pause of an endpoint, its refusal, or a batch; None: nothing does."""
    outcomes = [each.outcome for each in judged.judgments]
    held = [(each.on_hold_s, each) for each in outcomes if isinstance(each, Missing) and each.on_hold_s is not None]
    if not held:
        return None
    seconds, longest = max(held, key=lambda each: each[0])
    if math.isinf(seconds):
        return BudgetExhausted(longest.detail)
    return _HOLDS[longest.reason](longest.detail, retry_after_s=seconds)
