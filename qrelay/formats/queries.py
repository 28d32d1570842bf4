"""Query lines, as `qrelay feed` and all who take its files read them: JSONL, TSV or plain text, told apart line by
line unless the format is given.

- JSONL: `query_id` (or `_id`, `id`, `qid`), `text` (or `query`), optional `attributes`, `reference_answers`.
- TSV: `query_id<TAB>text`.
- plain: the line is the text; its id is `q-` and 16 characters of the text's hash, so that the same line
  is the same query whenever it comes.

Rows of Parquet and datasets are queries as the objects of JSONL are; `datasets.py` says how their columns are found.

Under "auto" a header line is no query, nor is a part of a JSON document, nor a line without a letter or digit. TSV
has no quoting and no third column. No query holds NUL, which databases do not store. Attributes that are no text are
kept as JSON, a null is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from qrelay.errors import InvalidQuery, MalformedInput
from qrelay.formats.datasets import QUERY_COLUMNS, QUESTIONS, Columns, is_dataset, read_rows
from qrelay.formats.lines import BOM, byte_lines, decoded, json_value, parsed, refuse_binary
from qrelay.formats.records import QUERY_IDS, QUERY_TEXTS, query_fields, require_text, texts, told
from qrelay.identity import query_id_of
from qrelay.types import Query

Format = Literal["auto", "jsonl", "tsv", "plain"]
Record = str | bytes | Mapping[str, Any]
"""A line, or a row of a dataset."""
MAX_ID_CHARS = 256
_TABLE: Final = re.compile(r"\.(csv|parquet|xlsx?|ods)(\.(gz|bz2|xz|zst|zip))?$", re.IGNORECASE)
_IDS: Final = {"id", "_id"}
_HEADER: Final = {*QUERY_IDS, *QUERY_TEXTS, "query-id"} - _IDS
_JSON: Final = re.compile(rf'\s*(\{{|\[\s*[\[{{"]|"({"|".join(map(re.escape, (*QUERY_IDS, *QUERY_TEXTS)))})"\s*:)')
"""How a JSON document begins, or a line of one that is written over several."""
_QUOTED: Final = re.compile(r'".+"')
_COMMAS: Final = re.compile(rb"[,;|]")


def refuse_table(path: Path) -> None:
    """Raises MalformedInput: the file's name says that it holds no query lines."""
    if _TABLE.search(path.name):
        raise _table(path)


def refuse_head(head: bytes, name: object) -> None:
    """Raises MalformedInput: what begins with `head` holds no query lines. It is no text, or a table, whose header
    says that commas or the like part its columns."""
    refuse_binary(head, name)
    first = re.split(rb"[\r\n]", head.removeprefix(BOM), maxsplit=1)[0]
    names = [_column(field.decode("utf-8", "replace")) for field in _COMMAS.split(first)]
    if len(names) > 1 and {*names} & _HEADER and all(re.fullmatch(r"[\w-]+", each) for each in names):
        raise _table(name)


def _table(name: object) -> MalformedInput:
    return MalformedInput(
        f"{name} is a table: write its queries as JSONL, as TSV with query_id and text, or as Parquet"
    )


def _column(name: str) -> str:
    """A column's name in a header, as plain as it can be."""
    return name.strip().strip("\"'#").lower()


def read_queries(path: Path, collection: str = "") -> Iterator[Query]:
    """The queries of a file.

    Raises:
        MalformedInput: a line or row is no query; it is named. Or the file is neither of lines nor a dataset.
    """
    parse: Callable[[Record], Query] = partial(query_of, collection=collection, columns=QUERY_COLUMNS)
    if is_dataset(str(path)):
        found: Iterator[tuple[int, Record]] = iter(read_rows(str(path), QUERY_COLUMNS))
    else:
        refuse_table(path)
        found = iter(byte_lines(path, check=refuse_head))
    for _, query in parsed(path, found, parse):
        yield query


def query_of(record: Record, collection: str, columns: Columns, line_format: Format = "auto") -> Query:
    """The query in a line, which is JSON where its columns were named, or in a row. Raises as `parse_line`."""
    if isinstance(record, str | bytes):
        if not columns.named:
            return parse_line(record, collection, line_format)
        record = json_value(record)
    if columns.kind is not QUESTIONS:
        return query_from(columns.record(record), collection)
    query = query_from({**columns.record(record), "query_id": "-"}, collection)
    return replace(query, query_id=query_id_of(query.text))


def parse_line(line: str | bytes, collection: str, line_format: Format = "auto") -> Query:
    """One line as a query, without `submitted_at`.

    Raises:
        MalformedInput: not of the format.
        InvalidQuery: no text, or an id that TREC files cannot hold.
    """
    line = decoded(line).rstrip("\r\n")
    kind = _guess(line) if line_format == "auto" else line_format
    if kind == "jsonl":
        return query_from(json_value(line), collection)
    if kind == "tsv":
        query_id, tab, text = line.partition("\t")
        if not tab:
            raise MalformedInput("no tab: a TSV line is query_id<TAB>text")
        query_id, text = _bare(query_id), _bare(text)
        if "\t" in text:
            raise MalformedInput("more than two columns: a TSV line is query_id<TAB>text")
        if _QUOTED.fullmatch(query_id) or (_QUOTED.fullmatch(text) and '""' in text):
            raise MalformedInput("a field in quotes, which TSV has not here: write it without, or the line as JSON")
        return _checked(Query(query_id, text, collection))
    text = _bare(line)
    if line_format == "auto" and not any(map(str.isalnum, text)):
        raise InvalidQuery("no letter and no digit, hence no question: say --format plain where it is one")
    return _checked(Query(query_id_of(text), text, collection))


def _bare(field: str) -> str:
    """A field of a line without the blanks around it. Raises MalformedInput: it is none."""
    field = field.strip()
    if "\r" in field:
        raise MalformedInput("a carriage return within the line: end every line with a line feed")
    return field


def _guess(line: str) -> Format:
    if _JSON.match(line):
        return "jsonl"
    names = [_column(name) for name in line.split("\t")[:2]]
    if names[-1] in _HEADER and {*names} <= {*_HEADER, *_IDS}:
        raise MalformedInput("a header, no query: remove the line, or say --format tsv or plain where it is one")
    return "tsv" if "\t" in line else "plain"


def query_from(entry: Any, collection: str) -> Query:
    """The query in an object. Raises as `parse_line`."""
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
