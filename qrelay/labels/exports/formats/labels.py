"""JSONL, one object a query with every graded candidate that has a text: soft labels, whatever mining makes of them.

`{query_id, query, passages}`; each passage has `passage_id, doc_id, title, text, grade, p_relevant,
expected_relevance, answer_nll, human` (see `measured.py`), what mining says of it (`role`: positive, negative or
empty; `hard`; `reason`), and `scores`, {system: score} as far as scores are known. Passages run by passage_id. The
limits of a training round do not reach roles: they choose among examples, and this is every label.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from qrelay.labels.exports.item import DECIMALS, Item, measured_row, passage_row
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.writing import Lines, Output
from qrelay.labels.ledger.reader import Label
from qrelay.labels.mining.rules import NEITHER, Verdict
from qrelay.types import Candidate


def open_writer(output: Output, options: Options) -> Lines:
    """A line a query with a graded passage."""
    return Lines(output, options, ".jsonl", lines)


def lines(item: Item) -> Iterator[bytes]:
    """The query's labels."""
    verdicts = {each.passage_id: each for each in item.verdicts}
    passages = [
        _row(item, candidate, label, verdicts[label.passage_id]) for candidate, label in item.graded_passages()
    ]
    if passages:
        row = {"query_id": item.query.query_id, "query": item.query.text, "passages": passages}
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _row(item: Item, candidate: Candidate, label: Label, verdict: Verdict) -> dict[str, Any]:
    known = {score.system: round(score.score, DECIMALS) for score in candidate.scores if score.score is not None}
    return {
        **passage_row(candidate.passage, label.grade, label.p_relevant),
        **measured_row(item, label.passage_id),
        "role": "" if verdict.role == NEITHER else verdict.role,
        "hard": verdict.hard,
        "reason": verdict.reason,
        "scores": dict(sorted(known.items())),
    }
