"""When a level was measured for long enough.

After the warm-up every window counts, also those before the last ones agreed: leaving the worse ones out would hide
stalls and make intervals too narrow. Where the first windows were still warming up, the windows in report.json show
it, and a longer warm-up fixes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qrelay.bench.report import Window
from qrelay.errors import InputError

_UNSERVED: Final = 0.02


@dataclass(frozen=True, slots=True)
class WindowPolicy:
    """Warm-up is thrown away; then windows are measured until the last `stable_windows` agree, or `max_windows`.

    Raises:
        InputError: values that cannot be; all problems at once.
    """

    window_s: float = 5.0
    warm_up_s: float = 5.0
    stable_windows: int = 3
    """Windows that must agree. At least 2: an interval needs them."""
    tolerance: float = 0.05
    """Windows agree when each is within this share of their mean."""
    max_windows: int = 12
    min_requests: int = 20
    """A window, and the warm-up, last until so many requests are answered: a slow service gets longer windows ..."""
    longest_s: float = 60.0
    """... of at most this."""
    drain_s: float = 10.0
    """Open loop: how long to wait for answers after the last window."""
    max_outstanding: int = 10_000
    """Open loop: the most requests on their way; what is due beyond is not sent, and counted."""
    limit_s: float | None = None
    """An answer without an error within this is a good one; None: nobody asks."""

    def __post_init__(self) -> None:
        wrong = [
            (not self.window_s > 0, f"window_s {self.window_s}: use seconds above 0"),
            (not self.warm_up_s >= 0, f"warm_up_s {self.warm_up_s}: use seconds, 0 for none"),
            (not self.drain_s >= 0, f"drain_s {self.drain_s}: use seconds, 0 for none"),
            (self.stable_windows < 2, f"stable_windows {self.stable_windows}: use at least 2"),
            (not 0 < self.tolerance < 1, f"tolerance {self.tolerance}: use a share such as 0.05"),
            (self.max_windows < self.stable_windows, f"max_windows {self.max_windows}: use at least stable_windows"),
            (self.min_requests < 1, f"min_requests {self.min_requests}: use at least 1"),
            (not self.longest_s >= self.window_s, f"longest_s {self.longest_s}: use at least window_s"),
            (self.limit_s is not None and not self.limit_s > 0, f"limit_s {self.limit_s}: use seconds above 0"),
            (self.max_outstanding < 1, f"max_outstanding {self.max_outstanding}: use at least 1"),
        ]
        problems = [text for bad, text in wrong if bad]
        if problems:
            raise InputError("; ".join(problems))

    def is_stable(self, windows: Sequence[Window]) -> bool:
        """Whether the last windows agree: in throughput or, in an open loop, in the share served of what arrived,
        since random arrivals alone move the throughput of a service that keeps up."""
        last = windows[-self.stable_windows :]
        if len(last) < self.stable_windows:
            return False
        rates = [window.throughput for window in last]
        shares = [window.items / window.arrived for window in last if window.arrived]
        return self._agree(rates) or (len(shares) == len(last) and self._agree(shares))

    def is_over(self, windows: Sequence[Window]) -> bool:
        """Whether to stop: stable, as long as allowed, or nothing is answered any more."""
        silent = bool(windows) and windows[-1].requests == 0
        return silent or len(windows) >= self.max_windows or self.is_stable(windows)

    def _agree(self, values: Sequence[float]) -> bool:
        mean = sum(values) / len(values)
        return mean > 0 and all(abs(value - mean) <= self.tolerance * mean for value in values)


def keeps_up(windows: Sequence[Window], due: float = 0.0, capacity: float | None = None) -> bool:
    """Whether an open loop was served: over these windows no backlog grew, and at most 2% of the items were refused
    for load. due: requests due a second; capacity: what was found to be answered a second at most, None: not known.

    A backlog grew when more requests arrived than were answered by 2%, and by more than chance moves the number L
    outstanding in a service that keeps up: three standard deviations of the difference of two Poisson numbers of mean
    L. L is arrivals times mean latency (Little, Operations Research 9, 1961). Where `due` is above `capacity` and the
    windows are too short for the backlog that this makes to reach that bound, whatever chance does to the arrivals
    (again three deviations), nothing can be seen in them, and `due` alone decides.
    """
    arrived = sum(window.arrived or 0 for window in windows)
    behind = arrived - sum(window.requests for window in windows)
    refused = sum(window.refused for window in windows)
    items = refused + sum(window.items + sum(window.failed.values()) for window in windows)
    seen_from = max(_UNSERVED * arrived, 3 * math.sqrt(2 * _outstanding(windows)))
    excess = 0.0 if capacity is None else due - capacity
    expected = excess * sum(window.seconds for window in windows)
    unseen = 0 < expected <= seen_from + 3 * math.sqrt(arrived)
    return behind <= seen_from and not unseen and refused <= _UNSERVED * items


def _outstanding(windows: Sequence[Window]) -> float:
    """Requests outstanding on average."""
    seconds = sum(window.seconds for window in windows)
    waited = sum(window.requests * window.latency_s.mean for window in windows if window.latency_s)
    return waited / seconds if seconds > 0 else 0.0
