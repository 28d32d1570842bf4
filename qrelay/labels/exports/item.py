"""What a writer gets of one query, and the one view of a passage that all training formats share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from qrelay.labels.exports.measured import Measured
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery
from qrelay.labels.mining.examples import Example
from qrelay.labels.mining.rules import Verdict
from qrelay.text import passage_text
from qrelay.types import Candidate, Passage

DECIMALS = 6
"""Of every probability that is written."""


@dataclass(frozen=True, slots=True)
class Item:
    """One query with the labels that are meant, by passage_id. `split` is empty where there are none; `example` is
    there for mined formats, None where the query teaches nothing; `verdicts` and `measured` (by passage_id) are for
    formats that write them. By document (`documents.py`) labels and verdicts are of each document's best passage, and
    `documents` names the document of each passage_id."""

    query: LabelledQuery
    labels: Mapping[str, Label]
    judges: Mapping[int, JudgeRow]
    split: str = ""
    example: Example | None = None
    verdicts: tuple[Verdict, ...] = ()
    measured: Mapping[str, Measured] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)

    def name_of(self, passage_id: str) -> str:
        """The id under which the passage is written: its own, or by document the document's."""
        return self.documents.get(passage_id, passage_id)

    def graded(self) -> Iterator[Label]:
        """The labels that are a grade, by passage_id."""
        return (label for label in self.labels.values() if label.grade is not None)

    def graded_passages(self) -> Iterator[tuple[Candidate, Label]]:
        """The candidates with a grade and a text, by passage_id."""
        candidates = {each.passage.passage_id: each for each in self.query.candidates}
        for label in self.graded():
            found = candidates.get(label.passage_id)
            if found is not None and found.passage.text:
                yield found, label

    def pairs(self) -> Iterator[tuple[Verdict, Verdict]]:
        """Every (positive, negative) of the example, the best and the hardest first; nothing without an example."""
        if self.example is not None:
            for positive in self.example.positives:
                for negative in self.example.negatives:
                    yield positive, negative


def relevance(label: Label) -> int:
    """The grade counted from the scale's lowest, so that 0 is not relevant at all on every scale."""
    return (label.grade or 0) - (label.min_grade or 0)


def text_of(passage: Passage) -> str:
    """The passage's text as models read it."""
    return passage_text(passage.title, passage.text)


def verdict_text(verdict: Verdict) -> str:
    """The same of a mined passage."""
    return text_of(verdict.judged.candidate.passage)


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A mined passage as JSON and Hugging Face rows have it; `grade` is the judge's own."""
    judged = verdict.judged
    return {**passage_row(judged.candidate.passage, judged.grade, judged.p_relevant), "reason": verdict.reason}


def passage_row(passage: Passage, grade: int | None, p_relevant: float | None) -> dict[str, Any]:
    """A labelled passage: ids, texts, the judge's own grade, and P(relevant)."""
    return {
        "passage_id": passage.passage_id,
        "doc_id": passage.doc_id,
        "title": passage.title,
        "text": passage.text,
        "grade": grade,
        "p_relevant": round(p_relevant or 0.0, DECIMALS),
    }


def measured_row(item: Item, passage_id: str) -> dict[str, Any]:
    """What was measured of the passage's label beyond its grade; see `measured.py`."""
    found = item.measured[passage_id]
    return {
        "expected_relevance": round(found.expected_relevance, DECIMALS),
        "answer_nll": None if found.answer_nll is None else round(found.answer_nll, DECIMALS),
        "human": found.human,
    }
