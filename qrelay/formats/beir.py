"""A test collection in BEIR's layout: documents, queries, and who is relevant to what.

corpus.jsonl[.gz], queries.jsonl[.gz] and reference answers: fields as everywhere (`records.py`). qrels: TSV with the
header `query-id`, `corpus-id`, `score`, or TREC's four columns (`tables.py`). Qrels of passages beside a corpus of
documents are folded (`documents.py`). Errors name file and line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from qrelay.errors import MalformedInput
from qrelay.formats.documents import Qrels, Run, fold_qrels
from qrelay.formats.lines import BadRecord, file_in, parsed
from qrelay.formats.records import answer_fields, document_fields, query_fields, read_records
from qrelay.formats.tables import QREL, Grade, grade_of, read_rows
from qrelay.naming import absent
from qrelay.text import passage_text

__all__ = ["Collection", "Qrels", "Run"]

_Fields = TypeVar("_Fields", tuple[str, str], tuple[str, str, str], tuple[str, tuple[str, ...]])


@dataclass(frozen=True)
class Collection:
    """doc_ids[i] is the id of texts[i] (title and text as the retrieval models read them). queries: id -> text, those
    with a relevant document only: the others have no measure. unmeasured: judged queries without one, for runs to be
    whole whatever other grades say of them. relevant_from: the least grade that is relevant to
    measures of two grades (RR, P, R, AP); gains of DCG are the grades themselves. folded: judged passages that stand
    for their documents."""

    doc_ids: list[str]
    texts: list[str]
    queries: dict[str, str]
    qrels: Qrels
    relevant_from: int = 1
    folded: int = 0
    unmeasured: dict[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> dict[str, str]:
        """What systems rank for: id -> text."""
        return {**self.queries, **self.unmeasured}

    @cached_property
    def corpus_hash(self) -> str:
        """Of ids and texts in order: what cached vectors belong to."""
        return _hash(part for pair in zip(self.doc_ids, self.texts, strict=True) for part in pair)

    @cached_property
    def hash(self) -> str:
        """Of corpus, queries and qrels: evaluations with one hash can be compared."""
        asked = (part for query_id in sorted(self.queries) for part in (query_id, self.queries[query_id]))
        judged = (
            part
            for query_id, grades in sorted(self.qrels.items())
            for doc_id, grade in sorted(grades.items())
            for part in (query_id, doc_id, str(grade))
        )
        return _hash((self.corpus_hash, str(self.relevant_from), _hash(asked), _hash(judged)))

    @cached_property
    def text_of(self) -> Mapping[str, str]:
        """document id -> text."""
        return dict(zip(self.doc_ids, self.texts, strict=True))

    @cached_property
    def absent(self) -> int:
        """Relevant pairs whose document is not in the corpus: no system can find them, and Recall counts them."""
        return len(self._absent)

    @cached_property
    def _absent(self) -> list[str]:
        return [
            doc_id
            for grades in self.qrels.values()
            for doc_id, grade in grades.items()
            if grade >= self.relevant_from and doc_id not in self.text_of
        ]

    def remarks(self) -> Iterator[str]:
        """What people should know of it, a line each."""
        if self.folded:
            yield f"{self.folded} passages of the qrels stand for their documents, each with its best passage's grade"
        if self._absent:
            why = absent(self._absent[0], self.text_of, "the corpus")
            yield f"{self.absent} relevant documents of the qrels are not in the corpus: {why}"


def read_collection(corpus: Path, queries: Path, qrels: Path, *, relevant_from: int = 1) -> Collection:
    """Reads the three files; `corpus` may be the folder that holds corpus.jsonl[.gz].

    Raises:
        MalformedInput: a file that cannot be read, a line that is not what it must be (named by number), an id that
            occurs twice, a document that is graded beside a better passage of it, or nothing in common between
            queries, qrels and corpus.
    """
    asked, documents = dict(read_queries(queries)), dict(read_documents(corpus))
    judged, folded = fold_qrels(read_qrels(qrels), documents, str(qrels))
    kept = {query_id: text for query_id, text in asked.items() if _relevant(judged, query_id, relevant_from)}
    if not kept:
        raise MalformedInput(
            f"no query of {queries} has a relevant document (grade {relevant_from} or more) in {qrels}: are the two"
            " of one collection, and ids spelt alike?"
        )
    grades = {query_id: judged[query_id] for query_id in kept}
    named = [doc_id for each in grades.values() for doc_id in each]
    if not any(doc_id in documents for doc_id in named):
        raise MalformedInput(f"no document of {qrels}: {absent(named[0], documents, str(corpus))}")
    unmeasured = {query_id: text for query_id, text in asked.items() if query_id in judged and query_id not in kept}
    return Collection(list(documents), list(documents.values()), kept, grades, relevant_from, folded, unmeasured)


def _hash(parts: Iterable[str]) -> str:
    """sha256 over texts, each after its length."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def _relevant(qrels: Qrels, query_id: str, least: int) -> bool:
    return any(grade >= least for grade in qrels.get(query_id, {}).values())


def read_qrels(path: Path) -> Qrels:
    """The grades of the pairs. Raises MalformedInput, as `qrel_rows`."""
    found: Qrels = {}
    for _, (query_id, doc_id, grade) in qrel_rows(path):
        found.setdefault(query_id, {})[doc_id] = grade
    return found


def qrel_rows(path: Path, number: Callable[[str], Grade] = int) -> Iterator[tuple[int, tuple[str, str, Grade]]]:
    """(line number, (query id, document id, grade)) of each pair, in the file's order. number: reads a grade.

    Raises:
        MalformedInput: a line that is no qrel, or a pair with two grades.
    """
    seen: dict[tuple[str, str], Grade] = {}

    def qrel(fields: Mapping[str, str]) -> tuple[str, str, Grade]:
        query_id, doc_id, grade = (fields[name].strip() for name in QREL)
        found = grade_of(grade, number)
        if seen.setdefault((query_id, doc_id), found) != found:
            raise BadRecord(f"{query_id} and {doc_id} have another grade above: keep one")
        return query_id, doc_id, found

    return parsed(path, read_rows(path), qrel)


def read_queries(path: Path) -> Iterator[tuple[str, str]]:
    """(id, text) of each query; `path` may be the folder. Raises MalformedInput, as `read_collection`."""
    file = file_in(path, "queries.jsonl")
    for number, (query_id, text) in _once(file, query_fields):
        if not text.strip():
            raise MalformedInput(f"{file}:{number}: the query {query_id!r} has an empty text")
        yield query_id, text


def read_documents(corpus: Path) -> list[tuple[str, str]]:
    """(id, title and text) of each document; `corpus` may be the folder. Raises MalformedInput: also where there is
    none."""
    rows = _once(file_in(corpus, "corpus.jsonl"), document_fields)
    found = [(doc_id, passage_text(title, text)) for _, (doc_id, title, text) in rows]
    if not found:
        raise MalformedInput(f"{corpus} holds no document: give a corpus that does")
    return found


def read_answers(path: Path) -> dict[str, tuple[str, ...]]:
    """query id -> reference answers. Raises MalformedInput: also an id that occurs twice."""
    return dict(found for _, found in _once(path, answer_fields))


def _once(path: Path, fields: Callable[[object], _Fields]) -> Iterator[tuple[int, _Fields]]:
    """(number, fields) of each line, whose first field is an id of its own. Raises MalformedInput."""
    seen: set[str] = set()
    for number, found in read_records(path, fields):
        if found[0] in seen:
            raise MalformedInput(f"{path}:{number}: the id {found[0]} occurs twice: keep one of the two")
        seen.add(found[0])
        yield number, found
