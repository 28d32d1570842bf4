"""What a judgment cache holds and says of itself: where it is, records, counts, rules of pruning, and how a grade is
written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime

from qrelay.errors import InternalError
from qrelay.types import Graded, JudgeIdentity, Judgment, Utility

NO_CACHE = ":none:"
POSTGRES = ("postgresql://", "postgres://")


@dataclass(frozen=True, slots=True)
class JudgeStats:
    """One judge's labels: how many, the prompt tokens that measuring them cost, and when (UTC)."""

    judge_hash: str
    judge: JudgeIdentity
    labels: int
    prompt_tokens: int
    oldest: datetime
    newest: datetime


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache holds, judge by judge."""

    judges: tuple[JudgeStats, ...]

    @property
    def labels(self) -> int:
        """All labels."""
        return sum(each.labels for each in self.judges)

    @property
    def prompt_tokens(self) -> int:
        """What all labels cost when they were measured."""
        return sum(each.prompt_tokens for each in self.judges)


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """One label as it is stored. prompt_tokens: what measuring it cost; created_at: when, UTC."""

    judgment_key: str
    judge_hash: str
    judge: JudgeIdentity
    outcome: Graded
    raw_reply: str
    prompt_tokens: int
    created_at: datetime

    def as_judgment(self) -> Judgment:
        """As the cache answers: without passage_id and without cost."""
        return Judgment("", self.judgment_key, self.outcome, self.judge, self.created_at, True, self.raw_reply)


@dataclass(frozen=True, slots=True)
class PruneRule:
    """Which labels to remove: those for which everything said here holds; at least one thing must be said.

    judge: beginning of the judge's hash. before: measured earlier. keep: hashes of judges whose labels stay.
    """

    judge: str = ""
    before: datetime | None = None
    keep: frozenset[str] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is said."""
        return not self.judge and self.before is None and self.keep is None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was, or would be, removed. prompt_tokens: what measuring it again would cost."""

    labels: int
    prompt_tokens: int


def refuse_failures(judgments: Sequence[Judgment]) -> None:
    """Raises InternalError unless every judgment is graded."""
    for judgment in judgments:
        if not isinstance(judgment.outcome, Graded):
            raise InternalError(f"a missing judgment ({judgment.outcome.reason}) was about to be cached")


def encode(outcome: Graded) -> str:
    """A JSON list: floats survive it exactly."""
    return json.dumps(
        [outcome.grade, outcome.min_grade, outcome.probabilities, outcome.expected_relevance,
         outcome.entropy, outcome.p_relevant, outcome.calibration,
         astuple(outcome.utility) if outcome.utility else None]
    )  # fmt: skip


def decode(text: str) -> Graded:
    """Back from `encode`; labels from before there were utilities have none."""
    grade, min_grade, probabilities, expected, entropy, p_relevant, calibration, *rest = json.loads(text)
    measured = Utility(*rest[0]) if rest and rest[0] else None
    return Graded(grade, min_grade, tuple(probabilities), expected, entropy, p_relevant, calibration, measured)
