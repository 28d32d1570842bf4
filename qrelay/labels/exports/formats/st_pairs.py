"""sentence-transformers' scored pairs: `sentence1, sentence2, score`, a row a graded passage: query, passage, and the
judge's P(relevant), 0 to 1; for CoSENTLoss, AnglELoss, CosineSimilarityLoss and cross-encoders'
BinaryCrossEntropyLoss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qrelay.labels.exports.item import DECIMALS, Item, text_of
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.writing import Output, Rows, open_splits


def open_writer(output: Output, options: Options) -> Rows:
    """A row a graded passage."""
    import pyarrow as pa

    columns = pa.schema([("sentence1", pa.string()), ("sentence2", pa.string()), ("score", pa.float32())])
    return Rows(open_splits(output, options, ".parquet"), columns, rows)


def rows(item: Item) -> Iterator[dict[str, Any]]:
    """The query's pairs by passage_id."""
    for candidate, label in item.graded_passages():
        if label.p_relevant is not None:
            score = round(label.p_relevant, DECIMALS)
            yield {"sentence1": item.query.text, "sentence2": text_of(candidate.passage), "score": score}
