"""JSONL, one object a query with every graded candidate that has a text: soft labels, whatever mining makes of them.

`{query_id, query, passages}`; each passage has `passage_id, doc_id, title, text, grade, p_relevant,
expected_relevance, answer_nll, human` (see `exports/rows.py`), what mining says of it (`role`: positive, negative or
empty; `hard`; `reason`), and `scores`, {system: score} as far as scores are known. Passages run by passage_id. The
limits of a training round do not reach roles: they choose among examples, and this is every label.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from qrelay.labels.examples import Example
from qrelay.labels.exports.rows import DECIMALS, passage_row
from qrelay.labels.mining.rules import NEITHER, Verdict


def lines(item: Example) -> Iterator[bytes]:
    """The query's labels."""
    verdicts = {each.passage_id: each for each in item.verdicts}
    passages = [_row(item, verdicts[label.passage_id]) for _, label in item.graded_passages()]
    if passages:
        row = {"query_id": item.query.query_id, "query": item.query.text, "passages": passages}
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _row(item: Example, verdict: Verdict) -> dict[str, Any]:
    scores = verdict.judged.candidate.scores
    known = {score.system: round(score.score, DECIMALS) for score in scores if score.score is not None}
    row = passage_row(item, verdict)
    del row["reason"]  # it comes after the role
    return {
        **row,
        "role": "" if verdict.role == NEITHER else verdict.role,
        "hard": verdict.hard,
        "reason": verdict.reason,
        "scores": dict(sorted(known.items())),
    }
