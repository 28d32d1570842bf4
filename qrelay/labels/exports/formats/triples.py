"""JSONL, one object a query with at least one positive and one hard negative: `{query_id, query, positives,
negatives}`; each passage has `passage_id, doc_id, title, text, grade, p_relevant, reason`, and `expected_relevance,
answer_nll, human` as in `measured.py`. `grade` is the judge's own, on the scale that the manifest names; `reason` is
the rule that chose it. The best positive and the hardest negative come first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from qrelay.labels.exports.item import Item, measured_row, verdict_row
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.writing import Lines, Output
from qrelay.labels.mining.rules import Verdict


def open_writer(output: Output, options: Options) -> Lines:
    """A line an example."""
    return Lines(output, options, ".jsonl", lines)


def lines(item: Item) -> Iterator[bytes]:
    """The query's example."""
    example = item.example
    if example is not None:
        row = {
            "query_id": example.query_id,
            "query": example.query,
            "positives": [_row(item, each) for each in example.positives],
            "negatives": [_row(item, each) for each in example.negatives],
        }
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _row(item: Item, verdict: Verdict) -> dict[str, Any]:
    return {**verdict_row(verdict), **measured_row(item, verdict.passage_id)}
