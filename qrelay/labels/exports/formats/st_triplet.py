"""sentence-transformers' triplets: `anchor, positive, negative`, a row a pair of a positive and a negative, for
MultipleNegativesRankingLoss, TripletLoss and CachedGISTEmbedLoss. With `--scores` also `scores`, the judge's
P(relevant) of the positive and the negative, for MarginMSELoss and DistillKLDivLoss. A passage's text is what the
retriever embeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qrelay.labels.examples import Example
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.rows import teacher_score, verdict_text
from qrelay.labels.exports.writing import Output, Rows, open_splits


def open_writer(output: Output, options: Options) -> Rows:
    """A row a pair."""
    import pyarrow as pa

    columns = [(name, pa.string()) for name in ("anchor", "positive", "negative")]
    columns += [("scores", pa.list_(pa.float32()))] if options.scores else []
    sinks = open_splits(output, options, ".parquet")
    return Rows(sinks, pa.schema(columns), lambda item: rows(item, scores=options.scores))


def rows(item: Example, *, scores: bool = False) -> Iterator[dict[str, Any]]:
    """The query's pairs, the best positive and the hardest negative first."""
    for positive, negative in item.pairs():
        row = {"anchor": item.query.text, "positive": verdict_text(positive), "negative": verdict_text(negative)}
        beside = {"scores": [teacher_score(item, each) for each in (positive, negative)]} if scores else {}
        yield {**row, **beside}
