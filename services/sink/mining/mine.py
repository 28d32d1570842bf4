"""Mining: which judged passages teach a model something. Pure functions of one query's records.

A judgment's grade says what is relevant; the systems' scores say what is hard.

- positive: grade at or above the scale's relevant grade; *hard* if the current model ranks it below
  `hard_positive_below` (10).
- hard negative: judged, not relevant, P(relevant) under `negative_threshold`, and either the current model
  ranks it in its top `negative_rank` (5), or exactly one of BM25 and dense has it in its top
  `disagreement_rank` (20). At most `max_negatives` (10) a query, the highest ranked first.
- What is missing, or was never judged, is neither.

Guards against false negatives, in this order: a passage that is a positive by id or text, is its
near-duplicate (same words), or comes from the document of a positive; and the positive-aware threshold of
NV-Retriever (https://arxiv.org/abs/2407.15831, section 4.2: 95% of the positive's teacher score).

The *current model* of a query is the first of cross_encoder, bi_encoder, dense that scored any of its
candidates: the last system in the pipeline is the one whose mistakes are worth training on. It is chosen
once a query, not once a passage, because ranks of two systems do not compare. Its scores are the guard's
*teacher* scores, for it is the strongest there is beside the judge. A passage that it scored without ranking it
(rank 0), or did not see, counts as ranked below everything.

The guard's teacher is the pupil too, in part: a label that leans on the stages' scores would teach the pupil its own
opinion. `without_stage_scores` leaves such labels out before mining, and the pair's next label counts.

The positive whose score bounds the negatives is the best-scoring one. With the worst instead, one hard
positive would throw away every negative ranked above it, which are those worth having.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from qrelay.types import BI_ENCODER, BM25, CROSS_ENCODER, DENSE, Candidate

RELEVANT_GRADE: Final = {"0-1": 1, "0-3": 2, "1-4": 3}
"""The least grade that counts as relevant, by scale."""
CURRENT_MODEL: Final = (CROSS_ENCODER, BI_ENCODER, DENSE)

POSITIVE: Final = "positive"
NEGATIVE: Final = "negative"
NEITHER: Final = "neither"

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class MiningRules:
    """The numbers of the rules; see the module's docstring. Ranks count from 1."""

    negative_threshold: float = 0.4
    max_negatives: int = 10
    negative_rank: int = 5
    disagreement_rank: int = 20
    hard_positive_below: int = 10
    guard_ratio: float = 0.95
    relevant_grades: Mapping[str, int] = field(default_factory=lambda: dict(RELEVANT_GRADE))
    without_stage_scores: bool = False
    """Count no label that leans on the retrieval stages' scores (`labels.leans_on_stage_scores`)."""


@dataclass(frozen=True, slots=True)
class JudgedPassage:
    """A candidate with its label: `grade` on `scale`, or None where the judgment is missing."""

    candidate: Candidate
    grade: int | None
    p_relevant: float | None
    scale: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What mining made of one judged passage. `role` is POSITIVE, NEGATIVE or NEITHER and `reason` the rule
    that decided, in one stable word:

    positive: relevant, hard_relevant. negative: top_rank, bm25_only, dense_only.
    neither: missing, not_hard, uncertain (P(relevant) too high), duplicate_of_positive,
    sibling_of_positive, above_guard, duplicate_of_negative, over_limit.
    """

    judged: JudgedPassage
    role: str
    reason: str


def mine(passages: Sequence[JudgedPassage], rules: MiningRules) -> list[Verdict]:
    """A verdict on every judged passage: positives by grade and probability, negatives by rank, then the
    rest by id. The order of `passages` does not matter."""
    system = current_model([judged.candidate for judged in passages])
    positives = [judged for judged in passages if is_relevant(judged, rules)]
    verdicts = [_positive(judged, system, rules) for judged in sorted(positives, key=_best_first)]
    guards = _Guards.of(positives, system, rules)
    hard: list[Verdict] = []
    rest: list[Verdict] = []
    for judged in passages:
        if is_relevant(judged, rules):
            continue
        reason = _why_not(judged, rules) or guards.objection(judged)
        chosen = "" if reason else _why_hard(judged, system, rules)
        if chosen:
            hard.append(Verdict(judged, NEGATIVE, chosen))
        else:
            rest.append(Verdict(judged, NEITHER, reason or "not_hard"))
    hard.sort(key=lambda verdict: _hardest_first(verdict, system))
    return verdicts + _capped(hard, rest, rules)


def is_relevant(judged: JudgedPassage, rules: MiningRules) -> bool:
    """Whether the label says relevant; a missing one does not."""
    return judged.grade is not None and judged.grade >= rules.relevant_grades[judged.scale]


def current_model(candidates: Sequence[Candidate]) -> str:
    """The system whose mistakes are mined: see the module's docstring."""
    present = {score.system for candidate in candidates for score in candidate.scores}
    return next((system for system in CURRENT_MODEL if system in present), DENSE)


def rank_of(candidate: Candidate, system: str) -> float:
    """The system's rank of the passage, from 1; infinite where it did not rank it."""
    score = candidate.score(system)
    return score.rank if score and score.rank > 0 else math.inf


def normalised(text: str) -> str:
    """The words of a text in lower case: texts that differ in spacing, punctuation or case are the same."""
    return " ".join(_WORD.findall(text.casefold()))


@dataclass(frozen=True, slots=True)
class _Guards:
    """What a query's positives forbid its negatives."""

    ids: frozenset[str]
    documents: frozenset[str]
    texts: frozenset[str]
    system: str
    limit: float
    """Teacher scores above it are too near to the positive's."""

    @classmethod
    def of(cls, positives: Sequence[JudgedPassage], system: str, rules: MiningRules) -> _Guards:
        passages = [judged.candidate.passage for judged in positives]
        scores = [s for s in (_teacher_score(judged, system) for judged in positives) if s is not None]
        best = max(scores, default=math.inf)
        return cls(
            ids=frozenset(passage.passage_id for passage in passages),
            documents=frozenset(passage.doc_id for passage in passages),
            texts=frozenset(normalised(passage.text) for passage in passages) - {""},
            system=system,
            # A share of |best|, so that the guard also holds for cross-encoders' negative logits.
            limit=best - (1.0 - rules.guard_ratio) * abs(best) if scores else math.inf,
        )

    def objection(self, judged: JudgedPassage) -> str:
        """Why this passage cannot be a negative; empty where it can."""
        passage = judged.candidate.passage
        if passage.passage_id in self.ids or normalised(passage.text) in self.texts:
            return "duplicate_of_positive"
        if passage.doc_id in self.documents:
            return "sibling_of_positive"
        score = _teacher_score(judged, self.system)
        return "above_guard" if score is not None and score > self.limit else ""


def _positive(judged: JudgedPassage, system: str, rules: MiningRules) -> Verdict:
    hard = rank_of(judged.candidate, system) > rules.hard_positive_below
    return Verdict(judged, POSITIVE, "hard_relevant" if hard else "relevant")


def _why_not(judged: JudgedPassage, rules: MiningRules) -> str:
    if judged.grade is None or judged.p_relevant is None:
        return "missing"
    return "" if judged.p_relevant < rules.negative_threshold else "uncertain"


def _why_hard(judged: JudgedPassage, system: str, rules: MiningRules) -> str:
    candidate = judged.candidate
    if rank_of(candidate, system) <= rules.negative_rank:
        return "top_rank"
    in_bm25 = rank_of(candidate, BM25) <= rules.disagreement_rank
    in_dense = rank_of(candidate, DENSE) <= rules.disagreement_rank
    if in_bm25 == in_dense:
        return ""
    return "bm25_only" if in_bm25 else "dense_only"


def _teacher_score(judged: JudgedPassage, system: str) -> float | None:
    score = judged.candidate.score(system)
    return score.score if score else None


def _best_first(judged: JudgedPassage) -> tuple[int, float, str]:
    return -(judged.grade or 0), -(judged.p_relevant or 0.0), judged.candidate.passage.passage_id


def _hardest_first(verdict: Verdict, system: str) -> tuple[bool, float, float, str]:
    candidate = verdict.judged.candidate
    better = min(rank_of(candidate, BM25), rank_of(candidate, DENSE))
    return verdict.reason != "top_rank", rank_of(candidate, system), better, candidate.passage.passage_id


def _capped(hard: Sequence[Verdict], rest: Sequence[Verdict], rules: MiningRules) -> list[Verdict]:
    """The hardest negatives with texts of their own, then everything else by id."""
    kept: list[Verdict] = []
    left = list(rest)
    texts: set[str] = set()
    for verdict in hard:
        text = normalised(verdict.judged.candidate.passage.text)
        if text and text in texts:
            left.append(Verdict(verdict.judged, NEITHER, "duplicate_of_negative"))
        elif len(kept) >= rules.max_negatives:
            left.append(Verdict(verdict.judged, NEITHER, "over_limit"))
        else:
            texts.add(text)
            kept.append(verdict)
    return kept + sorted(left, key=lambda verdict: verdict.judged.candidate.passage.passage_id)
