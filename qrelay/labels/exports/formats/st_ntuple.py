"""sentence-transformers' n-tuples: `anchor, positive, negative_1, ..., negative_n`, a row a positive, with the n
hardest negatives (`--negatives`). A query with fewer than n has no row, for a column cannot be empty; the manifest's
notes count them under `too_few_negatives`. With `--scores` also `scores`: the judge's P(relevant) of the positive,
then of the negatives, for MarginMSELoss and DistillKLDivLoss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from qrelay.labels.examples import Example
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.rows import teacher_score, verdict_text
from qrelay.labels.exports.writing import Output, Rows, open_splits


def open_writer(output: Output, options: Options) -> Rows:
    """A row a positive."""
    import pyarrow as pa

    names = ["anchor", "positive", *(f"negative_{n}" for n in range(1, options.negatives + 1))]
    fields = [(name, pa.string()) for name in names] + [("scores", pa.list_(pa.float32()))] * options.scores
    sinks = open_splits(output, options, ".parquet")
    writer = Rows(sinks, pa.schema(fields), lambda item: rows(item, options, writer.notes))
    return writer


def rows(item: Example, options: Options, notes: Counter[str]) -> Iterator[dict[str, Any]]:
    """The query's positives, each with the same negatives."""
    chosen = item.negatives[: options.negatives]
    if item.positives and len(chosen) < options.negatives:
        notes["too_few_negatives"] += 1
        return
    columns = {f"negative_{n}": verdict_text(each) for n, each in enumerate(chosen, start=1)}
    for positive in item.positives:
        beside = {"scores": [teacher_score(item, each) for each in (positive, *chosen)]} if options.scores else {}
        yield {"anchor": item.query.text, "positive": verdict_text(positive), **columns, **beside}
