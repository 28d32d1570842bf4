"""Tevatron's training JSONL (https://github.com/texttron/tevatron), one object a query:
`{query_id, query, positive_passages, negative_passages}`, each passage `{docid, title, text}`.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from qrelay.labels.exports.item import Item
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
            "positive_passages": [_passage(item, each) for each in example.positives],
            "negative_passages": [_passage(item, each) for each in example.negatives],
        }
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _passage(item: Item, verdict: Verdict) -> dict[str, str]:
    passage = verdict.judged.candidate.passage
    return {"docid": item.name_of(passage.passage_id), "title": passage.title, "text": passage.text}
