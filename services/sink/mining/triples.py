"""One query's training example: positives with grades and hard negatives, each with the rule that chose it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qrelay.errors import InputError
from services.sink.ledger.reader import JudgeRow, Label, LabelledQuery
from services.sink.mining.mine import JudgedPassage, MiningRules, Verdict

_DECIMALS: Final = 6


def judged_passages(
    query: LabelledQuery, labels: Mapping[str, Label], judges: Mapping[int, JudgeRow], rules: MiningRules
) -> list[JudgedPassage]:
    """The candidates that have a label, missing ones included. One without a text teaches nothing.

    Raises:
        InputError: a scale without a relevant grade.
    """
    found = []
    for candidate in query.candidates:
        label = labels.get(candidate.passage.passage_id)
        if label is None or not candidate.passage.text:
            continue
        scale = judges[label.judge_no].identity.scale
        if scale not in rules.relevant_grades:
            raise InputError(
                f"scale {scale!r} of a judge has no relevant grade: set sink.relevant_grades, which knows"
                f" {', '.join(sorted(rules.relevant_grades))}"
            )
        found.append(JudgedPassage(candidate, label.grade, label.p_relevant, scale))
    return found


def triple(query: LabelledQuery, positives: Sequence[Verdict], negatives: Sequence[Verdict]) -> dict[str, Any]:
    """The example as it is written; probabilities to six decimals."""
    return {
        "query_id": query.query_id,
        "query": query.text,
        "positives": [_passage(verdict) for verdict in positives],
        "negatives": [_passage(verdict) for verdict in negatives],
    }


def _passage(verdict: Verdict) -> dict[str, Any]:
    passage, judged = verdict.judged.candidate.passage, verdict.judged
    return {
        "passage_id": passage.passage_id,
        "doc_id": passage.doc_id,
        "title": passage.title,
        "text": passage.text,
        "grade": judged.grade,
        "p_relevant": round(judged.p_relevant or 0.0, _DECIMALS),
        "reason": verdict.reason,
    }
