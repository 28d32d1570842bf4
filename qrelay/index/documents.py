"""What a corpus is made of: documents, and what became of the lines that are none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from qrelay.formats.lines import BadRecord
from qrelay.formats.records import DOCUMENT_TEXTS, document_fields, metadata_of

MAX_ID_CHARS: Final = 512
"""Of a document: what an index of a database takes in every script."""
MAX_TITLE_CHARS: Final = 1024
"""Of a title, which is in each of a document's passages; longer ones are cut."""

Reject = Callable[[str, str], None]
"""Told (where, why) of each record that is left out; `where` is file:line, or the document's id."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus. windows: its passages' texts, where they are cut already. metadata: field to text.
    For messages only: `where` it was read from, how many NUL characters were `replaced` in it, whether its title was
    `cut`, and how many fields of its metadata were `left_out`."""

    doc_id: str
    title: str
    text: str
    where: str = field(default="", compare=False)
    replaced: int = field(default=0, compare=False)
    cut: bool = field(default=False, compare=False)
    windows: tuple[str, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    left_out: int = field(default=0, compare=False)


def document_from(record: object, where: str) -> Document:
    """The document in a record, see `document_fields`. Ids hold no white space, because TREC files separate by it.

    Raises:
        BadRecord: saying what is wrong and what is expected.
    """
    doc_id, title, text = document_fields(record)
    if not text.strip():
        raise BadRecord(f"{doc_id!r} has neither title nor text")
    if any(character.isspace() for character in doc_id):
        raise BadRecord(f"the id {doc_id!r} holds white space, which TREC qrels cannot; replace it")
    if len(doc_id) > MAX_ID_CHARS:
        raise BadRecord(
            f"the id {doc_id[:40]!r}… has {len(doc_id)} characters, the limit is {MAX_ID_CHARS}: shorten it"
        )
    text, title = text.strip(), title.strip()
    cut = len(title) > MAX_TITLE_CHARS
    metadata, left_out = metadata_of(record)
    title = title[:MAX_TITLE_CHARS].strip()
    return Document(doc_id, title, text, where, _nul(record), cut, metadata=metadata, left_out=left_out)


def written_metadata(metadata: Mapping[str, str]) -> str:
    """As indexes keep it; "" for none."""
    return json.dumps(metadata, ensure_ascii=False) if metadata else ""


def read_metadata(written: str) -> dict[str, str]:
    """What `written_metadata` wrote."""
    found: dict[str, str] = json.loads(written) if written else {}
    return found


def metadata_fields(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """What a document's identity gains by metadata: nothing where there is none, so that an index without any is the
    one that it was. Texts hold no NUL, so none of them is equal to it."""
    return (f"\0{json.dumps(metadata, sort_keys=True, ensure_ascii=False)}",) if metadata else ()


def _nul(record: object) -> int:
    """NUL characters in title and text of a record."""
    texts = map(record.get, ("title", *DOCUMENT_TEXTS)) if isinstance(record, dict) else ()
    parts = (part for text in texts for part in (text if isinstance(text, list) else [text]))
    return sum(part.count("\0") for part in parts if isinstance(part, str))
