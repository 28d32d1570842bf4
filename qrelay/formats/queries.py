"""Query lines, as `qrelay feed` and all who take its files read them: JSONL, TSV or plain text, told apart line by
line unless the format is given.

- JSONL: `query_id` (or `_id`, `id`, `qid`), `text` (or `query`), optional `attributes`, `reference_answers`.
- TSV: `query_id<TAB>text`.
- plain: the line is the text; its id is `q-` and 16 characters of the text's hash, so that the same line
  is the same query whenever it comes.

Under "auto" a header line is no query, nor is a line without a letter or digit. No query holds NUL, which databases
do not store. Attributes that are no text are kept as JSON, a null is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, Literal

from qrelay.errors import InvalidQuery, MalformedInput
from qrelay.formats.lines import byte_lines, decoded, json_value, parsed
from qrelay.formats.records import query_fields, require_text, texts, told
from qrelay.identity import digest
from qrelay.types import Query

Format = Literal["auto", "jsonl", "tsv", "plain"]
MAX_ID_CHARS = 256
_TABLES: Final = (".csv", ".parquet")
_HEADER: Final = {"query_id", "query-id", "qid", "text", "query"}


def refuse_table(path: Path) -> None:
    """Raises MalformedInput: the file's name says that it holds no query lines."""
    if path.name.removesuffix(".gz").endswith(_TABLES):
        raise MalformedInput(f"{path} is a table: write its queries as JSONL, or as TSV with query_id and text")


def read_queries(path: Path, collection: str = "") -> Iterator[Query]:
    """The queries of a file.

    Raises:
        MalformedInput: a line is no query; it is named. Or the file is none of lines.
    """
    refuse_table(path)
    for _, query in parsed(path, byte_lines(path, text=True), partial(parse_line, collection=collection)):
        yield query


def parse_line(line: str | bytes, collection: str, line_format: Format = "auto") -> Query:
    """One line as a query, without `submitted_at`.

    Raises:
        MalformedInput: not of the format.
        InvalidQuery: no text, or an id that TREC files cannot hold.
    """
    line = decoded(line).rstrip("\r\n")
    kind = _guess(line) if line_format == "auto" else line_format
    if kind == "jsonl":
        return _from_json(line, collection)
    if kind == "tsv":
        query_id, tab, text = line.partition("\t")
        if not tab:
            raise MalformedInput("no tab: a TSV line is query_id<TAB>text")
        return _checked(Query(query_id.strip(), text.strip(), collection))
    text = line.strip()
    if line_format == "auto" and not any(map(str.isalnum, text)):
        raise InvalidQuery("no letter and no digit, hence no question: say --format plain where it is one")
    return _checked(Query(f"q-{digest(text)[:16]}", text, collection))


def _guess(line: str) -> Format:
    if line.lstrip().startswith("{"):
        return "jsonl"
    names = [name.strip().lower() for name in line.split("\t")[:2]]
    if names[-1] in _HEADER and {*names} <= {*_HEADER, "id", "_id"}:
        raise MalformedInput("a header, no query: remove the line, or say --format tsv or plain where it is one")
    return "tsv" if "\t" in line else "plain"


def _from_json(line: str, collection: str) -> Query:
    entry = json_value(line)
    query_id, text = query_fields(entry)
    attributes = entry.get("attributes") or {}
    answers = entry.get("reference_answers") or []
    if not isinstance(attributes, dict):
        raise MalformedInput("attributes must be an object")
    if isinstance(answers, list):
        answers = [str(each) if type(each) in (int, float) else each for each in answers]
    return _checked(
        Query(
            query_id=query_id,
            text=text.strip(),
            collection=collection,
            attributes={key: told(value) for key, value in attributes.items() if value is not None},
            reference_answers=texts(answers),
        )
    )


def _checked(query: Query) -> Query:
    whole = "\n".join((query.query_id, query.text, *map("".join, query.attributes.items()), *query.reference_answers))
    require_text(whole, "the query")
    if "\0" in whole:
        raise InvalidQuery("the query holds a NUL character, which no database stores: remove it")
    if not query.text:
        raise InvalidQuery("the query has no text")
    if not query.query_id:
        raise InvalidQuery("the query has no id")
    if any(c.isspace() for c in query.query_id) or len(query.query_id) > MAX_ID_CHARS:
        raise InvalidQuery(
            f"query_id {query.query_id[:40]!r} holds white space or is longer than {MAX_ID_CHARS}: "
            "TREC files cannot carry it"
        )
    return query
