"""What a judge measured beyond the grade: expected relevance and answer likelihood, as training formats carry them.

The likelihoods are a likelihood judge's, while the label that counts may be a combined one's: each passage has the
first measurement among its labels in the order in which they count (`labels/choice.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from qrelay.labels.choice import in_order
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.overrides import bounds
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery

_queries, _judgments = schema.queries.c, schema.judgments.c
_Rows = dict[tuple[str, int, int], tuple[float | None, float | None]]
"""(passage_id, judge_no, generation) -> (expected relevance in 0..1, likelihood difference)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """expected_relevance: in 0..1, 0 the scale's lowest grade and 1 its highest. answer_nll: nats a token, the text's
    with the passage less without it (below 0: the passage helps); None where no judge measured it. human: whether the
    label that counts is a person's."""

    expected_relevance: float
    answer_nll: float | None
    human: bool


def measured(
    connection: sa.Connection,
    collection: str,
    query: LabelledQuery,
    counting: Mapping[str, Label],
    judges: Mapping[int, JudgeRow],
) -> dict[str, Measured]:
    """Of every graded label that counts, by passage_id. `counting`: `labels.choice.one_a_pair`; `judges`: those that
    are meant; no other's measurement is used."""
    rows = _read(connection, collection, query.query_id)
    others: dict[str, list[Label]] = {}
    for label in query.labels:
        if label.judge_no in judges:
            others.setdefault(label.passage_id, []).append(label)
    return {
        passage_id: Measured(
            _expected(label, judges[label.judge_no].identity.scale, rows),
            _answer_nll(in_order(others[passage_id], judges), rows),
            label.human,
        )
        for passage_id, label in counting.items()
        if label.grade is not None
    }


def _expected(label: Label, scale: str, rows: _Rows) -> float:
    """A person's expectation is the grade."""
    found, _ = rows.get((label.passage_id, label.judge_no, label.generation), (None, None))
    if found is not None:
        return found
    low, high = bounds(scale)
    return ((label.grade or 0) - low) / (high - low)


def _answer_nll(labels: list[Label], rows: _Rows) -> float | None:
    keys = ((label.passage_id, label.judge_no, label.generation) for label in labels)
    found = (rows[key][1] for key in keys if key in rows)
    return next((value for value in found if value is not None), None)


def _read(connection: sa.Connection, collection: str, query_id: str) -> _Rows:
    chosen = (
        sa.select(
            _judgments.passage_id, _judgments.judge_no, _judgments.generation,
            _judgments.expected_relevance, _judgments.min_grade, _judgments.probabilities, _judgments.utility,
        )
        .select_from(schema.judgments.join(schema.queries, _judgments.query_no == _queries.query_no))
        .where(_queries.collection == collection, _queries.query_id == query_id, _judgments.grade.is_not(None))
        .order_by(_judgments.judgment_key)
    )  # fmt: skip
    return {tuple(row[:3]): (_share(*row[3:6]), _difference(row[6])) for row in connection.execute(chosen)}


def _share(expected: float, low: int, probabilities: str) -> float:
    """An expected grade as a share of its scale, which has a grade for each probability."""
    steps = max(1, len(orjson.loads(probabilities)) - 1)
    return min(1.0, max(0.0, (expected - low) / steps))


def _difference(utility: Any) -> float | None:
    """The likelihood with the passage less without it; None where either was not measured."""
    if not utility:
        return None
    nll, without = orjson.loads(utility)[:2]
    return None if nll is None or without is None else float(nll) - float(without)
