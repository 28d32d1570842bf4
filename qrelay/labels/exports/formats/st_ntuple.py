"""sentence-transformers' n-tuples: `anchor, positive, negative_1, ..., negative_n`, a row a positive, with the n
hardest negatives (`--negatives`). A query with fewer than n has no row, for a column cannot be empty; the manifest's
notes count them under `too_few_negatives`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from qrelay.labels.examples import Example
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.rows import verdict_text
from qrelay.labels.exports.writing import Output, Rows, open_splits


def open_writer(output: Output, options: Options) -> Rows:
    """A row a positive."""
    import pyarrow as pa

    names = ["anchor", "positive", *(f"negative_{n}" for n in range(1, options.negatives + 1))]
    columns = pa.schema([(name, pa.string()) for name in names])
    sinks = open_splits(output, options, ".parquet")
    writer = Rows(sinks, columns, lambda item: rows(item, options.negatives, writer.notes))
    return writer


def rows(item: Example, negatives: int, notes: Counter[str]) -> Iterator[dict[str, Any]]:
    """The query's positives, each with the same negatives."""
    if item.positives and len(item.negatives) < negatives:
        notes["too_few_negatives"] += 1
        return
    columns = {f"negative_{n}": verdict_text(each) for n, each in enumerate(item.negatives[:negatives], start=1)}
    for positive in item.positives:
        yield {"anchor": item.query.text, "positive": verdict_text(positive), **columns}
