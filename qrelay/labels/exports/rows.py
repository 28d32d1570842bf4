"""How a labelled passage is written: the one view of it that all formats share."""

from __future__ import annotations

from typing import Any, Final

from qrelay.labels.choice import in_order
from qrelay.labels.examples import Example
from qrelay.labels.ledger.reader import Label
from qrelay.labels.mining.rules import Verdict
from qrelay.text import passage_text
from qrelay.types import Passage

DECIMALS: Final = 6
"""Of every probability that is written."""


def relevance(label: Label) -> int:
    """The grade counted from the scale's lowest, so that 0 is not relevant at all on every scale."""
    return (label.grade or 0) - (label.min_grade or 0)


def text_of(passage: Passage) -> str:
    """What the retrieval models read of a passage: title, then text, as `qrelay.text` has it."""
    return passage_text(passage.title, passage.text)


def verdict_text(verdict: Verdict) -> str:
    """The same of a mined passage."""
    return text_of(verdict.judged.candidate.passage)


def teacher_score(example: Example, verdict: Verdict) -> float:
    """The judge's P(relevant) of a mined passage, for a student to learn from."""
    return round(example.labels[verdict.passage_id].p_relevant or 0.0, DECIMALS)


def passage_row(example: Example, verdict: Verdict) -> dict[str, Any]:
    """A judged passage: ids, texts, the judge's own grade, P(relevant), mining's reason; and where it was asked for,
    what was measured beyond the grade: expected relevance (0 the scale's lowest grade, 1 its highest), answer
    likelihood in nats a token, None where no judge measured it, and whether a person decided.

    A likelihood judge's measurement counts beside another judge's label: the first in the order of the labels.
    """
    passage, label = verdict.judged.candidate.passage, example.labels[verdict.passage_id]
    row = {
        "passage_id": passage.passage_id,
        "doc_id": passage.doc_id,
        "title": passage.title,
        "text": passage.text,
        "grade": label.grade,
        "p_relevant": teacher_score(example, verdict),
        "reason": verdict.reason,
    }
    if label.expected is None:
        return row
    of_pair = (each for each in example.query.labels if each.passage_id == label.passage_id)
    measured = [each for each in of_pair if each.answer_nll is not None and each.judge_no in example.judges]
    first = next(iter(in_order(measured, example.judges)), None)
    nll = None if first is None or first.answer_nll is None else round(first.answer_nll, DECIMALS)
    return {**row, "expected_relevance": round(label.expected, DECIMALS), "answer_nll": nll, "human": label.human}
