"""How batches stand, in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from qrelay.llm.batch.records import Batch, BatchState, Pile


def shown(batches: Sequence[Batch], piles: Sequence[Pile], now: datetime, price: float, trouble: str = "") -> str:
    """One line about all of an account; "" where there is nothing. price: of a million prompt tokens in a batch."""
    parts = []
    if batches:
        running = sum(each.state is BatchState.RUNNING for each in batches)
        total, done, failed = (
            sum(getattr(each, name) for each in batches) for name in ("requests", "done", "failed")
        )
        oldest = min(each.planned_at for each in batches)
        parts.append(
            f"{len(batches)} in flight ({running} at the endpoint), {done} of {total} requests done, {failed} failed"
            f", the oldest for {lasting(now - oldest)}{_money(sum(each.tokens for each in batches), price)}"
        )
    if waiting := sum(each.requests for each in piles):
        since = min(each.since for each in piles)
        parts.append(f"{waiting} requests wait for the next, the first for {lasting(now - since)}")
    return "; ".join([*parts, *([trouble] if trouble and parts else [])])


def size(batch: Batch, price: float) -> str:
    """What a batch holds and costs."""
    return f"{batch.requests} requests, {batch.tokens} prompt tokens{_money(batch.tokens, price)}"


def lasting(span: timedelta) -> str:
    """A duration for people: "2 h 5 min"."""
    minutes = max(0, int(span.total_seconds() // 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _money(tokens: int, price: float) -> str:
    return f", about {tokens * price / 1e6:.2f} in money" if price else ""
