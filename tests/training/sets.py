"""Frozen sets for tests: a folder in BEIR's layout, from texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.training import tiny

CAPITALS = {
    "France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Spain": "Madrid", "Egypt": "Cairo", "Greece": "Athens",
    "Kenya": "Nairobi", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago", "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Finland": "Helsinki", "Poland": "Warsaw", "Austria": "Vienna", "Hungary": "Budapest", "Ireland": "Dublin",
    "Portugal": "Lisbon", "Russia": "Moscow", "China": "Beijing", "India": "Delhi", "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Syria": "Damascus", "Turkey": "Ankara", "Canada": "Ottawa", "Vietnam": "Hanoi", "Thailand": "Bangkok",
    "Nepal": "Kathmandu", "Germany": "Berlin", "Denmark": "Copenhagen", "Belgium": "Brussels",
}  # fmt: skip


def write_set(
    folder: Path,
    corpus: Mapping[str, str],
    queries: Mapping[str, str],
    relevant: Mapping[str, str],
    *,
    source: str = "gold",
    judges: Sequence[Mapping[str, str]] = (),
) -> Path:
    """corpus: document id -> text; queries: query id -> text; relevant: query id -> document id."""
    (folder / "qrels").mkdir(parents=True)
    _lines(folder / "corpus.jsonl", [{"_id": key, "title": "", "text": text} for key, text in corpus.items()])
    _lines(folder / "queries.jsonl", [{"_id": key, "text": text} for key, text in queries.items()])
    rows = "".join(f"{query_id}\t{doc_id}\t1\n" for query_id, doc_id in relevant.items())
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    labels = {"source": source, "judges": list(judges)}
    (folder / "set.json").write_text(json.dumps({"name": folder.name, "labels": labels, "about": "for tests"}))
    return folder


def capitals(folder: Path, **labels: Any) -> Path:
    """Real questions, whose documents do not name the country: the model must know."""
    corpus = {city: f"{city} is a city with a parliament, palaces and museums." for city in CAPITALS.values()}
    queries = {country: f"What is the capital of {country}?" for country in CAPITALS}
    return write_set(folder, corpus, queries, CAPITALS, **labels)


def toy(folder: Path, **labels: Any) -> Path:
    """The toy task of `tiny`, in two other wordings than its training data."""
    corpus = {answer["text"]: answer["text"] for n in range(tiny.COUNT) for answer in tiny.answers(n)}
    queries, relevant = {}, {}
    for n in range(tiny.COUNT):
        for name, text in (("a", f"the capital of country c{n}"), ("b", f"the capital of the country c{n}")):
            queries[f"{name}{n}"] = text
            relevant[f"{name}{n}"] = f"the seat is city t{n}"
    return write_set(folder, corpus, queries, relevant, **labels)


def _lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
