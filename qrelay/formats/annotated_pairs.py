"""A slice: pairs of query and passage that people graded, as a file and from a BEIR collection.

The file is TSV in UTF-8, one pair a line, without quoting, under the header

    query_id  passage_id  grade  query  title  text  [reference_answers]  [any other columns, not read]

`grade` is an integer, or empty where nobody has graded the pair yet; `reference_answers` is a JSON list of texts.
Fields hold no tabs and no line breaks: writing turns them into blanks.
"""

from __future__ import annotations

import ast
import gzip
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from qrelay.errors import MalformedInput
from qrelay.files import write_atomic
from qrelay.formats.records import BadRecord, document_fields, query_fields
from qrelay.formats.records import query_id as id_of
from qrelay.naming import absent
from qrelay.scales import upper_half

log = logging.getLogger(__name__)

COLUMNS: Final = ("query_id", "passage_id", "grade", "query", "title", "text")
ANSWERS: Final = "reference_answers"
_Fields = TypeVar("_Fields")
_BREAKS: Final = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class GradedPair:
    """A pair and the grade that people gave it, on the slice's own scale; None where they gave none yet."""

    query_id: str
    passage_id: str
    grade: int | None
    query: str
    title: str
    text: str
    reference_answers: tuple[str, ...] = ()


def read_slice(path: Path, *, ungraded: bool = False) -> list[GradedPair]:
    """The graded pairs in `path`, in its order. Rows without a grade are left out, and their number is logged; with
    `ungraded` they stay in.

    Raises:
        MalformedInput: the file cannot be read, lacks a column, or has a row that does not hold; names the line.
    """
    header, *rows = text_lines(path)
    columns = header.split("\t")
    lacking = [name for name in COLUMNS if name not in columns]
    if lacking:
        raise MalformedInput(
            f"{path}:1: the columns {', '.join(lacking)} are missing: the first line must name {', '.join(COLUMNS)}, "
            "separated by tabs"
        )
    pairs: list[GradedPair] = []
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, 2):
        if not row.strip():
            continue
        pair = _pair(row, columns, f"{path}:{number}")
        before = seen.setdefault((pair.query_id, pair.passage_id), number)
        if before != number:
            raise MalformedInput(f"{path}:{number}: the pair of line {before} again: keep one of the two")
        pairs.append(pair)
    graded = pairs if ungraded else [pair for pair in pairs if pair.grade is not None]
    if len(graded) < len(pairs):
        log.info("%d of the %d rows of %s have no grade and are left out", len(pairs) - len(graded), len(pairs), path)
    return graded


def write_slice(path: Path, pairs: Sequence[GradedPair]) -> None:
    """Write the pairs, whole or not at all; those without a grade get an empty one. Raises OSError."""
    with_answers = any(pair.reference_answers for pair in pairs)
    lines = ["\t".join((*COLUMNS, ANSWERS) if with_answers else COLUMNS)]
    for pair in pairs:
        grade = "" if pair.grade is None else str(pair.grade)
        fields = [pair.query_id, pair.passage_id, grade, pair.query, pair.title, pair.text]
        if with_answers:
            fields.append(json.dumps(pair.reference_answers, ensure_ascii=False))
        lines.append("\t".join(_BREAKS.sub(" ", field) for field in fields))
    write_atomic(path, ("\n".join(lines) + "\n").encode("utf-8", "replace"))


def relevant_from(grades: Iterable[int]) -> int:
    """The least grade of the upper half of the grades' range, ends included.

    Raises:
        MalformedInput: fewer than two different grades.
    """
    found = set(grades)
    if len(found) < 2:
        raise MalformedInput("the slice needs pairs of at least two different grades: have more of them graded")
    return upper_half(min(found), max(found))


def read_beir(
    corpus: Path, queries: Path, qrels: Path, *, answers: Path | None = None, max_words: int = 160
) -> list[GradedPair]:
    """The judged pairs of a BEIR collection, in the order of the qrels.

    corpus: a BEIR folder, or its JSONL, plain or .gz; what is judged is the first `max_words` words of a text.
    queries: JSONL, plain or .gz; fields of both as everywhere (`qrelay.formats.records`).
    qrels: TSV under a header with query-id, corpus-id, score.
    answers: JSONL with `_id` and `answers`, reference answers: a list, or such a list as a Python literal in a text.

    Raises:
        MalformedInput: a file cannot be read or parsed, or a qrel names a document or query that is absent.
    """
    judged = list(_qrels(qrels))
    wanted = {document for _, document, _ in judged}
    documents = {
        doc_id: (title, _cut(text, max_words)) if doc_id in wanted else ("", "")
        for doc_id, title, text in _read(corpus_file(corpus), document_fields)
    }
    texts = dict(_read(queries, query_fields))
    references = _answers(answers) if answers else {}
    pairs = []
    for number, (query_id, document_id, grade) in enumerate(judged, 2):
        if query_id not in texts:
            raise MalformedInput(
                f"{qrels}:{number}: the query {query_id!r} is not in {queries}: give the files of one collection"
            )
        if document_id not in documents:
            raise MalformedInput(f"{qrels}:{number}: {absent(document_id, documents, str(corpus))}")
        pair = GradedPair(query_id, document_id, grade, texts[query_id], *documents[document_id])
        pairs.append(replace(pair, reference_answers=references.get(query_id, ())))
    return pairs


def corpus_texts(corpus: Path, *, max_words: int = 160) -> list[tuple[str, str]]:
    """(title, passage) of every document of a BEIR corpus, cut as `read_beir` cuts. Raises MalformedInput."""
    found = _read(corpus_file(corpus), document_fields)
    return [(title, _cut(text, max_words)) for _, title, text in found]


def _cut(text: str, max_words: int) -> str:
    return " ".join(text.split()[:max_words])


def corpus_file(corpus: Path) -> Path:
    """The corpus file that `corpus` is, or that lies in it under BEIR's name.

    Raises:
        MalformedInput: a folder without one.
    """
    if not corpus.is_dir():
        return corpus
    found = [path for name in ("corpus.jsonl", "corpus.jsonl.gz") if (path := corpus / name).exists()]
    if not found:
        raise MalformedInput(f"{corpus} holds no corpus.jsonl and no corpus.jsonl.gz: give a BEIR folder or the file")
    return found[0]


def _pair(row: str, columns: Sequence[str], where: str) -> GradedPair:
    values = row.split("\t")
    if len(values) != len(columns):
        raise MalformedInput(
            f"{where}: {len(values)} fields for {len(columns)} columns: separate them by single tabs"
        )
    fields = dict(zip(columns, values, strict=True))
    for name in ("query_id", "passage_id", "query"):
        if not fields[name].strip():
            raise MalformedInput(f"{where}: {name} is empty: fill it in or remove the row")
    return GradedPair(
        query_id=fields["query_id"],
        passage_id=fields["passage_id"],
        grade=_grade(fields["grade"], where) if fields["grade"].strip() else None,
        query=fields["query"],
        title=fields["title"],
        text=fields["text"],
        reference_answers=_texts(fields.get(ANSWERS) or "[]", where),
    )


def _grade(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise MalformedInput(
            f"{where}: the grade {text[:40]!r} is no integer: give one, or leave it empty"
        ) from error


def _qrels(path: Path) -> Iterator[tuple[str, str, int]]:
    header, *rows = text_lines(path)
    if header.split("\t")[:3] != ["query-id", "corpus-id", "score"]:
        raise MalformedInput(f"{path}:1: the first line must be query-id, corpus-id, score, separated by tabs")
    for number, row in enumerate(rows, 2):
        fields = row.split("\t")
        if len(fields) != 3:
            raise MalformedInput(f"{path}:{number}: {len(fields)} fields, a qrel has 3 separated by tabs")
        yield fields[0], fields[1], _grade(fields[2], f"{path}:{number}")


def _answers(path: Path) -> dict[str, tuple[str, ...]]:
    return {
        query_id: _texts(answers, f"{path}: the answers of {query_id!r}") for query_id, answers in _read(path, _told)
    }


def _told(record: object) -> tuple[str, Any]:
    found = id_of(record)
    if not isinstance(record, dict) or "answers" not in record:
        raise BadRecord(f"no answers of {found!r}")
    return found, record["answers"]


def _texts(found: Any, where: str) -> tuple[str, ...]:
    """Texts from a list, from a list as JSON or as a Python literal in a text, or from one plain text."""
    if isinstance(found, str) and found.lstrip().startswith("["):
        found = _parsed(found.strip())
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise MalformedInput(f"{where}: no list of texts: give one as JSON")
    return tuple(each for each in texts if each.strip())


def _parsed(text: str) -> Any:
    """What stands in `text`, which begins with a bracket; the text itself where it is neither notation."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _read(path: Path, fields: Callable[[object], _Fields]) -> Iterator[_Fields]:
    """What `fields` makes of each line of a JSONL file."""
    for number, line in enumerate(text_lines(path), 1):
        try:
            yield fields(json.loads(line))
        except (ValueError, BadRecord) as error:
            raise MalformedInput(f"{path}:{number}: {error}") from error


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, plain or .gz; at least one. Only line feeds end a line."""
    empty = True
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                empty = False
                yield line.removesuffix("\n").removesuffix("\r")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise MalformedInput(f"{path} cannot be read ({type(error).__name__}: {error}): give a UTF-8 file") from error
    if empty:
        raise MalformedInput(f"{path} is empty")
