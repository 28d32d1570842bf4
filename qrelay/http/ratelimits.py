"""What an endpoint's headers say about waiting: Retry-After and the ratelimit family, in every common spelling.

    retry-after-ms, x-ms-retry-after-ms: 250         milliseconds
    retry-after: 3 | Sun, 06 Nov 1994 08:49:47 GMT   seconds, a date (RFC 9110), or a Unix time
    x-ratelimit-reset-requests: 6m0s | 120ms | 2.5   a duration, or a Unix time in s, ms, us or ns, or RFC 3339
                                                     counts where the same window's `remaining` is 0
    ratelimit: "day";r=0;t=50                        seconds, for each window that is named; or remaining=0, reset=50

A wait is never negative; whoever waits caps it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_EPOCH = 3e8
"""Larger numbers are Unix times, not durations (of ten years)."""
_EPOCH_MS = _EPOCH * 1000
_WINDOW = re.compile(r"rate-?limit.*remaining|remaining.*rate-?limit")
_PARAMETER = re.compile(r"\b(r|t|remaining|reset)=([\d.]+)")
_MOST_FIELD_CHARS = 1000
_SHOWN_CHARS = 60
_MOST_CHARS = 100
"""A header that is longer says nothing of time: looking for durations in 100,000 digits takes minutes."""


class Wait(NamedTuple):
    """How long an answer asks to wait, and the header that says so."""

    seconds: float
    header: str


def asked_to_wait(headers: Mapping[str, str], now: float | None = None) -> Wait | None:
    """What a refused request should wait; None where the headers are silent or make no sense.

    Retry-After wins over the reset time of a used-up window. `headers` have names in lower case, or ignore case;
    `now` is Unix time, in seconds.
    """
    now = time.time() if now is None else now
    for name, unit_s in (("retry-after-ms", 1e-3), ("x-ms-retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name)
        seconds = None if text is None else _moment_or_duration(text, now, unit_s)
        if text is not None and seconds is not None:
            return _wait(seconds, name, text)
    return used_up(headers, now)


def used_up(headers: Mapping[str, str], now: float | None = None) -> Wait | None:
    """Until all windows that are used up (`x-ratelimit-remaining-*: 0`) are open again; None where none is."""
    now = time.time() if now is None else now
    waits = []
    for name, remaining, reset in _windows(headers):
        seconds = _moment_or_duration(reset, now, 1.0) if _number(remaining) == 0 else None
        waits += [] if seconds is None else [_wait(seconds, name, reset)]
    return max(waits, default=None)


def _windows(headers: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(name of its reset, what remains, when it is reset) of each window; texts as they stand."""
    for spelled, remaining in headers.items():
        name = spelled.lower()
        if _WINDOW.search(name):
            own = name.replace("remaining", "reset")
            reset = next((each for each in (own, f"{own}-after", "x-ratelimit-reset") if each in headers), own)
            yield reset, remaining, headers.get(reset, "")
    field = headers.get("ratelimit", "")[:_MOST_FIELD_CHARS]
    for window in [field] if "remaining" in field else field.split(","):
        told: dict[str, str] = dict(_PARAMETER.findall(window))
        yield "ratelimit", told.get("r", told.get("remaining", "")), told.get("t", told.get("reset", ""))


def _wait(seconds: float, name: str, text: str) -> Wait:
    return Wait(seconds, f"{name}: {text.strip()[:_SHOWN_CHARS]}")


def _moment_or_duration(text: str, now: float, unit_s: float) -> float | None:
    """Seconds from `now`; None where the text is neither a duration nor a moment. unit_s: of a bare number."""
    if len(text) > _MOST_CHARS:
        return None
    text = text.strip()
    number = _number(text)
    if number is not None:
        if number < 0:
            return None
        return max(0.0, _unix_s(number) - now) if number * unit_s > _EPOCH else number * unit_s
    parts = _PART.findall(text.lower())
    if parts and "".join(value + unit for value, unit in parts) == text.lower():
        return math.fsum(float(value) * _UNIT_S[unit] for value, unit in parts)
    moment = _date(text)
    return None if moment is None else max(0.0, moment.timestamp() - now)


def _unix_s(number: float) -> float:
    """A Unix time in seconds, from milliseconds, microseconds or nanoseconds where it is so large."""
    while number > _EPOCH_MS:
        number /= 1000
    return number


def _date(text: str) -> datetime | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text)
        except (ValueError, OverflowError):
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
