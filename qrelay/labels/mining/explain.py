"""Why each candidate of a query was or was not chosen, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from qrelay.labels.examples import Example
from qrelay.labels.ledger.reader import Label
from qrelay.labels.mining.rules import NO_NUMBERS, UNJUDGED, Because, MiningRules, Verdict
from qrelay.ranks import current_model
from qrelay.types import Candidate

_DECIMALS: Final = 6


@dataclass(frozen=True, slots=True)
class Explained:
    """One candidate. `label`: the one that counts, None where no judge saw it; `role`, `reason`: words of
    `rules.REASONS`; `words`: the reason as a sentence; `because`: its numbers."""

    candidate: Candidate
    label: Label | None
    judge: str
    """Who gave the label: strategy and weights; empty where nobody did."""
    role: str
    reason: str
    words: str
    because: Because

    def as_json(self) -> dict[str, Any]:
        """The row for scripts; numbers to six decimals, and null where there is none."""
        passage, label = self.candidate.passage, self.label
        return {
            "passage_id": passage.passage_id,
            "doc_id": passage.doc_id,
            "title": passage.title,
            "scores": {
                score.system: {"score": _number(score.score), "rank": score.rank or None}
                for score in self.candidate.scores
            },
            "grade": label.grade if label else None,
            "p_relevant": _number(label.p_relevant) if label else None,
            "missing": label.missing_reason if label else None,
            "judge": self.judge or None,
            "role": self.role,
            "reason": self.reason,
            "words": self.words,
            "value": _number(self.because.value),
            "limit": _number(self.because.limit),
            "other": self.because.other or None,
        }


def explain(mined: Example, rules: MiningRules) -> list[Explained]:
    """Every candidate of the query: those with a verdict in the order of `mine`, then the others."""
    system = current_model([verdict.judged.candidate for verdict in mined.verdicts])
    rows = []
    for verdict in mined.verdicts:
        words = in_words(verdict, rules, system)
        rows.append(_row(mined, verdict.judged.candidate, verdict.role, verdict.reason, words, verdict.because))
    rows += [_row(mined, each, UNJUDGED, reason, _OTHERS[reason], NO_NUMBERS) for each, reason in mined.others]
    return rows


def in_words(verdict: Verdict, rules: MiningRules, system: str) -> str:
    """A verdict's reason as a sentence. `system`: the current model."""
    return _WORDS[verdict.reason](_Facts(verdict, rules, system))


def _row(mined: Example, candidate: Candidate, role: str, reason: str, words: str, because: Because) -> Explained:
    label = mined.labels.get(candidate.passage.passage_id)
    judge = ""
    if label is not None and label.judge_no in mined.judges:
        identity = mined.judges[label.judge_no].identity
        judge = f"{identity.strategy} {identity.model}"
    return Explained(candidate, label, judge, role, reason, words, because)


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, _DECIMALS)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the sentences name."""

    verdict: Verdict
    rules: MiningRules
    system: str

    @property
    def value(self) -> float:
        value = self.verdict.because.value
        return 0.0 if value is None else value

    @property
    def limit(self) -> float:
        limit = self.verdict.because.limit
        return 0.0 if limit is None else limit

    @property
    def other(self) -> str:
        return self.verdict.because.other

    @property
    def p(self) -> float:
        return self.verdict.judged.p_relevant or 0.0

    @property
    def place(self) -> str:
        return f"ranks it {self.value:.0f}" if math.isfinite(self.value) else "does not rank it"


def _no_positive(facts: _Facts) -> str:
    surest = facts.verdict.because.value
    found = "it has none at all" if surest is None else f"its surest has P(relevant) {surest:.2f}"
    return f"dropped: the query has no positive with P(relevant) {facts.limit:g} or more, {found}"


_WORDS: Final[Mapping[str, Callable[[_Facts], str]]] = {
    "relevant": lambda f: f"positive: graded relevant, and {f.system} {f.place}",
    "hard_relevant": lambda f: f"hard positive: graded relevant, but {f.system} {f.place}, beyond {f.limit:.0f}",
    "top_rank": lambda f: f"hard negative: not relevant, but in the top {f.rules.negative_rank} of {f.system}",
    "bm25_only": lambda f: (
        f"hard negative: not relevant, but in the top {f.rules.disagreement_rank} of bm25 and not of dense"
    ),
    "dense_only": lambda f: (
        f"hard negative: not relevant, but in the top {f.rules.disagreement_rank} of dense and not of bm25"
    ),
    "easy": lambda f: (
        f"easy negative: judged, P(relevant) {f.p:.2f} is under {f.rules.easy_threshold:g}, and not hard"
    ),
    "missing": lambda _: "missing: its judgment failed, so it is never a negative",
    "uncertain": lambda f: f"dropped: P(relevant) {f.value:.2f} is not under {f.limit:g}",
    "no_confident_positive": _no_positive,
    "near_best_label": lambda f: (
        f"dropped: P(relevant) {f.value:.2f} is above {f.limit:.2f}, which is {f.rules.max_share_of_best:.0%}"
        f" of {f.other}'s, the query's best"
    ),
    "best_by_judge": lambda f: f"dropped: the judge's own number {f.value:.0f} of the query's passages",
    "agreed_top": lambda f: f"dropped: every system and the judge have it in their first {f.limit:.0f}",
    "duplicate_of_positive": lambda f: f"dropped: it has the words of the positive {f.other}",
    "near_duplicate_of_positive": lambda f: f"dropped: its text is {f.value:.2f} similar to the positive {f.other}",
    "sibling_of_positive": lambda f: f"dropped: it is from the document of the positive {f.other}",
    "above_guard": lambda f: (
        f"dropped: teacher score {f.value:.4g} ({f.system}) is above {f.limit:.4g}, the guard at"
        f" {f.rules.guard_ratio:.0%} of the positive {f.other}'s"
    ),
    "within_margin": lambda f: (
        f"dropped: teacher score {f.value:.4g} ({f.system}) is above {f.limit:.4g}, {f.rules.guard_margin:g} under"
        f" the positive {f.other}'s"
    ),
    "not_hard": lambda _: "left: it may be a negative, but misled no ranker, and is not among the chosen easy ones",
    "duplicate_of_negative": lambda f: f"left: it has the words of the negative {f.other}",
    "near_duplicate_of_negative": lambda f: f"left: its text is {f.value:.2f} similar to the negative {f.other}",
    "over_limit": lambda f: f"left: hard, but the query has {f.limit:.0f} harder negatives already",
}
_OTHERS: Final = {
    "not_judged": "not judged: never a negative",
    "no_text": "not used: the ledger holds its label, but no text to train on",
}
