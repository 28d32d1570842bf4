"""Tevatron's training JSONL (https://github.com/texttron/tevatron), one object a query:
`{query_id, query, positive_passages, negative_passages}`, each passage `{docid, title, text}`; with `--scores` also
`score`, the judge's P(relevant), which the distillation of its version 2 reads (DistilTrainDataset).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import orjson

from qrelay.labels.examples import Example
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.rows import teacher_score
from qrelay.labels.exports.writing import Lines, Output, open_splits
from qrelay.labels.mining.rules import Verdict


def open_writer(output: Output, options: Options) -> Lines:
    """A line a query."""
    return Lines(open_splits(output, options, ".jsonl"), partial(lines, scores=options.scores))


def lines(item: Example, *, scores: bool = False) -> Iterator[bytes]:
    """The query's example."""
    if item.positives:
        row = {
            "query_id": item.query.query_id,
            "query": item.query.text,
            "positive_passages": [_passage(item, each, scores=scores) for each in item.positives],
            "negative_passages": [_passage(item, each, scores=scores) for each in item.negatives],
        }
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _passage(item: Example, verdict: Verdict, *, scores: bool) -> dict[str, Any]:
    passage = verdict.judged.candidate.passage
    row = {"docid": item.name_of(passage.passage_id), "title": passage.title, "text": passage.text}
    return {**row, "score": teacher_score(item, verdict)} if scores else row
