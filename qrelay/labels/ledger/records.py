"""Rows of the ledger as the records that they were: the inverse of `rows.py`."""

from __future__ import annotations

from typing import Any

import orjson

from qrelay.labels.ledger.times import moment
from qrelay.types import Graded, JudgeIdentity, Judgment, Missing, Query, Utility


def query_of(row: Any) -> Query:
    """Of a row of `queries`."""
    return Query(
        query_id=row.query_id,
        text=row.text,
        collection=row.collection,
        submitted_at=None if row.submitted_us is None else moment(row.submitted_us),
        attributes=orjson.loads(row.attributes),
        reference_answers=tuple(orjson.loads(row.reference_answers)),
        round=row.round,
    )


def judgment_of(row: Any, judge: JudgeIdentity) -> Judgment:
    """Of a row of `judgments`, made by `judge`."""
    outcome: Graded | Missing
    if row.grade is None:
        outcome = Missing(row.missing_reason, row.missing_detail)
    else:
        outcome = Graded(
            row.grade,
            row.min_grade,
            tuple(orjson.loads(row.probabilities)),
            row.expected_relevance,
            row.entropy,
            row.p_relevant,
            row.calibration,
            Utility(*orjson.loads(row.utility)) if row.utility else None,
        )
    return Judgment(
        row.passage_id,
        row.judgment_key,
        outcome,
        judge,
        moment(row.judged_us),
        row.cached,
        row.raw_reply,
        row.prompt_tokens,
    )
