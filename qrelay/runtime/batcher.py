"""Batching policy, and nothing else: when is a batch full, or old enough to go.

Pure: it holds items and does arithmetic; the clock is injected and nothing waits in here. The worker asks
`due_in()` how long it may wait for more items, and calls `take()` when `ready()`. Batching decides which items travel
together; it cannot change answers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Limits of one batch. A single entry above a limit still goes, alone."""

    max_items: int
    max_cost: int
    max_bytes: int
    max_delay_s: float


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    item: T
    cost: int
    size: int
    items: int
    added_at: float


class Batcher(Generic[T]):
    """First in, first out, cut into batches within the policy's limits."""

    def __init__(self, policy: BatchPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._entries: deque[_Entry[T]] = deque()
        self.patient = True
        """Whether items wait for company; False: none is to be expected, and a batch goes as it is."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def room(self) -> int:
        """Items still wanted for the next batch."""
        return max(0, self._policy.max_items - sum(entry.items for entry in self._entries))

    @property
    def full(self) -> bool:
        """Whether nothing more would fit the next batch."""
        return bool(self._entries) and (self._fitting() < len(self._entries) or self.room == 0)

    def add(self, item: T, *, cost: int = 1, size: int = 0, items: int = 1) -> None:
        """Queue an entry of `cost` (the stage's unit) and `size` bytes; `items`: what it counts for."""
        self._entries.append(_Entry(item, cost, size, items, self._clock()))

    def due_in(self) -> float | None:
        """Seconds until the oldest item must go; None when there is none."""
        if not self._entries:
            return None
        delay_s = self._policy.max_delay_s if self.patient else 0.0
        return max(0.0, self._entries[0].added_at + delay_s - self._clock())

    def ready(self) -> bool:
        """Whether a batch should go now: one is full, or its oldest item has waited long enough."""
        return self.full or self.due_in() == 0.0

    def take(self) -> list[T]:
        """Remove and return the next batch, ready or not; empty only when there is nothing."""
        return [self._entries.popleft().item for _ in range(self._fitting())]

    def _fitting(self) -> int:
        """How many of the oldest items fit one batch: at least one, if there is any."""
        policy, cost, size, items = self._policy, 0, 0, 0
        for count, entry in enumerate(self._entries):
            cost += entry.cost
            size += entry.size
            items += entry.items
            over = cost > policy.max_cost or size > policy.max_bytes or items > policy.max_items
            if over and count:
                return count
        return len(self._entries)
