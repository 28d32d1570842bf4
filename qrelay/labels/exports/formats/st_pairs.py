"""sentence-transformers' scored pairs: `sentence1, sentence2, score`, a row a graded passage: query, passage, and the
judge's P(relevant), 0 to 1; for CoSENTLoss, AnglELoss, CosineSimilarityLoss and cross-encoders'
BinaryCrossEntropyLoss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qrelay.labels.examples import Example
from qrelay.labels.exports.rows import DECIMALS, text_of


def columns() -> Any:
    """The file's schema."""
    import pyarrow as pa

    return pa.schema([("sentence1", pa.string()), ("sentence2", pa.string()), ("score", pa.float32())])


def rows(item: Example) -> Iterator[dict[str, Any]]:
    """The query's pairs by passage_id."""
    for candidate, label in item.graded_passages():
        if label.p_relevant is not None:
            score = round(label.p_relevant, DECIMALS)
            yield {"sentence1": item.query.text, "sentence2": text_of(candidate.passage), "score": score}
