"""A Hugging Face dataset folder: `datasets.load_dataset(FOLDER)` reads it, and so does the hub once it is pushed.

    data/SPLIT-00000-of-00001.parquet   a row a query: query_id, query, positives, negatives (`triples.py`'s fields)
    README.md                           the card: what it is, counts, judges, qualification, rules, how to load

Without splits everything is `train`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from qrelay.labels.examples import Example
from qrelay.labels.exports.card import card
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.rows import passage_row
from qrelay.labels.exports.writing import Output, Rows

DEFAULT_SPLIT: Final = "train"


class HuggingFace(Rows):
    """The Parquet files and the card."""

    def __init__(self, output: Output, options: Options) -> None:
        splits = options.splits or ("",)
        self._paths = {split: f"data/{split or DEFAULT_SPLIT}-00000-of-00001.parquet" for split in splits}
        self._options = options
        self._card = output.open("README.md")
        super().__init__({split: output.open(path) for split, path in self._paths.items()}, _columns(), rows)

    def close(self, facts: Mapping[str, Any], /) -> None:
        """Ends the files and writes the card."""
        super().close(facts)
        paths = {split or DEFAULT_SPLIT: path for split, path in self._paths.items()}
        self._card.write(card(facts, paths, self._options).encode())


def open_writer(output: Output, options: Options) -> HuggingFace:
    """A dataset folder with its card."""
    return HuggingFace(output, options)


def rows(item: Example) -> Iterator[dict[str, Any]]:
    """The query's example."""
    if item.positives:
        yield {
            "query_id": item.query.query_id,
            "query": item.query.text,
            "positives": [passage_row(item, each) for each in item.positives],
            "negatives": [passage_row(item, each) for each in item.negatives],
        }


def _columns() -> Any:
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("passage_id", "doc_id", "title", "text")]
    passage = pa.struct([*texts, ("grade", pa.int32()), ("p_relevant", pa.float64()), ("reason", pa.string())])
    passages = pa.list_(passage)
    return pa.schema(
        [("query_id", pa.string()), ("query", pa.string()), ("positives", passages), ("negatives", passages)]
    )
