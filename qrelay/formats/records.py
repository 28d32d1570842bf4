"""The fields of documents and queries in JSON, read alike wherever they come in: index, feed, evaluation, judge,
audit, query generation.

A whole number may stand for an id. A document without text is its title; a list of texts is one text, a line each.
NUL, which PDF extraction leaves and no database stores, is U+FFFD in documents, and refused in ids and queries.
"""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, Final, TypeVar

from qrelay.formats.lines import BadRecord, byte_lines, json_value, parsed
from qrelay.naming import document_of

log = logging.getLogger(__name__)

DOCUMENT_IDS: Final = ("_id", "id", "doc_id", "docid", "docno", "pid")
DOCUMENT_TEXTS: Final = ("text", "contents", "content", "passage", "body")
QUERY_IDS: Final = ("query_id", "_id", "id", "qid")
QUERY_TEXTS: Final = ("text", "query", "question")
REPLACEMENT: Final = "\ufffd"
METADATA_BYTES: Final = 2048
"""Of a document's metadata as JSON: it travels with each of its passages."""
_Fields = TypeVar("_Fields")


def read_records(path: Path, fields: Callable[[object], _Fields]) -> Iterator[tuple[int, _Fields]]:
    """(number, what `fields` makes of it) of every line of a JSONL file. Raises MalformedInput: it names the line."""
    return parsed(path, byte_lines(path), lambda line: fields(json_value(line)))


def document_fields(record: object) -> tuple[str, str, str]:
    """(id, title, text) of a document with BEIR's fields `_id`, `title`, `text`, or a usual synonym of them.

    Raises:
        BadRecord: no object, no id, or a title or text that is none.
    """
    row = _object(record, "_id and text")
    doc_id = _id(row, DOCUMENT_IDS)
    return doc_id, *title_and_text(row, repr(doc_id))


def title_and_text(record: object, what: str = "the passage") -> tuple[str, str]:
    """(title, text) of a document or passage; a text that is there may be empty, as some of public collections' are.
    Raises BadRecord, as `document_fields`."""
    row = _object(record, "text")
    title = _joined(row, "title")
    text = next(filter(str.strip, (_joined(row, name) for name in DOCUMENT_TEXTS)), title)
    if not text.strip() and all(row.get(name) is None for name in DOCUMENT_TEXTS):
        raise BadRecord(f"{what} has neither title nor text")
    require_text(title + text, what)
    return title.replace("\0", REPLACEMENT), text.replace("\0", REPLACEMENT)


def metadata_of(record: object) -> tuple[dict[str, str], int]:
    """(field -> text of a record's `metadata`, how many of its fields were left out).

    A date is written by ISO 8601, any other value that is no text as JSON; null and a blank text are no value. Left
    out is what JSON cannot say, and, in the order of the names, what finds no more room in `METADATA_BYTES`; no value
    is cut. Where `metadata` is no object, it counts as one field.
    """
    found = record.get("metadata") if isinstance(record, dict) else None
    if not isinstance(found, dict):
        return {}, int(found is not None)
    kept: dict[str, str] = {}
    left_out, room = 0, METADATA_BYTES
    for name in sorted(found, key=str):
        text = _value(found[name])
        size = len(json.dumps({str(name): text}, ensure_ascii=False).encode("utf8", "replace"))
        if text is None or size > room:
            left_out += 1
        elif text.strip():
            kept[_whole(str(name))] = text
            room -= size
    return kept, left_out


def metadata_remark(left_out: int) -> str:
    """What people should know of fields that were left out."""
    return (
        f"{left_out:,} fields of metadata were left out: a document keeps {METADATA_BYTES:,} bytes of it as JSON, in"
        " the order of the names, and `metadata` must be an object"
    )


def say_left_out(path: Path, left_out: int) -> None:
    """Logs how many fields of metadata a reading of the file left out; nothing where it was none."""
    if left_out:
        log.warning("%s: %s", path, metadata_remark(left_out))


@contextmanager
def metadata_in(path: Path) -> Iterator[Callable[[object], dict[str, str]]]:
    """`metadata_of` the records of a file; how many fields were left out is logged when it is read."""
    left_out = 0

    def read(record: object) -> dict[str, str]:
        nonlocal left_out
        kept, lost = metadata_of(record)
        left_out += lost
        return kept

    yield read
    say_left_out(path, left_out)


def _value(value: object) -> str | None:
    """A field of metadata as text; "": none; None: it cannot be said in JSON."""
    try:
        return "" if value is None else _whole(value.isoformat() if isinstance(value, date) else told(value))
    except BadRecord:
        return None


def _whole(text: str) -> str:
    """Without NUL and half characters."""
    return text.encode("utf8", "replace").decode().replace("\0", REPLACEMENT)


def passage_fields(record: object) -> tuple[str, str, str, str]:
    """(passage_id, doc_id, title, text) of what `qrelay index passages` writes; a document is one passage.

    Raises:
        BadRecord: see `document_fields`.
    """
    row = _object(record, "_id (or passage_id and doc_id) and text")
    passage_id, title, text = document_fields({**row, "_id": row["passage_id"]} if "passage_id" in row else row)
    return passage_id, _id(row, ("doc_id",)) if "doc_id" in row else passage_id, title, text


def candidate_fields(record: object) -> tuple[str, str, str, str]:
    """(passage_id, doc_id, title, text) of what an engine returned: a passage where it has a `passage_id`, else a
    document, whose passage_id is ""; the text is "" where it has none. Raises BadRecord."""
    row = _object(record, "doc_id")
    passage_id = _id(row, ("passage_id",)) if row.get("passage_id") is not None else ""
    named = any(row.get(name) is not None for name in DOCUMENT_IDS)
    doc_id = _id(row, ("doc_id", *DOCUMENT_IDS)) if named or not passage_id else document_of(passage_id)
    for each in (passage_id, doc_id):
        if each.split() != [each] and each:
            raise BadRecord(f"the id {each[:40]!r} holds white space, which TREC qrels cannot: replace it")
    if any(_joined(row, name).strip() for name in DOCUMENT_TEXTS):
        return passage_id, doc_id, *title_and_text(row, repr(doc_id))
    title = _joined(row, "title")
    require_text(title, repr(doc_id))
    return passage_id, doc_id, title.replace("\0", REPLACEMENT), ""


def query_fields(record: object) -> tuple[str, str]:
    """(id, text) of a query with `query_id` and `text`, or a usual synonym of them; the text may be empty.

    Raises:
        BadRecord: no object, no id, or no text.
    """
    row = _object(record, "query_id and text")
    return _id(row, QUERY_IDS), _plain(row, QUERY_TEXTS, "text")


def answer_fields(record: object) -> tuple[str, tuple[str, ...]]:
    """(query_id, reference answers) of an object with `query_id` and `answers` or `answer`. Raises BadRecord."""
    row = _object(record, "query_id and answers")
    query_id = _id(row, QUERY_IDS)
    if not {"answers", "answer"} & row.keys():
        raise BadRecord(f"no answers of {query_id!r}: give `answers`, a list of texts")
    return query_id, texts(row.get("answers", row.get("answer")))


def asked_answers(record: object) -> tuple[str, tuple[str, ...]]:
    """(query_id, reference answers) of a query with `metadata.answers` or `metadata.answer`. Raises BadRecord."""
    row = _object(record, "query_id and text")
    told = _object(row.get("metadata") or {}, "answers as `metadata`")
    return _id(row, QUERY_IDS), texts(told.get("answers", told.get("answer")))


def texts(found: object) -> tuple[str, ...]:
    """Texts from a list, from a list as JSON or as a Python literal in a text, or from one plain text; none from
    None. Blank ones are left out. Raises BadRecord."""
    if isinstance(found, str) and found.lstrip().startswith("["):
        found = _literal(found.strip())
    held = [] if found is None else [found] if isinstance(found, str) else found
    if not isinstance(held, list) or not all(isinstance(each, str) for each in held):
        raise BadRecord("no list of texts: give the answers as one, in JSON")
    require_text("".join(held), "an answer")
    return tuple(each for each in held if each.strip())


def told(value: object) -> str:
    """A value of an object's free keys as text: a text as it is, everything else as JSON. Raises BadRecord."""
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRecord(f"a value that is no JSON: {error}") from error


def require_text(text: str, what: str) -> None:
    """Raises BadRecord: it holds half of a character, as JSON's escapes can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRecord(f"{what} holds a lone surrogate, which is no text: remove it") from error


def _literal(text: str) -> Any:
    """What stands in `text`, which begins with a bracket; the text itself where it is neither notation."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # what `literal_eval` says of deep nesting
            continue
    return text


def _object(record: object, wanted: str) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise BadRecord(f"expected an object with {wanted}, not {type(record).__name__}")
    return record


def _id(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    found = _plain(row, names, "id")
    if not found:
        raise BadRecord("no id: it is empty")
    if "\0" in found:
        raise BadRecord(f"the id {found[:40]!r} holds a NUL character: remove it")
    return found


def _joined(row: Mapping[str, Any], name: str) -> str:
    """A text, or the texts of a list, a line each; "" where there is none."""
    value = row.get(name)
    parts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(each, str) for each in parts):
        raise BadRecord(f"title and text must be strings or lists of strings, {name} is {type(value).__name__}")
    return "\n".join(parts)


def _plain(row: Mapping[str, Any], names: tuple[str, ...], what: str) -> str:
    """A text, or a whole number as one."""
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        raise BadRecord(f"no {what}: no {names[0]}" + (f" (nor {', '.join(names[1:])})" if names[1:] else ""))
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRecord(f"{name} must be text, not {type(value).__name__}")
    require_text(str(value), name)
    return str(value)
