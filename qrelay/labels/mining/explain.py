"""Why each candidate of a query was or was not chosen, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from qrelay.labels.examples import Example
from qrelay.labels.ledger.reader import Label
from qrelay.labels.ledger.reasons import Key
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
    said: str = ""
    """The judge's own words for its grade, where it was asked for them."""

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
            **({"judge_reason": self.said} if self.said else {}),
        }


def explain(mined: Example, rules: MiningRules, said: Mapping[Key, str] | None = None) -> list[Explained]:
    """Every candidate of the query: those with a verdict in the order of `mine`, then the others. said: what judges
    gave as reasons (`ledger.reasons`)."""
    system = current_model([verdict.judged.candidate for verdict in mined.verdicts])
    rows = []
    for verdict in mined.verdicts:
        words = in_words(verdict, rules, system)
        rows.append(_row(mined, verdict.judged.candidate, verdict.role, verdict.reason, words, verdict.because))
    rows += [_row(mined, each, UNJUDGED, reason, _OTHERS[reason], NO_NUMBERS) for each, reason in mined.others]
    return [_with_words(row, mined.query.query_id, said) for row in rows] if said else rows


def _with_words(row: Explained, query_id: str, said: Mapping[Key, str]) -> Explained:
    label = row.label
    key = (query_id, label.passage_id, label.judge_no, label.generation) if label else None
    return replace(row, said=said.get(key, "")) if key else row


def in_words(verdict: Verdict, rules: MiningRules, system: str) -> str:
    """A verdict's reason as a sentence. `system`: the current model."""
    because, value = verdict.because, verdict.because.value or 0.0
    return _WORDS[verdict.reason].format(
        rules=rules,
        system=system,
        value=value,
        limit=because.limit or 0.0,
        other=because.other,
        p=verdict.judged.p_relevant or 0.0,
        place=f"ranks it {value:.0f}" if math.isfinite(value) else "does not rank it",
        surest="it has none at all" if because.value is None else f"its surest has P(relevant) {value:.2f}",
    )


def _row(mined: Example, candidate: Candidate, role: str, reason: str, words: str, because: Because) -> Explained:
    label = mined.labels.get(candidate.passage.passage_id)
    judge = ""
    if label is not None and label.judge_no in mined.judges:
        identity = mined.judges[label.judge_no].identity
        judge = f"{identity.strategy} {identity.model}"
    return Explained(candidate, label, judge, role, reason, words, because)


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, _DECIMALS)


_WORDS: Final = {
    "relevant": "positive: graded relevant, and {system} {place}",
    "hard_relevant": "hard positive: graded relevant, but {system} {place}, beyond {limit:.0f}",
    "top_rank": "hard negative: not relevant, but in the top {rules.negative_rank} of {system}",
    "bm25_only": "hard negative: not relevant, but in the top {rules.disagreement_rank} of bm25 and not of dense",
    "dense_only": "hard negative: not relevant, but in the top {rules.disagreement_rank} of dense and not of bm25",
    "easy": "easy negative: judged, P(relevant) {p:.2f} is under {rules.easy_threshold:g}, and not hard",
    "missing": "missing: its judgment failed, so it is never a negative",
    "uncertain": "dropped: P(relevant) {value:.2f} is not under {limit:g}",
    "no_confident_positive": "dropped: the query has no positive with P(relevant) {limit:g} or more, {surest}",
    "near_best_label": "dropped: P(relevant) {value:.2f} is above {limit:.2f}, which is {rules.max_share_of_best:.0%}"
    " of {other}'s, the query's best",
    "best_by_judge": "dropped: the judge's own number {value:.0f} of the query's passages",
    "agreed_top": "dropped: every system and the judge have it in their first {limit:.0f}",
    "duplicate_of_positive": "dropped: it has the words of the positive {other}",
    "near_duplicate_of_positive": "dropped: its text is {value:.2f} similar to the positive {other}",
    "sibling_of_positive": "dropped: it is from the document of the positive {other}",
    "above_guard": "dropped: teacher score {value:.4g} ({system}) is above {limit:.4g}, the guard at"
    " {rules.guard_ratio:.0%} of the positive {other}'s",
    "within_margin": "dropped: teacher score {value:.4g} ({system}) is above {limit:.4g}, {rules.guard_margin:g}"
    " under the positive {other}'s",
    "not_hard": "left: it may be a negative, but misled no ranker, and is not among the chosen easy ones",
    "duplicate_of_negative": "left: it has the words of the negative {other}",
    "near_duplicate_of_negative": "left: its text is {value:.2f} similar to the negative {other}",
    "over_limit": "left: hard, but the query has {limit:.0f} harder negatives already",
}
_OTHERS: Final = {
    "not_judged": "not judged: never a negative",
    "no_text": "not used: the ledger holds its label, but no text to train on",
}
