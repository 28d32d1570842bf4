"""The vocabulary of mining: its rules with their numbers, what it takes, what it says.

Every passage of a query gets one role and one reason, a stable word:

    role       reason                       what it says
    positive   relevant                     graded relevant, and the current model ranks it high enough
               hard_relevant                graded relevant beyond rank `hard_positive_below`: a hard positive
    negative   top_rank                     not relevant, and in the current model's top `negative_rank`
               bm25_only, dense_only        not relevant, and in the top `disagreement_rank` of this one alone
               easy                         surely not relevant and not hard, to mix with the hard ones
    neither    missing                      its judgment failed: never a negative
               uncertain                    P(relevant) is not under `negative_threshold`
               no_confident_positive        the query has no positive with P(relevant) of `confident_positive`
               near_best_label              P(relevant) above `max_share_of_best` of the query's best
               best_by_judge                in the judge's own top `judge_rank` of the query
               agreed_top                   every system and the judge have it in their top `agreement_rank`
               duplicate_of_positive        the id or the words of a positive
               near_duplicate_of_positive   Jaccard similarity of `near_duplicate` or more to a positive
               sibling_of_positive          from the document of a positive
               above_guard                  teacher score above `guard_ratio` of the best positive's
               within_margin                teacher score less than `guard_margin` under the best positive's
               not_hard                     may be a negative, but misled no ranker, and is no easy one either
               duplicate_of_negative        the words of a negative that was chosen
               near_duplicate_of_negative   Jaccard similarity of `near_duplicate` or more to a chosen negative
               over_limit                   hard, but `max_negatives` are there already
    unjudged   not_judged                   no judge saw it: never a negative (`explain.py` alone says so)
               no_text                      it has a label, but the ledger holds no text of it to train on

A passage that several filters would drop is dropped by the first of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from qrelay.scales import RELEVANT_GRADE
from qrelay.types import Candidate

POSITIVE: Final = "positive"
NEGATIVE: Final = "negative"
NEITHER: Final = "neither"
UNJUDGED: Final = "unjudged"

POSITIVE_REASONS: Final = ("relevant", "hard_relevant")
EASY: Final = "easy"
HARD_REASONS: Final = ("top_rank", "bm25_only", "dense_only")
FILTER_REASONS: Final = (
    "missing",
    "uncertain",
    "no_confident_positive",
    "near_best_label",
    "best_by_judge",
    "agreed_top",
    "duplicate_of_positive",
    "near_duplicate_of_positive",
    "sibling_of_positive",
    "above_guard",
    "within_margin",
)
"""Why a judged passage can be no negative at all, in the order of the checks."""
UNCHOSEN_REASONS: Final = ("not_hard", "duplicate_of_negative", "near_duplicate_of_negative", "over_limit")
"""Why a passage that could be a negative is not one."""
UNJUDGED_REASONS: Final = ("not_judged", "no_text")
REASONS: Final = {
    POSITIVE: POSITIVE_REASONS,
    NEGATIVE: (*HARD_REASONS, EASY),
    NEITHER: FILTER_REASONS + UNCHOSEN_REASONS,
    UNJUDGED: UNJUDGED_REASONS,
}
"""role -> its reasons: the table of the module's docstring."""


@dataclass(frozen=True, slots=True)
class MiningRules:
    """The numbers of the rules. Ranks count from 1; a filter at 0 is off."""

    negative_threshold: float = 0.4
    """A negative's P(relevant) is under it; at 1 it excludes nothing."""
    max_negatives: int = 10
    """Hard negatives of one query, at most; easy ones come on top."""
    negative_rank: int = 5
    disagreement_rank: int = 20
    hard_positive_below: int = 10
    guard_ratio: float = 0.95
    """Share of the best positive's teacher score that no negative exceeds."""
    relevant_grades: Mapping[str, int] = field(default_factory=lambda: dict(RELEVANT_GRADE))
    without_stage_scores: bool = False
    """Count no label that leans on the retrieval stages' scores (`JudgeIdentity.uses_retrieval_scores`)."""
    guard_margin: float = 0.0
    """Distance under the best positive's teacher score that every negative keeps, in that system's units."""
    near_duplicate: float = 0.8
    """Jaccard similarity from which two texts are near-duplicates, see `texts.py`."""
    siblings: bool = True
    """Whether a positive's document is left out whole."""
    confident_positive: float = 0.5
    """P(relevant) of its best positive from which a query gives negatives."""
    max_share_of_best: float = 0.5
    """Share of the query's best P(relevant) that no negative exceeds."""
    judge_rank: int = 1
    """No negative is among the query's first so many passages by P(relevant)."""
    agreement_rank: int = 1
    """No negative is among the first so many of every system and of the judge."""
    easy_per_hard: float = 2.0
    """Easy negatives for each hard one, rounded half up; 0: none."""
    easy_threshold: float = 0.1
    """An easy negative's P(relevant) is under it as well."""
    duplicates: bool = True
    """Whether passages with a positive's id or words are left out. Off only to measure what that is worth."""


@dataclass(frozen=True, slots=True)
class JudgedPassage:
    """A candidate with its label: `grade` on `scale`, or None where the judgment is missing."""

    candidate: Candidate
    grade: int | None
    p_relevant: float | None
    scale: str


@dataclass(frozen=True, slots=True)
class Because:
    """The numbers behind a reason, as far as it has any: the passage's `value`, the `limit` that it broke, and the
    passage_id of the `other` that set it."""

    value: float | None = None
    limit: float | None = None
    other: str = ""


NO_NUMBERS: Final = Because()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What mining made of one judged passage. `role` is POSITIVE, NEGATIVE or NEITHER, `reason` the rule that
    decided, in one word of the module's table, and `because` its numbers."""

    judged: JudgedPassage
    role: str
    reason: str
    because: Because = NO_NUMBERS

    @property
    def hard(self) -> bool:
        """Whether it is a hard negative."""
        return self.reason in HARD_REASONS

    @property
    def passage_id(self) -> str:
        """Of the passage."""
        return self.judged.candidate.passage.passage_id
