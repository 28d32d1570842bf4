"""Annotated pairs: query and passage with the grade that people gave them, as a file and from a BEIR collection.

The file is TSV in UTF-8, one pair a line, without quoting, under the header

    query_id  passage_id  grade  query  title  text  [reference_answers]  [metadata]  [exact]  [any other, not read]

`grade` is an integer, or empty where nobody has graded the pair yet; `reference_answers` is a JSON list of texts,
`metadata` a JSON object.
Fields hold no tabs and no line breaks: writing turns them into blanks. Where query, title or text lost one, or has
quotes, `exact` has the three as they were, a JSON list: a judge's cache knows a label by the very text. It holds
while the three columns still say the same, quotes aside. Quotes that a spreadsheet put around fields are taken off.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from qrelay.errors import MalformedInput
from qrelay.files import AtomicFiles
from qrelay.formats.beir import qrel_rows, read_answers
from qrelay.formats.graded_sample import INCLUSION
from qrelay.formats.lines import BadRecord, file_in, json_value, parsed
from qrelay.formats.records import document_fields, metadata_in, query_fields, read_records, texts
from qrelay.formats.tables import grade_of, on_one_line, read_rows, tsv_line
from qrelay.naming import absent
from qrelay.scales import upper_half

log = logging.getLogger(__name__)

COLUMNS: Final = ("query_id", "passage_id", "grade", "query", "title", "text")
ANSWERS: Final = "reference_answers"
METADATA: Final = "metadata"
EXACT: Final = "exact"
CHARACTERS_A_WORD: Final = 16
"""Most of what is cut by words: endless ones, and texts without blanks, would have no limit."""


@dataclass(frozen=True, slots=True)
class GradedPair:
    """A pair and the grade that people gave it, on the file's own scale; None where they gave none yet."""

    query_id: str
    passage_id: str
    grade: int | None
    query: str
    title: str
    text: str
    reference_answers: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


def read_annotated_pairs(path: Path, *, ungraded: bool = False) -> list[GradedPair]:
    """The graded pairs in `path`, in its order. Rows without a grade are left out, and their number is logged; with
    `ungraded` they stay in.

    Raises:
        MalformedInput: the file cannot be read, lacks a column, or has a row that does not hold; names the line.
    """
    pairs: list[GradedPair] = []
    seen: dict[tuple[str, str], int] = {}
    with metadata_in(path) as read:
        for number, pair in parsed(path, read_rows(path, COLUMNS), partial(_pair, read)):
            before = seen.setdefault((pair.query_id, pair.passage_id), number)
            if before != number:
                raise MalformedInput(f"{path}:{number}: the pair of line {before} again: keep one of the two")
            pairs.append(pair)
    graded = pairs if ungraded else [pair for pair in pairs if pair.grade is not None]
    if len(graded) < len(pairs):
        log.info("%d of the %d rows of %s have no grade and are left out", len(pairs) - len(graded), len(pairs), path)
    return graded


def write_annotated_pairs(
    path: Path,
    pairs: Iterable[GradedPair],
    *,
    answers: bool = False,
    metadata: bool = False,
    inclusion: Iterable[float] | None = None,
) -> None:
    """Write the pairs as they come, whole or not at all; those without a grade get an empty one. answers, metadata:
    with theirs. inclusion: a pair's probability of being drawn, each, as one column more. Raises OSError."""
    chances = None if inclusion is None else iter(inclusion)
    pairs = list(pairs)
    exact = any(_exact(each) or "," in each.query + each.title + each.text for each in pairs)
    more = [ANSWERS] * answers + [METADATA] * metadata + [EXACT] * exact + [INCLUSION] * (chances is not None)
    with AtomicFiles() as files:
        file = files.open(path)
        file.write(tsv_line((*COLUMNS, *more)))
        for pair in pairs:
            grade = "" if pair.grade is None else str(pair.grade)
            fields = [pair.query_id, pair.passage_id, grade, pair.query, pair.title, pair.text]
            told = [json.dumps(pair.reference_answers, ensure_ascii=False)] if answers else []
            told += [json.dumps(dict(pair.metadata), ensure_ascii=False)] if metadata else []
            told += [_exact(pair)] if exact else []
            told += [] if chances is None else [repr(next(chances))]
            file.write(tsv_line(fields + told))
        files.commit()


def _exact(pair: GradedPair) -> str:
    """The column's field; empty where the other three say it all."""
    found = [pair.query, pair.title, pair.text]
    kept = found == [on_one_line(each) for each in found] and '"' not in "".join(found)
    return "" if kept else json.dumps(found, ensure_ascii=True)


def relevant_from(grades: Iterable[int]) -> int:
    """The least grade of the upper half of the grades' range, ends included.

    Raises:
        MalformedInput: fewer than two different grades.
    """
    found = set(grades)
    if len(found) < 2:
        raise MalformedInput("annotated pairs must be of at least two different grades: have more of them graded")
    return upper_half(min(found), max(found))


def read_beir(
    corpus: Path, queries: Path, qrels: Path, *, answers: Path | None = None, max_words: int = 160
) -> list[GradedPair]:
    """The judged pairs of a BEIR collection, in the order of the qrels; files as `qrelay.formats.beir` reads them.

    corpus: a BEIR folder, or its JSONL; what is judged is the first `max_words` words of a text. answers: reference
    answers, JSONL with `_id` and `answers`: a list, or such a list as a Python literal in a text.

    Raises:
        MalformedInput: a file cannot be read or parsed, or a qrel names a document or query that is absent.
    """
    judged = list(qrel_rows(qrels))
    wanted = {document for _, (_, document, _) in judged}
    with metadata_in(corpus) as read:

        def document(record: object) -> tuple[str, tuple[str, str, dict[str, str]]]:
            doc_id, title, text = document_fields(record)
            return doc_id, (title, _cut(text, max_words), read(record)) if doc_id in wanted else ("", "", {})

        documents = dict(found for _, found in read_records(file_in(corpus, "corpus.jsonl"), document))
    asked = dict(found for _, found in read_records(queries, query_fields))
    references = read_answers(answers) if answers else {}
    pairs = []
    for number, (query_id, document_id, grade) in judged:
        if query_id not in asked:
            raise MalformedInput(
                f"{qrels}:{number}: the query {query_id!r} is not in {queries}: give the files of one collection"
            )
        if document_id not in documents:
            raise MalformedInput(f"{qrels}:{number}: {absent(document_id, documents, str(corpus))}")
        title, text, metadata = documents[document_id]
        answered = references.get(query_id, ())
        pairs.append(GradedPair(query_id, document_id, grade, asked[query_id], title, text, answered, metadata))
    return pairs


def corpus_texts(corpus: Path, *, max_words: int = 160) -> list[tuple[str, str]]:
    """(title, passage) of every document of a BEIR corpus, cut as `read_beir` cuts. Raises MalformedInput."""
    rows = read_records(file_in(corpus, "corpus.jsonl"), document_fields)
    return [(title, _cut(text, max_words)) for _, (_, title, text) in rows]


def _cut(text: str, max_words: int) -> str:
    return " ".join(text.split()[:max_words])[: CHARACTERS_A_WORD * max_words]


def _pair(read: Callable[[object], dict[str, str]], fields: Mapping[str, str]) -> GradedPair:
    fields = _as_written(fields)
    for name in ("query_id", "passage_id", "query"):
        if not fields[name].strip():
            raise BadRecord(f"{name} is empty: fill it in or remove the row")
    grade = grade_of(fields["grade"]) if fields["grade"].strip() else None
    query, title, text = _told(fields)
    answers, metadata = texts(fields.get(ANSWERS) or "[]"), read({METADATA: _object(fields.get(METADATA) or "{}")})
    return GradedPair(fields["query_id"], fields["passage_id"], grade, query, title, text, answers, metadata)


def _told(fields: Mapping[str, str]) -> list[str]:
    """Query, title and text; a column `exact` that does not say these is somebody else's."""
    shown = [fields[name] for name in COLUMNS[3:]]
    with suppress(BadRecord):
        exact = json_value(fields.get(EXACT) or "[]")
        ours = isinstance(exact, list) and all(isinstance(each, str) for each in exact)
        if ours and [_bare(on_one_line(each)) for each in exact] == [_bare(each) for each in shown]:
            return list(exact)
    return shown


def _as_written(fields: Mapping[str, str]) -> Mapping[str, str]:
    """Without a spreadsheet's quoting: fields of JSON show it, and where `exact` is empty no quotes are ours."""
    documents = [fields.get(name, "") for name in (ANSWERS, METADATA, EXACT)]
    quoted = fields.get(EXACT) == "" or any(each.startswith('"') for each in documents)
    return {name: _unquoted(each) for name, each in fields.items()} if quoted else fields


def _unquoted(told: str) -> str:
    return told[1:-1].replace('""', '"') if len(told) > 1 and told[0] == told[-1] == '"' else told


def _bare(text: str) -> str:
    return text.replace('"', "")


def _object(told: str) -> dict[str, object]:
    """Raises BadRecord: no JSON object."""
    if not isinstance(found := json_value(told), dict):
        raise BadRecord("metadata is no JSON object: empty it or write one")
    return found
