"""Simulated times for the shipped fakes, so that the pipeline can be measured apart from the models.

A fake with a service time is one server with a first-come, first-served queue: each item takes `seconds`, one
after another, in whatever batch it comes. Its capacity is exactly 1 / seconds: an item that has to
wait begins when the one before it was due to end, not when a late timer noticed that it had.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from qrelay.progress import step


class ServiceTime:
    """One simulated server. `seconds` an item; 0: no waiting at all. Shared between threads and tasks."""

    def __init__(self, seconds: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._free_at = 0.0
        self.busy_s = 0.0
        """Seconds booked in all, for tests that count."""
        self._lock = threading.Lock()

    def book(self, items: int = 1) -> float:
        """Takes the next free time for `items`; returns the seconds from now until they are done."""
        if not self._seconds or not items:
            return 0.0
        with self._lock:
            now = self._clock()
            self._free_at = max(now, self._free_at) + items * self._seconds
            self.busy_s += items * self._seconds
            return self._free_at - now

    def spend(self, items: int = 1) -> None:
        """Returns when the items are done. For threads."""
        if wait_s := self.book(items):
            time.sleep(wait_s)

    async def pass_by(self, items: int = 1) -> None:
        """Returns when the items are done. For tasks of an event loop."""
        if wait_s := self.book(items):
            await asyncio.sleep(wait_s)


def load(steps: int, seconds: float) -> None:
    """Loading a model, as its callers see it: so many steps, reported, of so many idle seconds each."""
    with step("loading the fake", total=steps, unit="steps") as loading:
        for _ in range(steps):
            time.sleep(seconds)
            loading.advance(1)
