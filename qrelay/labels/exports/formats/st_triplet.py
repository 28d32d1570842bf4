"""sentence-transformers' triplets: `anchor, positive, negative`, a row a pair of a positive and a negative, for
MultipleNegativesRankingLoss, TripletLoss and CachedGISTEmbedLoss. A passage's text is what the retriever embeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qrelay.labels.exports.item import Item, verdict_text
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.writing import Output, Rows, open_splits


def open_writer(output: Output, options: Options) -> Rows:
    """A row a (positive, negative)."""
    import pyarrow as pa

    columns = pa.schema([(name, pa.string()) for name in ("anchor", "positive", "negative")])
    return Rows(open_splits(output, options, ".parquet"), columns, rows)


def rows(item: Item) -> Iterator[dict[str, Any]]:
    """The query's pairs, the best positive and the hardest negative first."""
    for positive, negative in item.pairs():
        yield {"anchor": item.query.text, "positive": verdict_text(positive), "negative": verdict_text(negative)}
