"""sentence-transformers' labeled lists: `query, docs, labels`, a row a query, for the listwise losses of
cross-encoders (LambdaLoss, ListNetLoss, PListMLELoss, RankNetLoss). A label is the grade counted from the scale's
lowest, as a float.

Passages run from the best grade down, equal grades by id. A query whose passages all have one grade trains no order:
it has no row, and the manifest's notes count it under `one_grade_only`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from qrelay.labels.examples import Example
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.rows import relevance, text_of
from qrelay.labels.exports.writing import Output, Rows, open_splits


def open_writer(output: Output, options: Options) -> Rows:
    """A row a query."""
    import pyarrow as pa

    columns = pa.schema([("query", pa.string()), ("docs", pa.list_(pa.string())), ("labels", pa.list_(pa.float32()))])
    sinks = open_splits(output, options, ".parquet")
    writer = Rows(sinks, columns, lambda item: rows(item, writer.notes))
    return writer


def rows(item: Example, notes: Counter[str]) -> Iterator[dict[str, Any]]:
    """The query's list."""
    graded = [(relevance(label), candidate.passage) for candidate, label in item.graded_passages()]
    graded.sort(key=lambda each: -each[0])
    grades = [float(grade) for grade, _ in graded]
    if len(set(grades)) > 1:
        yield {"query": item.query.text, "docs": [text_of(passage) for _, passage in graded], "labels": grades}
    elif grades:
        notes["one_grade_only"] += 1
