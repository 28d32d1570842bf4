"""The judgment cache, keyed by full identity: in a database (cache_sql.py), or nowhere.

A key covers query, passage, model, prompt, scale and decoding (`qrelay.identity.judgment_key`), so two
judges can never share a label, and changing any of them asks anew. Only grades are ever stored: a failure
is not a measurement. The first writer of a key wins. Killed at any moment, the cache is intact and at worst
lacks the last moment's labels, which are judged again.

Beside the labels it counts the prompt tokens spent a day, so that replicas share a day's budget (budget.py), and says
how an endpoint is asked, so that they share an identity (`qrelay.llm.ways`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from qrelay.judging.cache_records import NO_CACHE, CacheRecord, CacheStats, Pruned, PruneRule, refuse_failures
from qrelay.llm.base import Weights
from qrelay.types import Judgment


class JudgmentCache(Protocol):
    """A store of graded judgments. Methods block: call them off the event loop.

    Every method raises BackendUnavailable where the store cannot be reached, read or written.
    """

    def get_many(self, keys: Sequence[str]) -> dict[str, Judgment]:
        """The judgments that are there, by key, `cached` and without cost; passage_id is empty."""

    def put_many(self, judgments: Sequence[Judgment]) -> None:
        """Store them; a key that is there keeps its first judgment.

        Raises:
            InternalError: one of them is not graded.
        """

    def stats(self) -> CacheStats:
        """Counts, judge by judge."""

    def records(self, after: str = "", limit: int = 1000) -> list[CacheRecord]:
        """The next labels in the order of their keys, from above `after`; none at the end."""

    def prune(self, rule: PruneRule, *, dry_run: bool = False) -> Pruned:
        """Remove the labels of a rule, or say what it would remove."""

    def spent(self, day: str) -> int:
        """Prompt tokens counted for a day, as 2025-03-01 in UTC."""

    def spend(self, day: str, tokens: int) -> None:
        """Count prompt tokens for a day."""

    def recall(self, key: str) -> str | None:
        """What was written down under a key."""

    def note(self, key: str, text: str) -> str:
        """Write down; the first text of a key stays. What stands now."""

    def has_labels(self, weights: Weights, decodings: Sequence[str]) -> bool:
        """Whether this model ever made labels under one of these decodings."""

    def close(self) -> None:
        """Release the file or connection."""


def open_cache(path: str) -> JudgmentCache:
    """The cache at `path` or at a postgresql:// address, or one that holds nothing for NO_CACHE.

    Raises:
        ConfigError: it cannot be opened or is no cache of this version.
    """
    if path == NO_CACHE:
        return NoCache()
    from qrelay.judging.cache_sql import SqlCache

    return SqlCache(path)


class NoCache:
    """Holds no labels, but counts what this process spends, and keeps its notes."""

    def __init__(self) -> None:
        self._spent: dict[str, int] = {}
        self._notes: dict[str, str] = {}

    def get_many(self, keys: Sequence[str]) -> dict[str, Judgment]:  # noqa: ARG002
        """Nothing."""
        return {}

    def put_many(self, judgments: Sequence[Judgment]) -> None:
        """Checks, and forgets."""
        refuse_failures(judgments)

    def stats(self) -> CacheStats:
        """No judges."""
        return CacheStats(())

    def records(self, after: str = "", limit: int = 1000) -> list[CacheRecord]:  # noqa: ARG002
        """Nothing."""
        return []

    def prune(self, rule: PruneRule, *, dry_run: bool = False) -> Pruned:  # noqa: ARG002
        """Nothing to remove."""
        return Pruned(0, 0)

    def spent(self, day: str) -> int:
        """By this process."""
        return self._spent.get(day, 0)

    def spend(self, day: str, tokens: int) -> None:
        """By this process."""
        self._spent[day] = self.spent(day) + tokens

    def recall(self, key: str) -> str | None:
        """Of this process."""
        return self._notes.get(key)

    def note(self, key: str, text: str) -> str:
        """For this process."""
        return self._notes.setdefault(key, text)

    def has_labels(self, weights: Weights, decodings: Sequence[str]) -> bool:  # noqa: ARG002
        """None that it knows of."""
        return False

    def close(self) -> None:
        """Nothing to release."""
