"""A folder whose files `ir_datasets` reads; its README.md holds the lines that do it.

    docs.tsv      passage_id, title and text in one, once a passage with a grade
    queries.tsv   query_id, text
    qrels.txt     TREC qrels

With splits, queries.tsv and qrels.txt lie in a folder each (`train/`). ir_datasets' TSV has no quoting, so every run
of white space in a text is one blank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from qrelay.labels.examples import Example
from qrelay.labels.exports.formats import qrels
from qrelay.labels.exports.formats.collection import Corpus, one_line
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.rows import text_of
from qrelay.labels.exports.writing import Output

_README: Final = """# {collection}, for ir_datasets

```python
import ir_datasets

dataset = ir_datasets.create_dataset(
    docs_tsv="docs.tsv", queries_tsv="{folder}queries.tsv", qrels_trec="{folder}qrels.txt"
)
for qrel in dataset.qrels_iter():
    print(qrel.query_id, qrel.doc_id, qrel.relevance)
```

{queries} queries, {rows} relevance judgments. The passages are those that were judged, not the whole collection.
"""


class IrDatasets:
    """The folder's files."""

    def __init__(self, output: Output, options: Options) -> None:
        self.notes: Counter[str] = Counter()
        self._passages = Corpus(self.notes)
        self._folders = {split: f"{split}/" if split else "" for split in options.splits or ("",)}
        self._docs, self._readme = output.open("docs.tsv"), output.open("README.md")
        self._queries = {split: output.open(f"{folder}queries.tsv") for split, folder in self._folders.items()}
        self._qrels = {split: output.open(f"{folder}qrels.txt") for split, folder in self._folders.items()}

    def write(self, item: Example) -> int:
        """The query, its new passages and its grades."""
        for passage in self._passages.new(item):
            self._docs.write(f"{item.name_of(passage.passage_id)}\t{one_line(text_of(passage))}\n".encode())
        rows = list(qrels.lines(item))
        if rows:
            self._queries[item.split].write(f"{item.query.query_id}\t{one_line(item.query.text)}\n".encode())
            self._qrels[item.split].write(b"".join(rows))
        return len(rows)

    def close(self, facts: Mapping[str, Any], /) -> None:
        """Writes how to read it."""
        folder = next(iter(self._folders.values()))
        self._readme.write(
            _README.format(
                collection=facts["collection"], folder=folder, queries=facts["queries"], rows=facts["rows"]
            ).encode()
        )
        self._passages.close()


def open_writer(output: Output, options: Options) -> IrDatasets:
    """A folder for `ir_datasets.create_dataset`."""
    return IrDatasets(output, options)
