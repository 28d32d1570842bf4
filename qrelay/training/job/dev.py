"""The dev queries of a job as training measures itself on them: an export's judged passages are the corpus."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qrelay.formats.beir import Collection
from qrelay.text import passage_text


def dev_set(path: Path) -> Collection | None:
    """From an export of format `triples` or `labels`; None where no query has a relevant passage."""
    queries: dict[str, str] = {}
    corpus: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    with path.open("rb") as lines:
        for row in map(json.loads, lines):
            judged = list(_judged(row))
            if not any(relevant for _, relevant in judged):
                continue
            queries[row["query_id"]] = row["query"]
            corpus |= {each["passage_id"]: passage_text(each["title"], each["text"]) for each, _ in judged}
            qrels[row["query_id"]] = {each["passage_id"]: int(relevant) for each, relevant in judged}
    return Collection(list(corpus), list(corpus.values()), queries, qrels) if queries else None


def _judged(row: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Passages with whether they are relevant."""
    if "passages" in row:
        yield from ((each, each["role"] == "positive") for each in row["passages"])
        return
    for role in ("positives", "negatives"):
        yield from ((each, role == "positives") for each in row[role])
