"""A budget: prompt tokens, or the money they cost, until they are used up. A core within one is `Budgeted`; what asks
an engine beside labels (`asking.py`) counts in the same way.

Checked before a batch of sets is judged, counted after it: what is begun is finished, so a limit is passed by at most
the batches in flight. At a limit `judge` raises BudgetExhausted and nothing of the batch is asked. The queue's worker
then holds its messages until the day (UTC) is over, or, where the run's budget is used up, returns them and ends the
service with exit code 0; gRPC calls get RESOURCE_EXHAUSTED.

The day's counter lies in the judgment cache, so that replicas share it and a restart does not forget it. Money is
tokens times one price, whichever judge asked; labels from the cache cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Protocol

from qrelay.errors import BudgetExhausted, ConfigError, QrelayError, TransientError
from qrelay.judging.budget_settings import BudgetSettings
from qrelay.judging.cache import open_cache
from qrelay.judging.cache_records import NO_CACHE
from qrelay.judging.core import JudgeCore
from qrelay.judging.judge import utc_now
from qrelay.judging.settings import JudgeSettings
from qrelay.runtime import telemetry
from qrelay.runtime.stage import Info
from qrelay.types import CandidateSet, JudgedSet

log = logging.getLogger(__name__)


class SpendStore(Protocol):
    """Where a day's tokens are counted; every judgment cache is one. Methods block."""

    def spent(self, day: str) -> int:
        """Prompt tokens counted for a day, as 2025-03-01 in UTC."""

    def spend(self, day: str, tokens: int) -> None:
        """Count prompt tokens for a day."""

    def close(self) -> None:
        """Release it."""


class Budget:
    """What may be spent, and what is, of one run and of the day. Use from one event loop."""

    def __init__(self, limits: BudgetSettings, store: SpendStore, *, clock: Callable[[], datetime] = utc_now) -> None:
        """`store` is closed with the budget; `clock` gives UTC times."""
        self._limits = limits
        self._store = store
        self._clock = clock
        self._run = 0
        self._uncounted = 0
        telemetry.BUDGET_PRICE.set(limits.price_per_million_tokens)
        for period, tokens in (("run", limits.run_tokens), ("day", limits.day_tokens)):
            if tokens:
                telemetry.BUDGET.labels(period).set(tokens)
        if limits.run_tokens:
            telemetry.BUDGET_LEFT.labels("run").set(limits.run_tokens)

    async def check(self) -> None:
        """Before something is asked.

        Raises:
            BudgetExhausted: `retry_after_s` says when the next day begins, None: not in this run.
            BackendUnavailable: the day's counter cannot be read.
        """
        run, day = self._limits.run_tokens, self._limits.day_tokens
        if run and self._run >= run:
            raise BudgetExhausted(f"budget used up: {self._said(self._run, run, 'run')}; start again to go on")
        if not day:
            return
        spent = self._uncounted + await asyncio.to_thread(self._store.spent, self._today())
        telemetry.BUDGET_LEFT.labels("day").set(max(0, day - spent))
        if spent >= day:
            raise BudgetExhausted(
                f"the day's budget is used up: {self._said(spent, day, 'day')}; work continues at 00:00 UTC; or "
                "raise judge.budget",
                retry_after_s=self._until_midnight(),
            )

    async def count(self, tokens: int) -> None:
        """After it was: prompt tokens that were paid for."""
        self._run += tokens
        self._uncounted += tokens
        if self._limits.run_tokens:
            telemetry.BUDGET_LEFT.labels("run").set(max(0, self._limits.run_tokens - self._run))
        if not self._uncounted or not self._limits.day_tokens:
            return
        counted, self._uncounted = self._uncounted, 0
        try:
            await asyncio.to_thread(self._store.spend, self._today(), counted)
        except TransientError as error:
            self._uncounted += counted
            log.warning("%d prompt tokens are not counted yet: %s", self._uncounted, error)

    def _said(self, spent: int, limit: int, period: str) -> str:
        price = self._limits.price_per_million_tokens
        money = f", {spent * price / 1e6:.2f} in money" if price else ""
        return f"{spent} prompt tokens{money} of {limit} a {period}"

    def _today(self) -> str:
        return self._clock().astimezone(UTC).date().isoformat()

    def _until_midnight(self) -> float:
        now = self._clock().astimezone(UTC)
        return (datetime.combine(now.date() + timedelta(days=1), time(), UTC) - now).total_seconds()

    def details(self) -> dict[str, str]:
        """For GetInfo: the limits, and what is spent."""
        limits = {"run": self._limits.run_tokens, "day": self._limits.day_tokens}
        shown = {f"budget a {period}": f"{tokens} prompt tokens" for period, tokens in limits.items() if tokens}
        return {**shown, "budget: spent in this run": f"{self._run} prompt tokens"}

    def close(self) -> None:
        """Close the counter."""
        self._store.close()


class Budgeted:
    """A core within a budget. Use from one event loop."""

    def __init__(self, core: JudgeCore, budget: Budget) -> None:
        """Both are closed with it."""
        self.core, self._budget = core, budget

    async def judge(self, sets: Sequence[CandidateSet]) -> list[JudgedSet | QrelayError]:
        """As the core does. Raises as `Budget.check`: then nothing was asked."""
        await self._budget.check()
        answers = await self.core.judge(sets)
        judged = [each for each in answers if isinstance(each, JudgedSet)]
        await self._budget.count(sum(judgment.prompt_tokens for each in judged for judgment in each.judgments))
        return answers

    def info(self) -> Info:
        """The core's, and the budget's limits."""
        info = self.core.info()
        return Info(info.models, {**info.details, **self._budget.details()})

    def close(self) -> None:
        """Close the core and the counter."""
        self.core.close()
        self._budget.close()


def within_budget(settings: JudgeSettings, core: JudgeCore) -> JudgeCore:
    """The core within the settings' budget; itself where there is none. Raises as `budget_of`."""
    budget = budget_of(settings)
    return Budgeted(core, budget) if budget else core


def budget_of(settings: JudgeSettings) -> Budget | None:
    """The settings' budget, if there is one.

    Raises:
        ConfigError: a day's budget without a cache to count it in.
    """
    limits = settings.priced_budget
    if not limits.run_tokens and not limits.day_tokens:
        return None
    if limits.day_tokens and settings.cache_path == NO_CACHE:
        raise ConfigError(
            f"judge.budget has a limit a day, which is counted in the judgment cache, but judge.cache is {NO_CACHE}: "
            "name a file or a database"
        )
    return Budget(limits, open_cache(settings.cache_path))
