"""JSONL, one object a query with at least one positive and one hard negative: `{query_id, query, positives,
negatives}`; each passage has `passage_id, doc_id, title, text, grade, p_relevant, reason`, and `expected_relevance,
answer_nll, human` as in `exports/rows.py`. `grade` is the judge's own, on the scale that the manifest names; `reason`
is the rule that chose it. The best positive and the hardest negative come first.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from qrelay.labels.examples import Example
from qrelay.labels.exports.rows import passage_row


def lines(item: Example) -> Iterator[bytes]:
    """The query's example."""
    if item.positives:
        row = {
            "query_id": item.query.query_id,
            "query": item.query.text,
            "positives": [passage_row(item, each) for each in item.positives],
            "negatives": [passage_row(item, each) for each in item.negatives],
        }
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
