"""The fields of documents and queries in JSON, read alike wherever they come in: index, feed, evaluation, judge.

A number may stand for an id. A document without text is its title.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qrelay.errors import MalformedInput

DOCUMENT_IDS: Final = ("_id", "id", "doc_id", "docid")
DOCUMENT_TEXTS: Final = ("text", "contents", "passage", "body")
QUERY_IDS: Final = ("query_id", "_id", "id", "qid")
QUERY_TEXTS: Final = ("text", "query")


class BadRecord(MalformedInput):
    """Why a record is no document or query, without the place where it stands."""


def document_fields(record: object) -> tuple[str, str, str]:
    """(id, title, text) of a document with BEIR's fields `_id`, `title`, `text`, or a usual synonym of them.

    Raises:
        BadRecord: no object, no id, or a title or text that is none.
    """
    row = _object(record, "_id and text")
    doc_id = _id(row, DOCUMENT_IDS)
    title = row.get("title") or ""
    text = next((row[name] for name in DOCUMENT_TEXTS if row.get(name) is not None), None)
    if text is None and not title:
        raise BadRecord(f"{doc_id!r} has neither title nor text")
    text = "" if text is None else text
    if not isinstance(text, str) or not isinstance(title, str):
        raise BadRecord(f"title and text of {doc_id!r} must be strings")
    return doc_id, title, text if text.strip() else title


def query_id(record: object) -> str:
    """The id of a query. Raises BadRecord: it has none."""
    return _id(_object(record, "query_id and text"), QUERY_IDS)


def query_fields(record: object) -> tuple[str, str]:
    """(id, text) of a query with `query_id` and `text`, or a usual synonym of them; the text may be empty.

    Raises:
        BadRecord: no object, no id, or no text.
    """
    row = _object(record, "query_id and text")
    return _id(row, QUERY_IDS), _plain(row, QUERY_TEXTS, "text")


def _object(record: object, wanted: str) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise BadRecord(f"expected an object with {wanted}, not {type(record).__name__}")
    return record


def _id(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    found = _plain(row, names, "id")
    if not found:
        raise BadRecord("no id: it is empty")
    return found


def _plain(row: Mapping[str, Any], names: tuple[str, ...], what: str) -> str:
    """A text, or a whole number as one."""
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        raise BadRecord(f"no {what}: no {names[0]} (nor {', '.join(names[1:])})")
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRecord(f"{name} must be text, not {type(value).__name__}")
    return str(value)
