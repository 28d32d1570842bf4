"""What a corpus is made of: documents, and what became of the lines that are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

Reject = Callable[[str, str], None]
"""Told (where, why) of each record that is left out; `where` is file:line, or the document's id."""

ID_FIELDS: Final = ("_id", "id", "doc_id", "docid")
TEXT_FIELDS: Final = ("text", "contents", "passage", "body")


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus. `where` says where it was read from, for messages only."""

    doc_id: str
    title: str
    text: str
    where: str = field(default="", compare=False)


class BadRecord(ValueError):
    """Why a record is no document. Caught by the readers, never raised beyond them."""


def document_from(record: object, where: str) -> Document:
    """The document in a record with BEIR's fields `_id`, `title`, `text`, or a usual synonym of them.

    A document without text is its title. Ids hold no white space, because TREC files separate by it.

    Raises:
        BadRecord: saying what is wrong and what is expected.
    """
    if not isinstance(record, dict):
        raise BadRecord(f"expected an object with _id and text, found {type(record).__name__}")
    doc_id = next((record[name] for name in ID_FIELDS if record.get(name) is not None), None)
    text = next((record[name] for name in TEXT_FIELDS if record.get(name) is not None), "")
    title = record.get("title") or ""
    doc_id = str(doc_id) if isinstance(doc_id, int) else doc_id
    if not isinstance(doc_id, str) or not doc_id:
        raise BadRecord(f"no id: one of the fields {', '.join(ID_FIELDS)} must be a non-empty string")
    if not isinstance(text, str) or not isinstance(title, str):
        raise BadRecord(f"title and text of {doc_id!r} must be strings")
    if any(character.isspace() for character in doc_id):
        raise BadRecord(f"the id {doc_id!r} holds white space, which TREC qrels cannot; replace it")
    text, title = text.strip(), title.strip()
    if not text and not title:
        raise BadRecord(f"{doc_id!r} has neither title nor text")
    try:
        f"{doc_id}{title}{text}".encode()
    except UnicodeEncodeError as error:
        raise BadRecord(f"{doc_id!r} holds a lone surrogate, which is no text: {error.reason}") from error
    return Document(doc_id, title, text or title, where)
