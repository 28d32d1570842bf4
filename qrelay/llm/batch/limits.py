"""What bounds a batch, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from qrelay.errors import BudgetExhausted

BYTES_A_TOKEN: Final = 4
"""Of a request's line, roughly; what a batch costs is estimated so before it is sent."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """max_requests, max_bytes: of one batch. max_wait_s: seconds that the first request of one waits for more.
    window: within which the endpoint is to answer. max_in_flight: batches at once. poll_s: seconds between looks.
    max_tries: batches that a request may be in without an answer. retry_failed_s: seconds after which one that failed
    may be asked again. look_again_s: seconds until a list that does not show a creation is believed. max_line_bytes:
    of one answer. keep_files: whether the endpoint's files stay."""

    max_requests: int = 50_000
    max_bytes: int = 190_000_000
    max_wait_s: float = 600.0
    window: str = "24h"
    max_in_flight: int = 8
    poll_s: float = 30.0
    max_tries: int = 3
    retry_failed_s: float = 3600.0
    look_again_s: float = 120.0
    max_line_bytes: int = 4 * 1024**2
    keep_files: bool = False


class Budget(Protocol):
    """What batches may cost; asked before one is sent. Methods block."""

    price: float
    """Of a million prompt tokens in a batch; 0: not known."""

    def room(self, in_flight: int) -> int | None:
        """Prompt tokens that may be sent now, beside so many in flight; None: any number."""

    def sent(self, tokens: int) -> None:
        """So many are."""

    def exhausted(self) -> BudgetExhausted:
        """Why there is no room, and until when."""


class Unlimited:
    """No budget."""

    price = 0.0

    def room(self, in_flight: int) -> int | None:  # noqa: ARG002
        """Any number."""
        return None

    def sent(self, tokens: int) -> None:
        """Not counted."""

    def exhausted(self) -> BudgetExhausted:
        """Never asked."""
        return BudgetExhausted("no budget")
