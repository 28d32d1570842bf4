"""Judged sets with texts, ranks and times of one's own, and an audit of them in a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from qrelay.identity import judge_digest
from qrelay.labels.audit.audit import Request, audit
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.labels.mining.rules import MiningRules
from qrelay.types import BM25, DENSE, Candidate, CandidateSet, Graded, JudgedSet, JudgeIdentity, Missing, Query, Score
from tests.labels.builders import JUDGE, NOW, graded, judgment, passage

HASH = judge_digest(JUDGE)


@dataclass(frozen=True)
class Row:
    """A candidate: ranks 0 are none; the dense score falls with the rank, and there is none without."""

    document: str
    outcome: Graded | Missing | None = None
    text: str | None = None
    bm25: int = 0
    dense: int = 0
    judge: JudgeIdentity = JUDGE
    cached: bool = False


def record(
    query_id: str, *rows: Row, text: str = "", at: datetime = NOW, attributes: Mapping[str, str] | None = None
) -> JudgedSet:
    """A set of these candidates; those with an outcome are judged at this time."""
    candidates = tuple(
        Candidate(
            passage(row.document, text=row.text),
            (Score(BM25, 20.0 - row.bm25, row.bm25), Score(DENSE, 0.9 / row.dense if row.dense else None, row.dense)),
            row.outcome is not None,
        )
        for row in rows
    )
    judgments = tuple(
        replace(judgment(candidate.passage.passage_id, row.outcome, row.judge, cached=row.cached), judged_at=at)
        for candidate, row in zip(candidates, rows, strict=True)
        if row.outcome is not None
    )
    query = Query(query_id, text or f"text of {query_id}", "docs", NOW, attributes or {}, ())
    return JudgedSet(CandidateSet(query, candidates, "v1"), judgments)


def graded_rows(*grades: int) -> list[Row]:
    """Documents d0, d1, … with these grades, ranked in this order by both systems."""
    return [Row(f"d{i}", graded(grade), bm25=i + 1, dense=i + 1) for i, grade in enumerate(grades)]


def commit(ledger: Ledger, *sets: JudgedSet) -> None:
    assert ledger.commit(sets) == [CommitStatus.COMMITTED] * len(sets)


def report(ledger: Ledger, conditions: Sequence[Any] = (), **request: Any) -> dict[str, Any]:
    return audit(ledger, "docs", Request(**request), MiningRules(), conditions)


def value(found: Mapping[str, Any], name: str) -> Any:
    return found["figures"][name]["value"]


def override(ledger: Ledger, query_no: int, passage_id: str, grade: int | None) -> None:
    """A person's decision, as the table holds it; None withdraws."""
    row = {
        "query_no": query_no, "passage_id": passage_id, "grade": grade, "scale": "0-3", "author": "ann", "note": "",
        "set_us": ledger.now_us(), "change_no": 1,
    }  # fmt: skip
    with ledger.writing("override a label") as connection:
        connection.execute(schema.overrides.insert(), row)
