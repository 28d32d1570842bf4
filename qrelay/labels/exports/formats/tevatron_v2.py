"""Tevatron v2's folder (https://github.com/texttron/tevatron): queries with ids, and the corpus that they are of.

    SPLIT.jsonl    {query_id, query_text, positive_document_ids, negative_document_ids}; without splits: train.jsonl
    corpus.jsonl   {docid, text}: every passage with a grade, once; the text begins with the title, which its
                   trainer reads from no other field

With `--scores` the judge's P(relevant) stands in `positive_document_scores` and `negative_document_scores`, in the
order of the ids. Tevatron's own distillation (DistilTrainDataset) reads scores inside passages alone: for it, export
`tevatron --scores`, which v2 reads as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson

from qrelay.labels.examples import Example
from qrelay.labels.exports.formats.collection import Corpus
from qrelay.labels.exports.formats.hf import DEFAULT_SPLIT
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.rows import teacher_score, text_of
from qrelay.labels.exports.writing import Output


class TevatronV2:
    """The folder's files."""

    def __init__(self, output: Output, options: Options) -> None:
        self.notes: Counter[str] = Counter()
        self._scores = options.scores
        self._passages = Corpus(self.notes)
        self._corpus = output.open("corpus.jsonl")
        self._queries = {split: output.open(f"{split or DEFAULT_SPLIT}.jsonl") for split in options.splits or ("",)}

    def write(self, item: Example) -> int:
        """The query's example, and its new passages."""
        if not item.positives:
            return 0
        for passage in self._passages.new(item):
            self._corpus.write(_json({"docid": item.name_of(passage.passage_id), "text": text_of(passage)}))
        sides = (("positive", item.positives), ("negative", item.negatives))
        row: dict[str, Any] = {
            "query_id": item.query.query_id,
            "query_text": item.query.text,
            **{f"{side}_document_ids": [item.name_of(each.passage_id) for each in found] for side, found in sides},
        }
        if self._scores:
            row |= {f"{side}_document_scores": [teacher_score(item, each) for each in found] for side, found in sides}
        self._queries[item.split].write(_json(row))
        return 1

    def close(self, _facts: Mapping[str, Any], /) -> None:
        """Frees what was kept."""
        self._passages.close()


def open_writer(output: Output, options: Options) -> TevatronV2:
    """A folder for Tevatron's --dataset_path and --corpus_path."""
    return TevatronV2(output, options)


def _json(row: Mapping[str, Any]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
