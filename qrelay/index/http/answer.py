"""An engine's answer as hits, by dotted paths: `hits.hits`, `_source.text`, `fields.text.0` (a number: of a list)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from qrelay.errors import BackendUnavailable, MalformedInput
from qrelay.formats.records import REPLACEMENT, metadata_of, require_text
from qrelay.index.http.presets import Search
from qrelay.naming import document_of, passage_name
from qrelay.types import Passage

_SHOWN: Final = 80
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage, and its score; None: the engine gave none. left_out: fields of its metadata."""

    passage: Passage
    score: float | None
    left_out: int = 0


def read_hits(body: Any, search: Search) -> list[Hit]:
    """The hits of an answer, in its order.

    Raises:
        ValueError: no JSON object or list.
        BackendUnavailable: the engine says that the answer is not whole.
        MalformedInput: it has no hits where they should be, or one has no id; the setting is named.
    """
    if not isinstance(body, dict | list):
        raise ValueError("no JSON object")
    for fault in search.faults:
        if (found := value_at(body, fault)) not in (_ABSENT, None, False, 0, [], {}, ""):
            raise BackendUnavailable(f"the engine's answer is not whole, {fault} is {str(found)[:_SHOWN]}")
    hits = [_hit(each, place, search) for place, each in enumerate(_rows(body, search.hits), 1)]
    if hits and not any(each.passage.text for each in hits):
        raise MalformedInput(f"no hit has a text at {search.text!r}: set retriever.http.text to where it is")
    return hits


def _rows(body: Any, path: str) -> Sequence[Any]:
    """The list of hits; none where only the list is left out, as some engines do when nothing was found."""
    rows = value_at(body, path) if path else body
    parent = path.rpartition(".")[0]
    around = value_at(body, parent) if parent else body
    if rows in (_ABSENT, None) and isinstance(around, dict) and parent:
        return []
    if not isinstance(rows, list):
        raise MalformedInput(f"the engine's answer has no list at {path!r}: set retriever.http.hits to where it is")
    return rows


def _hit(row: Any, place: int, search: Search) -> Hit:
    name = _id(row, search.id)
    if name is None:
        raise MalformedInput(f"hit {place} has no id at {search.id!r}: set retriever.http.id to where it is")
    document = _id(row, search.doc_id) if search.doc_id else None
    for each in (name, document or name):
        require_text(each, f"the id of hit {place}")
        if each.split() != [each] or "\0" in each:
            raise MalformedInput(f"hit {place} has the id {each[:40]!r}: ids with white space fit into no TREC file")
    passage_id, doc_id = _names(name, document)
    title, text = _text(row, search.title), _text(row, search.text)
    told = value_at(row, search.metadata)
    metadata, left_out = metadata_of({} if told is _ABSENT else {"metadata": told})
    return Hit(Passage(passage_id, doc_id, title, text, metadata), _score(row, place, search.score), left_out)


def _names(name: str, document: str | None) -> tuple[str, str]:
    """(passage_id, doc_id): a hit is a passage where its document is named, or its id says which it is of; else a
    document, and its only passage."""
    if document is not None:
        return name, document
    whole = document_of(name)
    return (name, whole) if whole != name else (passage_name(name, 0), name)


def _id(row: Any, path: str) -> str | None:
    found = value_at(row, path)
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        return None
    return str(found)


def _text(row: Any, path: str) -> str:
    """A text, or the texts of a list, a line each; "" where there is none."""
    found = value_at(row, path) if path else ""
    parts = found if isinstance(found, list) else [found]
    joined = "\n".join(part for part in parts if isinstance(part, str))
    return joined.encode("utf8", "replace").decode().replace("\0", REPLACEMENT)


def _score(row: Any, place: int, path: str) -> float | None:
    found = value_at(row, path) if path else None
    if found in (_ABSENT, None):
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise MalformedInput(
            f"hit {place} has no number at {path!r}: set retriever.http.score to where it is, or empty"
        )
    return float(found)


def value_at(value: Any, path: str) -> Any:
    """What stands at a dotted path; _ABSENT where nothing does."""
    for name in path.split("."):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return _ABSENT
    return value
