"""Small records for tests."""

from __future__ import annotations

from datetime import UTC, datetime

from qrelay.types import (
    BM25,
    DENSE,
    Candidate,
    CandidateSet,
    Graded,
    JudgedSet,
    JudgeIdentity,
    Judgment,
    Missing,
    Passage,
    Query,
    Score,
    Utility,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
JUDGE = JudgeIdentity("m", "r1", "q4", "p" * 64, "graded", "0-3", "n=1")


def query(number: int = 0, text: str = "") -> Query:
    return Query(f"q{number}", text or f"how to do thing {number}", "docs", submitted_at=NOW)


def candidates(count: int = 5, per_document: int = 1) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            Passage(
                f"d{i // per_document}#{i % per_document}", f"d{i // per_document}", f"title {i}", f"text {i} " * 8
            ),
            (Score(BM25, 10.0 - i, i + 1), Score(DENSE, round(0.9 - i / 100, 5), i + 1)),
        )
        for i in range(count)
    )


def candidate_set(number: int = 0, count: int = 5, per_document: int = 1) -> CandidateSet:
    return CandidateSet(query(number), candidates(count, per_document), "v1")


def judged_set(number: int = 0) -> JudgedSet:
    outcome = Graded(2, 0, (0.1, 0.1, 0.7, 0.1), 1.8, 0.94, 0.8, "map", Utility(1.5, None, False, 2))
    return JudgedSet(
        candidate_set(number),
        (
            Judgment("d0#0", "k0", outcome, JUDGE, NOW, raw_reply="2", prompt_tokens=120),
            Judgment("d1#0", "k1", Missing("timeout", "no answer in 30 s"), JUDGE, NOW),
        ),
    )
