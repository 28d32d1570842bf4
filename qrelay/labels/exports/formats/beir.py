"""BEIR's folder, read by `beir`, sentence-transformers' evaluators, MTEB and this project's `qrelay index build`.

    corpus.jsonl      {"_id", "title", "text"}   every passage with a grade, once
    queries.jsonl     {"_id", "text"}            every query with such a passage
    qrels/SPLIT.tsv   query-id, corpus-id, score, under a header; without splits: qrels/test.tsv, BEIR's default

The corpus is what was judged, no more: metrics over it are those of a pool, not of the whole collection. By document
its texts are single passages (`collection.py`): evaluate with your own corpus.jsonl and the qrels of this folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson

from qrelay.labels.examples import Example
from qrelay.labels.exports.formats.collection import Corpus
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.rows import relevance
from qrelay.labels.exports.writing import Output


class Beir:
    """The folder's files."""

    def __init__(self, output: Output, options: Options) -> None:
        self.notes: Counter[str] = Counter()
        self._passages = Corpus(self.notes)
        self._corpus, self._queries = output.open("corpus.jsonl"), output.open("queries.jsonl")
        self._qrels = {split: output.open(f"qrels/{split or 'test'}.tsv") for split in options.splits or ("",)}
        for sink in self._qrels.values():
            sink.write(b"query-id\tcorpus-id\tscore\n")

    def write(self, item: Example) -> int:
        """The query, its new passages and its grades."""
        for passage in self._passages.new(item):
            name = item.name_of(passage.passage_id)
            self._corpus.write(_json({"_id": name, "title": passage.title, "text": passage.text}))
        rows = [
            f"{item.query.query_id}\t{item.name_of(label.passage_id)}\t{relevance(label)}\n".encode()
            for _, label in item.graded_passages()
        ]
        if rows:
            self._queries.write(_json({"_id": item.query.query_id, "text": item.query.text}))
            self._qrels[item.split].write(b"".join(rows))
        return len(rows)

    def close(self, _facts: Mapping[str, Any], /) -> None:
        """Frees what was kept."""
        self._passages.close()


def open_writer(output: Output, options: Options) -> Beir:
    """A folder that BEIR's GenericDataLoader loads."""
    return Beir(output, options)


def _json(row: Mapping[str, str]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
