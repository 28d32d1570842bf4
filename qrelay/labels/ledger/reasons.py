"""The reasons that judges gave for their grades: kept in the raw reply, as the label's evidence is."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.types import reason_in

Key = tuple[str, str, int, int]
"""query_id, passage_id, judge_no, generation."""
_judgments, _queries = schema.judgments.c, schema.queries.c


def reasons(connection: sa.Connection, collection: str, query_ids: Sequence[str]) -> dict[Key, str]:
    """Of the labels of these queries (at most 500) that have one."""
    joined = schema.judgments.join(schema.queries, _judgments.query_no == _queries.query_no)
    key = _queries.query_id, _judgments.passage_id, _judgments.judge_no, _judgments.generation
    chosen = sa.select(*key, _judgments.raw_reply).select_from(joined)
    rows = connection.execute(
        chosen.where(_queries.collection == collection, _queries.query_id.in_(query_ids), _judgments.raw_reply != "")
    )
    return {(row[0], row[1], row[2], row[3]): found for row in rows if (found := reason_in(row.raw_reply))}
