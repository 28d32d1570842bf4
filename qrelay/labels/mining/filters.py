"""Filters against false negatives: one small function each, asked in the order of CHECKS.

- The positive-aware filter is NV-Retriever's (https://arxiv.org/abs/2407.15831, section 4.2): no negative's teacher
  score exceeds 95% of the positive's (there TopK-PercPos; `guard_margin` is its TopK-MarginPos). The positive whose
  score bounds the negatives is the best-scoring one. With the worst instead, one hard positive would throw away every
  negative ranked above it, which are those worth having. The share is of the score's size, so that the filter also
  holds for cross-encoders' negative logits.
- The filters by label are about the judge's own doubts: where it found no good answer, it may have missed the one
  there is; and what it puts nearest to the answer is likeliest to be another.
- The filters by text and document: a judge may grade two copies differently, and a chunk of the document that holds
  the answer often holds the rest of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qrelay.labels.mining.rules import Because, JudgedPassage, MiningRules
from qrelay.labels.mining.texts import Texts
from qrelay.ranks import current_model, rank_of, ranking_systems, score_of
from qrelay.scales import Scale


@dataclass(frozen=True, slots=True)
class Pool:
    """One query's judged passages as the filters see them. `system`: the current model, whose scores are the
    teacher's. `judge_ranks`: passage_id -> place by P(relevant), from 1. `best`: P(relevant) and id of the query's
    best label; `teacher`: score and id of the positive that scores best. Both are None where there is none."""

    rules: MiningRules
    texts: Texts
    system: str
    systems: tuple[str, ...]
    positives: tuple[JudgedPassage, ...]
    judge_ranks: Mapping[str, int]
    best: tuple[float, str] | None
    teacher: tuple[float, str] | None

    @classmethod
    def of(cls, passages: Sequence[JudgedPassage], rules: MiningRules) -> Pool:
        """`passages` in any order."""
        candidates = [judged.candidate for judged in passages]
        system = current_model(candidates)
        positives = sorted((judged for judged in passages if is_relevant(judged, rules)), key=best_first)
        order = sorted((judged for judged in passages if judged.grade is not None), key=_surest_first)
        scored = [(score, _id(each)) for each in positives if (score := score_of(each.candidate, system)) is not None]
        return cls(
            rules=rules,
            texts=Texts(),
            system=system,
            systems=ranking_systems(candidates),
            positives=tuple(positives),
            judge_ranks={_id(judged): place for place, judged in enumerate(order, 1)},
            best=(order[0].p_relevant or 0.0, _id(order[0])) if order else None,
            teacher=min(scored, key=lambda found: (-found[0], found[1]), default=None),
        )

    def objection(self, judged: JudgedPassage) -> tuple[str, Because] | None:
        """Why this passage can be no negative; None where it can."""
        for reason, check in CHECKS:
            if (because := check(judged, self)) is not None:
                return reason, because
        return None


def is_relevant(judged: JudgedPassage, rules: MiningRules) -> bool:
    """Whether the label says relevant; a missing one does not. Raises InputError: its scale has no relevant grade."""
    return Scale.named(judged.scale, rules.relevant_grades).relevant(judged.grade)


def best_first(judged: JudgedPassage) -> tuple[int, float, str]:
    """Sorts by grade, then by P(relevant), then by id."""
    return -(judged.grade or 0), -(judged.p_relevant or 0.0), _id(judged)


def _missing(judged: JudgedPassage, _: Pool) -> Because | None:
    return Because() if judged.grade is None or judged.p_relevant is None else None


def _uncertain(judged: JudgedPassage, pool: Pool) -> Because | None:
    return _at_least(_p(judged), pool.rules.negative_threshold) if pool.rules.negative_threshold < 1 else None


def _no_confident_positive(_: JudgedPassage, pool: Pool) -> Because | None:
    wanted = pool.rules.confident_positive
    surest = max((_p(each) for each in pool.positives), default=None)
    if not wanted or (surest is not None and surest >= wanted):
        return None
    return Because(surest, wanted)


def _near_best_label(judged: JudgedPassage, pool: Pool) -> Because | None:
    share = pool.rules.max_share_of_best
    if not share or pool.best is None:
        return None
    return _above(_p(judged), share * pool.best[0], pool.best[1])


def _best_by_judge(judged: JudgedPassage, pool: Pool) -> Because | None:
    place, last = pool.judge_ranks[_id(judged)], pool.rules.judge_rank
    return Because(place, last) if place <= last else None


def _agreed_top(judged: JudgedPassage, pool: Pool) -> Because | None:
    last = pool.rules.agreement_rank
    if not last or len(pool.systems) < 2:
        return None
    ranks = [rank_of(judged.candidate, system) for system in pool.systems]
    worst = max(*ranks, pool.judge_ranks[_id(judged)])
    return Because(worst, last) if worst <= last else None


def _duplicate(judged: JudgedPassage, pool: Pool) -> Because | None:
    if not pool.rules.duplicates:
        return None
    words = _words(judged, pool)
    for each in pool.positives:
        if _id(each) == _id(judged) or (words and _words(each, pool) == words):
            return Because(other=_id(each))
    return None


def _near_duplicate(judged: JudgedPassage, pool: Pool) -> Because | None:
    return nearest(judged, pool.positives, pool)


def _sibling(judged: JudgedPassage, pool: Pool) -> Because | None:
    if not pool.rules.siblings:
        return None
    document = judged.candidate.passage.doc_id
    found = (_id(each) for each in pool.positives if each.candidate.passage.doc_id == document)
    return next((Because(other=other) for other in found), None)


def _above_guard(judged: JudgedPassage, pool: Pool) -> Because | None:
    score, ratio = score_of(judged.candidate, pool.system), pool.rules.guard_ratio
    if not ratio or score is None or pool.teacher is None:
        return None
    best, other = pool.teacher
    return _above(score, best - (1.0 - ratio) * abs(best), other)


def _within_margin(judged: JudgedPassage, pool: Pool) -> Because | None:
    score, margin = score_of(judged.candidate, pool.system), pool.rules.guard_margin
    if not margin or score is None or pool.teacher is None:
        return None
    return _above(score, pool.teacher[0] - margin, pool.teacher[1])


CHECKS: Final[tuple[tuple[str, Callable[[JudgedPassage, Pool], Because | None]], ...]] = (
    ("missing", _missing),
    ("uncertain", _uncertain),
    ("no_confident_positive", _no_confident_positive),
    ("near_best_label", _near_best_label),
    ("best_by_judge", _best_by_judge),
    ("agreed_top", _agreed_top),
    ("duplicate_of_positive", _duplicate),
    ("near_duplicate_of_positive", _near_duplicate),
    ("sibling_of_positive", _sibling),
    ("above_guard", _above_guard),
    ("within_margin", _within_margin),
)
"""reason -> whether it holds of a passage that is not relevant: its numbers, or None."""


def nearest(judged: JudgedPassage, others: Sequence[JudgedPassage], pool: Pool) -> Because | None:
    """The most similar of the others, of equals the first by id, where it is a near-duplicate."""
    limit, text = pool.rules.near_duplicate, judged.candidate.passage.text
    if not limit or not others:
        return None
    found = [(-pool.texts.similarity(text, each.candidate.passage.text), _id(each)) for each in others]
    negated, other = min(found)
    return _at_least(-negated, limit, other)


def _at_least(value: float, limit: float, other: str = "") -> Because | None:
    return Because(value, limit, other) if value >= limit else None


def _above(value: float, limit: float, other: str) -> Because | None:
    return Because(value, limit, other) if value > limit else None


def _surest_first(judged: JudgedPassage) -> tuple[float, int, str]:
    return -_p(judged), -(judged.grade or 0), _id(judged)


def _p(judged: JudgedPassage) -> float:
    return judged.p_relevant or 0.0


def _words(judged: JudgedPassage, pool: Pool) -> str:
    return pool.texts.words(judged.candidate.passage.text)


def _id(judged: JudgedPassage) -> str:
    return judged.candidate.passage.passage_id
