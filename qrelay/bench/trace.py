"""Arrivals as they were recorded: a file of times, played again as an open loop.

One line an arrival: seconds from any moment, or a time as ISO 8601 writes it. The first arrival is due at once, the
others as long after it as they were, divided by the speed. Lines need not be in order: logs of several machines are
not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from qrelay.errors import InputError, MalformedInput
from qrelay.formats.lines import BadRecord, parsed, text_lines

LONGEST_S = 7 * 24 * 3600.0
"""A recording of more than a week holds two clocks, such as seconds and milliseconds."""


@dataclass(frozen=True, slots=True)
class Trace:
    """name: the file's. offsets: seconds after the first arrival [n >= 2], rising, as they were. speed: 2 plays it in
    half the time."""

    name: str
    offsets: tuple[float, ...]
    speed: float = 1.0

    @property
    def seconds(self) -> float:
        """From the first arrival to the last, as it is played."""
        return self.offsets[-1] / self.speed

    @property
    def rate(self) -> float:
        """Arrivals a second on average, as it is played."""
        return (len(self.offsets) - 1) / self.seconds

    def gaps(self) -> Iterator[float]:
        """Seconds to wait before each arrival, 0 before the first."""
        yield 0.0
        yield from ((after - before) / self.speed for before, after in pairwise(self.offsets))

    def __str__(self) -> str:
        return f"{self.name}, {self.speed:g} times as fast" if self.speed != 1 else self.name


def read_trace(path: Path, speed: float = 1.0) -> Trace:
    """The trace in a file.

    Raises:
        MalformedInput: a line that is no time, fewer than two different ones, or more than a week between them.
        InputError: a speed that is not above 0.
    """
    if not 0 < speed < math.inf:
        raise InputError(f"a trace at {speed} times its speed: use a number above 0, such as 2")
    times = sorted(time for _, time in parsed(path, text_lines(path), _time))
    if len(times) < 2 or times[0] == times[-1]:
        raise MalformedInput(f"{path} holds {len(times)} arrivals at one time: give at least two, at different times")
    if times[-1] - times[0] > LONGEST_S:
        raise MalformedInput(
            f"{path} spans {(times[-1] - times[0]) / 86400:.0f} days: give one week at most, in seconds"
        )
    return Trace(path.name, tuple(time - times[0] for time in times), speed)


def _time(line: str) -> float:
    """Seconds of a line. Raises BadRecord."""
    text = line.strip()
    try:
        found = float(text)
    except ValueError:
        try:
            at = datetime.fromisoformat(text)
            found = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise BadRecord(
                f"{text[:40]!r} is no time: write seconds such as 12.5, or 2026-01-31T12:00:00.5+00:00"
            ) from None
    if not math.isfinite(found):
        raise BadRecord(f"{text[:40]!r} is no time: write a finite number of seconds")
    return found
