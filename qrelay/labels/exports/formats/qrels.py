"""TREC qrels: `query_id 0 passage_id grade`, read by trec_eval, ir-measures, pytrec_eval and ranx.

Judged zeros are in, missing judgments are out. The grade counts from the scale's lowest (scale 1-4: 1 becomes 0), so
that 0 means not relevant at all on every scale, as TREC's readers take it.
"""

from __future__ import annotations

from collections.abc import Iterator

from qrelay.labels.examples import Example
from qrelay.labels.exports.rows import relevance


def lines(item: Example) -> Iterator[bytes]:
    """The query's labels by id."""
    for label in item.graded():
        yield f"{item.query.query_id} 0 {item.name_of(label.passage_id)} {relevance(label)}\n".encode()
