"""What judging may cost."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from qrelay.config import Section


class BudgetSettings(Section):
    """What judging may cost. At a limit the judge stops cleanly: the queue keeps the rest for a later run."""

    tokens_per_run: int = Field(0, ge=0, description="Prompt tokens of one run of the service; 0: no limit")
    tokens_per_day: int = Field(0, ge=0, description="Prompt tokens of one day (UTC), all replicas; 0: no limit")
    money_per_run: float = Field(0.0, ge=0, description="Money of one run, in the currency of the price; 0: no limit")
    money_per_day: float = Field(0.0, ge=0, description="Money of one day (UTC), all replicas; 0: no limit")
    price_per_million_tokens: float = Field(0.0, ge=0, description="Price of a million prompt tokens")

    @property
    def run_tokens(self) -> int:
        """Prompt tokens of one run, by whichever limit is lower; 0: no limit."""
        return self._lowest(self.tokens_per_run, self.money_per_run)

    @property
    def day_tokens(self) -> int:
        """Prompt tokens of one UTC day, by whichever limit is lower; 0: no limit."""
        return self._lowest(self.tokens_per_day, self.money_per_day)

    def _lowest(self, tokens: int, money: float) -> int:
        bought = max(1, int(money / self.price_per_million_tokens * 1_000_000)) if money else 0
        return min(filter(None, (tokens, bought)), default=0)

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if (self.money_per_run or self.money_per_day) and not self.price_per_million_tokens:
            raise ValueError("money_per_run and money_per_day need price_per_million_tokens")
        return self
