"""What a corpus is made of: documents, and what became of the lines that are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from qrelay.formats.lines import BadRecord
from qrelay.formats.records import document_fields

Reject = Callable[[str, str], None]
"""Told (where, why) of each record that is left out; `where` is file:line, or the document's id."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus. `where` says where it was read from, for messages only."""

    doc_id: str
    title: str
    text: str
    where: str = field(default="", compare=False)


def document_from(record: object, where: str) -> Document:
    """The document in a record, see `document_fields`. Ids hold no white space, because TREC files separate by it.

    Raises:
        BadRecord: saying what is wrong and what is expected.
    """
    doc_id, title, text = document_fields(record)
    if any(character.isspace() for character in doc_id):
        raise BadRecord(f"the id {doc_id!r} holds white space, which TREC qrels cannot; replace it")
    text, title = text.strip(), title.strip()
    if not text:
        raise BadRecord(f"{doc_id!r} has neither title nor text")
    return Document(doc_id, title, text, where)
