"""Which waiting requests become a batch, and when: see `BatchLimits`."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime

from qrelay.errors import OnHold
from qrelay.llm.batch.limits import BYTES_A_TOKEN, BatchLimits, Budget
from qrelay.llm.batch.records import Batch, BatchState, BatchStore, Pile, Target
from qrelay.runtime import faults


class Planner:
    """See the module. new: batches that were planned here and not begun to be sent; blocked: why what waits is not
    sent, where nothing is in flight either."""

    def __init__(
        self, account: str, store: BatchStore, limits: BatchLimits, budget: Budget, clock: Callable[[], datetime]
    ) -> None:
        """`clock` gives UTC times."""
        self.new: set[str] = set()
        self.blocked: OnHold | None = None
        self._account, self._store, self._limits, self._budget, self._clock = account, store, limits, budget, clock
        self._smaller: dict[Target, int] = {}
        self._full_since: dict[Target, datetime] = {}

    def cut(self, *, hurry: bool) -> list[Batch]:
        """New batches of what waits and is due, within the budget. hurry: everything is due."""
        planned: list[Batch] = []
        in_flight, blocked = self._store.open(self._account), False
        while len(in_flight) + len(planned) < self._limits.max_in_flight:
            pile = next((each for each in self._store.piles(self._account) if self._due(each, hurry=hurry)), None)
            batch = self._plan(pile.target, sum(each.tokens for each in (*in_flight, *planned))) if pile else None
            if batch is None:
                blocked = pile is not None
                break
            planned.append(batch)
        # What is in flight will be answered, and then there may be room.
        self.blocked = self._budget.exhausted() if blocked and not (in_flight or planned) else None
        return planned

    def _due(self, pile: Pile, *, hurry: bool) -> bool:
        now = self._clock()
        full_since = self._full_since.get(pile.target)
        if full_since and (now - full_since).total_seconds() < self._limits.poll_s:
            return False
        waited = (now - pile.since).total_seconds()
        enough = pile.requests >= self._most(pile.target) or pile.bytes >= self._limits.max_bytes
        return hurry or enough or waited >= self._limits.max_wait_s

    def _most(self, target: Target) -> int:
        return min(self._limits.max_requests, self._smaller.get(target, self._limits.max_requests))

    def _plan(self, target: Target, in_flight: int) -> Batch | None:
        """None: the budget has no room."""
        room = self._budget.room(in_flight)
        most = self._limits.max_bytes if room is None else min(self._limits.max_bytes, room * BYTES_A_TOKEN)
        batch = Batch(f"qrelay-{uuid.uuid4().hex}", target, BatchState.PLANNED, 0, 0, 0, self._clock())
        planned = self._store.plan(batch, self._most(target), most)
        if planned is None:
            return None
        self._budget.sent(planned.tokens)
        self.new.add(planned.name)
        faults.point("batch.planned")
        return planned

    def full(self, batch: Batch) -> None:
        """The endpoint's queue was full: the next batches of this target go later, and are smaller."""
        self._full_since[batch.target] = self._clock()
        self.shrink(batch)

    def shrink(self, batch: Batch) -> None:
        """Where no other is in flight, the next batches of this target have half as many requests."""
        others = [each for each in self._store.open(self._account) if each.name != batch.name]
        if not any(each.target == batch.target for each in others):
            self._smaller[batch.target] = max(1, batch.requests // 2)
