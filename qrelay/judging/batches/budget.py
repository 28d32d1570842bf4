"""What batches may cost: the limits of `judge.budget`, asked before a batch is sent (see budget.py).

A batch is sent as large as fits what is left beside the batches in flight, by the estimate of its prompt tokens. The
labels are counted when they are read, as those of every other backend: what a day's batches cost counts for the day
on which their labels are read.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta

from qrelay.errors import BudgetExhausted
from qrelay.judging.budget import SpendStore
from qrelay.judging.budget_settings import BudgetSettings


class BatchBudget:
    """See the module, and `qrelay.llm.batch.limits.Budget`."""

    def __init__(self, limits: BudgetSettings, store: SpendStore, *, clock: Callable[[], datetime]) -> None:
        """limits: at the price of a batch; `clock` gives UTC times."""
        self.price = limits.price_per_million_tokens
        self._limits, self._store, self._clock = limits, store, clock
        self._sent = 0

    def room(self, in_flight: int) -> int | None:
        """See Budget."""
        left = []
        if self._limits.run_tokens:
            left.append(self._limits.run_tokens - self._sent)
        if self._limits.day_tokens:
            left.append(self._limits.day_tokens - self._store.spent(self._today()) - in_flight)
        return max(0, min(left)) if left else None

    def sent(self, tokens: int) -> None:
        """See Budget."""
        self._sent += tokens

    def exhausted(self) -> BudgetExhausted:
        """See Budget."""
        if self._limits.run_tokens and self._sent >= self._limits.run_tokens:
            return BudgetExhausted(
                f"budget used up: about {self._sent} prompt tokens of {self._limits.run_tokens} a run are sent in "
                "batches; start again to go on"
            )
        now = self._clock().astimezone(UTC)
        midnight = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
        return BudgetExhausted(
            f"the day's budget of {self._limits.day_tokens} prompt tokens is used up by batches; work continues at "
            "00:00 UTC; or raise judge.budget",
            retry_after_s=(midnight - now).total_seconds(),
        )

    def _today(self) -> str:
        return self._clock().astimezone(UTC).date().isoformat()
