"""sentence-transformers' triplets: `anchor, positive, negative`, a row a pair of a positive and a negative, for
MultipleNegativesRankingLoss, TripletLoss and CachedGISTEmbedLoss. A passage's text is what the retriever embeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qrelay.labels.examples import Example
from qrelay.labels.exports.rows import verdict_text


def columns() -> Any:
    """The file's schema."""
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in ("anchor", "positive", "negative")])


def rows(item: Example) -> Iterator[dict[str, Any]]:
    """The query's pairs, the best positive and the hardest negative first."""
    for positive, negative in item.pairs():
        yield {"anchor": item.query.text, "positive": verdict_text(positive), "negative": verdict_text(negative)}
