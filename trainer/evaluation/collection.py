"""A test collection in BEIR's layout: documents, queries, and who is relevant to what.

corpus.jsonl[.gz]: `_id`, `title`, `text`. queries.jsonl[.gz]: `_id`, `text`. qrels: TSV with the header `query-id`,
`corpus-id`, `score`, or TREC's four columns; .gz too.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from qrelay.errors import MalformedInput
from qrelay.models.terms import indexed_text

Qrels = dict[str, dict[str, int]]
"""query_id -> document id -> grade."""
Run = dict[str, dict[str, float]]
"""query_id -> document id -> score; a higher one ranks earlier, ties by id."""
_HEADER: Final = ("query-id", "corpus-id", "score")


@dataclass(frozen=True)
class Collection:
    """doc_ids[i] is the id of texts[i] (title and text as the retrieval models read them). queries: id -> text, those
    with a relevant document only: the others have no measure."""

    doc_ids: list[str]
    texts: list[str]
    queries: dict[str, str]
    qrels: Qrels

    @cached_property
    def corpus_hash(self) -> str:
        """Of ids and texts in order: what cached vectors belong to."""
        digest = hashlib.sha256()
        for doc_id, text in zip(self.doc_ids, self.texts, strict=True):
            for part in (doc_id, text):
                encoded = part.encode()
                digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.hexdigest()


def read_collection(corpus: Path, queries: Path, qrels: Path) -> Collection:
    """Reads the three files; `corpus` may be the folder that holds corpus.jsonl[.gz].

    Raises:
        MalformedInput: a file that cannot be read, a line that is not what it must be (named by number), or nothing
            in common between queries and qrels.
    """
    judged = read_qrels(qrels)
    asked = dict(_queries(queries))
    kept = {
        query_id: text for query_id, text in asked.items() if any(g > 0 for g in judged.get(query_id, {}).values())
    }
    if not kept:
        raise MalformedInput(
            f"no query of {queries} has a relevant document in {qrels}: are the two of one collection, and ids spelt"
            " alike?"
        )
    documents = list(_documents(_corpus_file(corpus)))
    return Collection([d for d, _ in documents], [text for _, text in documents], kept, {q: judged[q] for q in kept})


def read_qrels(path: Path) -> Qrels:
    """BEIR's or TREC's judgments."""
    found: Qrels = {}
    for number, line in _lines(path):
        fields = line.split()
        if number == 1 and tuple(fields[:3]) == _HEADER:
            continue
        row = (fields[0], fields[2], fields[3]) if len(fields) == 4 else tuple(fields)
        if len(row) != 3 or not row[2].lstrip("-").isdecimal():
            raise MalformedInput(f"{path}:{number}: expected `query-id corpus-id score` or `query 0 document grade`")
        found.setdefault(row[0], {})[row[1]] = int(row[2])
    return found


def read_run(path: Path) -> Run:
    """A TREC run: query, Q0, document, rank, score, tag."""
    found: Run = {}
    for number, line in _lines(path):
        fields = line.split()
        try:
            query_id, _, doc_id, _, score, _ = fields
            found.setdefault(query_id, {})[doc_id] = float(score)
        except ValueError:
            raise MalformedInput(f"{path}:{number}: expected `query Q0 document rank score tag`") from None
    return found


def _corpus_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in ("corpus.jsonl", "corpus.jsonl.gz"):
        if (path / name).is_file():
            return path / name
    raise MalformedInput(f"{path} holds neither corpus.jsonl nor corpus.jsonl.gz")


def _documents(path: Path) -> Iterator[tuple[str, str]]:
    for number, row in _rows(path):
        if not isinstance(row.get("_id"), str) or not isinstance(row.get("text"), str):
            raise MalformedInput(f"{path}:{number}: a document needs the texts `_id` and `text`")
        yield row["_id"], indexed_text(row.get("title") or "", row["text"])


def _queries(path: Path) -> Iterator[tuple[str, str]]:
    for number, row in _rows(path):
        query_id = row.get("_id", row.get("query_id"))
        if not isinstance(query_id, str) or not isinstance(row.get("text"), str):
            raise MalformedInput(f"{path}:{number}: a query needs the texts `_id` and `text`")
        yield query_id, row["text"]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise MalformedInput(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise MalformedInput(f"{path}:{number}: not a JSON object")
        yield number, row


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of every line that is not blank."""
    try:
        with gzip.open(path, "rt", encoding="utf8") if path.suffix == ".gz" else path.open(encoding="utf8") as lines:
            yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise MalformedInput(f"cannot read {path}: {error}") from error
