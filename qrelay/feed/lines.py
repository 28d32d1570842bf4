"""Lines to queries: JSONL, TSV or plain text, told apart line by line unless the format is given.

- JSONL: `query_id` (or `_id`, `id`, `qid`), `text` (or `query`), optional `attributes`, `reference_answers`.
- TSV: `query_id<TAB>text`.
- plain: the line is the text; its id is `q-` and 16 characters of the text's hash, so that the same line
  is the same query whenever it comes.

A bad line is an error that names its number; the others go on.
"""

from __future__ import annotations

import json
from typing import Literal

from qrelay.errors import InvalidQuery, MalformedInput
from qrelay.formats.records import query_fields
from qrelay.identity import digest
from qrelay.types import Query

Format = Literal["auto", "jsonl", "tsv", "plain"]
MAX_ID_CHARS = 256


def parse_line(line: str, collection: str, line_format: Format = "auto") -> Query:
    """One line as a query, without `submitted_at`.

    Raises:
        MalformedInput: not of the format.
        InvalidQuery: no text, or an id that TREC files cannot hold.
    """
    line = line.rstrip("\r\n")
    kind = _guess(line) if line_format == "auto" else line_format
    if kind == "jsonl":
        return _from_json(line, collection)
    if kind == "tsv":
        query_id, tab, text = line.partition("\t")
        if not tab:
            raise MalformedInput("no tab: a TSV line is query_id<TAB>text")
        return _checked(Query(query_id.strip(), text.strip(), collection))
    text = line.strip()
    return _checked(Query(f"q-{digest(text)[:16]}", text, collection))


def _guess(line: str) -> Format:
    if line.lstrip().startswith("{"):
        return "jsonl"
    return "tsv" if "\t" in line else "plain"


def _from_json(line: str, collection: str) -> Query:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise MalformedInput(f"not JSON: {error}") from error
    query_id, text = query_fields(entry)
    attributes = entry.get("attributes") or {}
    answers = entry.get("reference_answers") or []
    if not isinstance(attributes, dict) or not isinstance(answers, list):
        raise MalformedInput("attributes must be an object and reference_answers a list")
    return _checked(
        Query(
            query_id=query_id,
            text=text.strip(),
            collection=collection,
            attributes={str(key): str(value) for key, value in attributes.items()},
            reference_answers=tuple(str(answer) for answer in answers),
        )
    )


def _checked(query: Query) -> Query:
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
