"""How a labelled passage is written: the one view of it that all formats share."""

from __future__ import annotations

from typing import Any, Final

from qrelay.labels.examples import Example
from qrelay.labels.ledger.reader import Label
from qrelay.labels.mining.rules import Verdict
from qrelay.scales import bounds
from qrelay.terms import indexed_text
from qrelay.types import Passage

DECIMALS: Final = 6
"""Of every probability that is written."""


def relevance(label: Label) -> int:
    """The grade counted from the scale's lowest, so that 0 is not relevant at all on every scale."""
    return (label.grade or 0) - (label.min_grade or 0)


def text_of(passage: Passage) -> str:
    """What the retrieval models read of a passage: title, then text, as `qrelay.terms` has it."""
    return indexed_text(passage.title, passage.text)


def verdict_text(verdict: Verdict) -> str:
    """The same of a mined passage."""
    return text_of(verdict.judged.candidate.passage)


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A judged passage: ids, texts, the judge's own grade, P(relevant), and mining's reason."""
    passage = verdict.judged.candidate.passage
    return {
        "passage_id": passage.passage_id,
        "doc_id": passage.doc_id,
        "title": passage.title,
        "text": passage.text,
        "grade": verdict.judged.grade,
        "p_relevant": round(verdict.judged.p_relevant or 0.0, DECIMALS),
        "reason": verdict.reason,
    }


def measured_row(example: Example, passage_id: str) -> dict[str, Any]:
    """What was measured beyond the grade: expected relevance in 0 to 1, 0 the scale's lowest grade and 1 its highest;
    answer likelihood in nats a token, None where no judge measured it; whether a person decided."""
    label, nll = example.labels[passage_id], example.answer_nll(passage_id)
    expected = label.expected
    if expected is None:  # a person's expectation is the grade
        low, high = bounds(example.judges[label.judge_no].identity.scale)
        expected = ((label.grade or 0) - low) / (high - low)
    return {
        "expected_relevance": round(expected, DECIMALS),
        "answer_nll": None if nll is None else round(nll, DECIMALS),
        "human": label.human,
    }
