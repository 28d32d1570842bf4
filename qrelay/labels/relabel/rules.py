"""What becomes of a passage, by the role that the set gave it and by what the judge says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from qrelay.errors import InputError
from qrelay.formats.training.example import Decided, Decision
from qrelay.labels.ledger.precedence import kind_of
from qrelay.types import Graded, Judgment

NegativesAction = Literal["drop", "promote", "keep"]
PositivesAction = Literal["keep", "drop"]
MissingAction = Literal["keep", "drop"]
_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Rules:
    """relevant_from: the least P(relevant) at which a negative is a false one. wrong_below: the P(relevant) under
    which a positive is a wrong one. negatives, positives: what becomes of these. missing: what becomes of passages
    that the judge could not judge."""

    relevant_from: float = 0.5
    wrong_below: float = 0.1
    negatives: NegativesAction = "drop"
    positives: PositivesAction = "keep"
    missing: MissingAction = "keep"

    def __post_init__(self) -> None:
        if not 0 <= self.wrong_below <= self.relevant_from <= 1:
            raise InputError(
                f"--wrong-below {self.wrong_below} and --relevant-from {self.relevant_from}: both are probabilities,"
                " and the first is at most the second, or a passage would be relevant and not"
            )

    def false_negative(self, score: float | None) -> bool:
        """Whether a negative with this P(relevant) is relevant; a missing one is not known to be."""
        return score is not None and score >= self.relevant_from

    def wrong_positive(self, score: float | None) -> bool:
        """Whether a positive with this P(relevant) is not relevant."""
        return score is not None and score < self.wrong_below

    def decide(self, positives: Sequence[float | None], negatives: Sequence[float | None]) -> Decided:
        """The decisions on an example, by the P(relevant) of its passages."""
        return Decided(tuple(map(self._positive, positives)), tuple(map(self._negative, negatives)))

    def _positive(self, score: float | None) -> Decision:
        wrong = self.positives == "drop" and self.wrong_positive(score)
        return Decision(True, not wrong and self._stays(score), score)

    def _negative(self, score: float | None) -> Decision:
        false = self.negatives != "keep" and self.false_negative(score)
        if false and self.negatives == "promote":
            return Decision(True, True, score)
        return Decision(False, not false and self._stays(score), score)

    def _stays(self, score: float | None) -> bool:
        return score is not None or self.missing == "keep"

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def counting(judgments: Sequence[Judgment]) -> Judgment:
    """The judgment of a passage that counts, where several judges gave one: by the order of labels in exports, then
    the first judge's."""
    return min(judgments, key=lambda each: (kind_of(each.judge), not isinstance(each.outcome, Graded)))


def score_of(judgment: Judgment) -> float | None:
    """P(relevant), rounded as exports do; None where the judgment is missing."""
    outcome = judgment.outcome
    return round(outcome.p_relevant, _DECIMALS) if isinstance(outcome, Graded) else None
