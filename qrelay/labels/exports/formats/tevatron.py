"""Tevatron's training JSONL (https://github.com/texttron/tevatron), one object a query:
`{query_id, query, positive_passages, negative_passages}`, each passage `{docid, title, text}`.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from qrelay.labels.examples import Example
from qrelay.labels.mining.rules import Verdict


def lines(item: Example) -> Iterator[bytes]:
    """The query's example."""
    if item.positives:
        row = {
            "query_id": item.query.query_id,
            "query": item.query.text,
            "positive_passages": [_passage(item, each) for each in item.positives],
            "negative_passages": [_passage(item, each) for each in item.negatives],
        }
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _passage(item: Example, verdict: Verdict) -> dict[str, str]:
    passage = verdict.judged.candidate.passage
    return {"docid": item.name_of(passage.passage_id), "title": passage.title, "text": passage.text}
