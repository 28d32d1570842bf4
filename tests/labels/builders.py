"""Judged sets in a line or two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from qrelay.types import (
    BM25,
    DENSE,
    Candidate,
    CandidateSet,
    DeadLetter,
    Graded,
    JudgedSet,
    JudgeIdentity,
    Judgment,
    Missing,
    Passage,
    Query,
    Score,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
JUDGE = JudgeIdentity("judge-1.5b", "r1", "q4", "p" * 64, "graded", "0-3", "n=1")
OTHER_JUDGE = JudgeIdentity("judge-7b", "r1", "q4", "p" * 64, "graded", "0-3", "n=1")
FUSED = JudgeIdentity("fused", "c" * 64, "", "", "fused", "0-3", "of=a,b stage-scores=no")
CASCADE = JudgeIdentity("cascade", "d" * 64, "", "", "cascade", "0-3", "of=fused,b stage-scores=no")
LEANING = JudgeIdentity("fused", "e" * 64, "", "", "fused", "0-3", "of=a,b,bm25 stage-scores=yes")

P_RELEVANT = {0: 0.05, 1: 0.2, 2: 0.8, 3: 0.95}


def graded(grade: int, p_relevant: float | None = None, min_grade: int = 0) -> Graded:
    """A grade on four levels with a plausible probability of relevance."""
    probabilities = tuple(0.7 if i == grade - min_grade else 0.1 for i in range(4))
    p = P_RELEVANT[grade - min_grade] if p_relevant is None else p_relevant
    return Graded(grade, min_grade, probabilities, float(grade), 0.94, p)


def passage(document: str, number: int = 0, text: str | None = None) -> Passage:
    return Passage(
        f"{document}#{number}",
        document,
        f"title of {document}",
        f"text {number} of {document}" if text is None else text,
    )


def judgment(passage_id: str, outcome: Graded | Missing, judge: JudgeIdentity = JUDGE, **fields: Any) -> Judgment:
    values = {"raw_reply": "2", "prompt_tokens": 100, **fields}
    key = f"key of {passage_id} by {judge.model} {judge.revision} {judge.strategy}"
    return Judgment(passage_id, key, outcome, judge, NOW, **values)


def judged_set(
    query_id: str = "q1",
    text: str = "",
    outcomes: Sequence[Graded | Missing] = (graded(3), graded(0), Missing("timeout", "no answer in 30 s")),
    collection: str = "docs",
    judge: JudgeIdentity = JUDGE,
    prefix: str = "d",
) -> JudgedSet:
    """A set whose i-th candidate is document `<prefix>i`, ranked i + 1 by BM25 and dense, with the i-th
    outcome; one more candidate without text and judgment follows."""
    candidates = [
        Candidate(passage(f"{prefix}{i}"), (Score(BM25, 20.0 - i, i + 1), Score(DENSE, 0.9 / (i + 1), i + 1)), True)
        for i in range(len(outcomes))
    ]
    last = Candidate(passage("unsampled", 0, ""), (Score(DENSE, None, 0),))
    query = Query(query_id, text or f"text of {query_id}", collection, NOW, {"source": "test"}, ("an answer",))
    return JudgedSet(
        CandidateSet(query, (*candidates, last), "v1"),
        tuple(judgment(c.passage.passage_id, o, judge) for c, o in zip(candidates, outcomes, strict=True)),
    )


def with_labels(record: JudgedSet, *judgments: Judgment) -> JudgedSet:
    """The set with these judgments besides its own, as a panel gives them."""
    return replace(record, judgments=record.judgments + judgments)


def relabelled(record: JudgedSet, *judgments: Judgment) -> JudgedSet:
    """The set with these judgments instead of its own, as judging again gives them."""
    return replace(record, judgments=judgments)


def dead_letter(identifier: str = "l1", query_id: str = "q1", text: str = "", **fields: Any) -> DeadLetter:
    values: dict[str, Any] = {
        "dead_letter_id": identifier,
        "stage": "judge",
        "collection": "docs",
        "query_id": query_id,
        "query_text": text or f"text of {query_id}",
        "reason": "backend_timeout",
        "detail": "no answer",
        "attempts": 5,
        "failed_at": NOW,
        "subject": "qrelay.v1.docs.reranked",
        "headers": {"traceparent": "00-1"},
        "payload": b"\x00\xffpayload",
    }
    return DeadLetter(**{**values, **fields})


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)
