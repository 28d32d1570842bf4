"""The ceiling: the answer key's labels of the very passages that were labelled, in the same format."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qrelay.formats.beir import qrel_rows
from qrelay.formats.lines import byte_lines, json_value

_WORDS = 120
"""Of an answer that was not among the labelled passages: its beginning, about as long as a passage."""


def gold_labels(weak: Path, data: Path, *, split: str) -> Iterator[dict[str, Any]]:
    """The lines of an export of `labels` with what the key says in place of what they said; an answer that no
    labelled passage is of comes in by its beginning. Queries without one are none: every query has an answer."""
    answers = _qrels(data / "qrels" / f"{split}.tsv.gz")
    documents = {row["_id"]: row for row in lines(data / "corpus.jsonl.gz")}
    for line in weak.open():
        row = json.loads(line)
        wanted = answers[row["query_id"]]
        passages = [_told(passage, passage["doc_id"] in wanted) for passage in row["passages"]]
        found = {passage["doc_id"] for passage in passages}
        absent = [_told(_beginning(documents[doc_id]), True) for doc_id in sorted(wanted - found)]
        yield {**row, "passages": passages + absent}


def _told(passage: dict[str, Any], relevant: bool) -> dict[str, Any]:
    value = float(relevant)
    said = {"grade": int(relevant), "p_relevant": value, "expected_relevance": value}
    return {**passage, **said, "role": "positive" if relevant else "negative", "reason": "gold"}


def _beginning(document: dict[str, Any]) -> dict[str, Any]:
    text = " ".join(document["text"].split()[:_WORDS])
    return {"passage_id": f"{document['_id']}#0", "doc_id": document["_id"], "title": document["title"], "text": text,
            "answer_nll": None, "human": False, "hard": False, "scores": {}}  # fmt: skip


def _qrels(path: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for _, (query_id, doc_id, score) in qrel_rows(path):
        if score > 0:
            found[query_id].add(doc_id)
    return found


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, .gz or not."""
    return (json_value(line) for _, line in byte_lines(path))
