"""What an endpoint's headers say about waiting: Retry-After and the x-ratelimit-* family, in seconds."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_EPOCH = 3e8
"""Larger numbers are Unix times, not durations (of ten years)."""


def asked_to_wait(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a refused request should wait; None where the headers are silent.

    Retry-After (RFC 9110: seconds or a date) wins over the reset time of a used-up rate-limit window.
    `now` is Unix time, in seconds.
    """
    now = time.time() if now is None else now
    if "retry-after-ms" in headers:
        return _number(headers["retry-after-ms"], 0.001)
    if "retry-after" in headers:
        return _retry_after(headers["retry-after"].strip(), now)
    return used_up(headers, now)


def used_up(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds until the windows that are used up (`x-ratelimit-remaining-*: 0`) open again, else None."""
    now = time.time() if now is None else now
    waits = []
    for kind in ("", "-requests", "-tokens"):
        if headers.get(f"x-ratelimit-remaining{kind}", "").strip() == "0":
            wait = _duration(headers.get(f"x-ratelimit-reset{kind}", ""), now)
            waits += [] if wait is None else [wait]
    return max(waits, default=None)


def _retry_after(text: str, now: float) -> float | None:
    seconds = _number(text, 1.0)
    if seconds is not None:
        return seconds
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)


def _duration(text: str, now: float) -> float | None:
    """ "1s", "6m0s", "120ms", "2.5", or a Unix time."""
    text = text.strip().lower()
    number = _number(text, 1.0)
    if number is not None:
        return max(0.0, number - now) if number > _EPOCH else number
    parts = _PART.findall(text)
    if not parts or "".join(value + unit for value, unit in parts) != text:
        return None
    return sum(float(value) * _UNIT_S[unit] for value, unit in parts)


def _number(text: str, unit_s: float) -> float | None:
    try:
        value = float(text) * unit_s
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
