"""How a document's passages are named, and what to say where one is named for the other.

    486       a document of the corpus
    486#2     its third passage

Every rule that goes from one to the other is here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import islice
from typing import Final

_PASSAGE: Final = re.compile(r"(.+)#(?:0|[1-9][0-9]*)", re.DOTALL)
_EXAMPLES: Final = 3


def passage_name(doc_id: str, number: int) -> str:
    """The passage_id of a document's passage; `number` counts from 0."""
    return f"{doc_id}#{number}"


def document_of(passage_id: str) -> str:
    """The document that a passage_id names (`486` of `486#2`), and any other id as it is. Only an id's form is looked
    at: where a passage is at hand, its `doc_id` counts."""
    found = _PASSAGE.fullmatch(passage_id)
    return found[1] if found else passage_id


def passages_of(doc_id: str, known: Collection[str]) -> list[str]:
    """The ids among `known` that name passages of the document."""
    return [each for each in known if each != doc_id and document_of(each) == doc_id]


def absent(identifier: str, known: Collection[str], where: str) -> str:
    """Why `identifier` is not among the `known` ids of `where`, for people: a passage where documents are, a document
    where passages are, or neither, with ids that are there."""
    document = document_of(identifier)
    if document in known:
        return (
            f"{identifier!r} is a passage, and {where} holds documents, as {document!r}: give labels by document"
            " (`qrelay export qrels --by document`)"
        )
    if passages := passages_of(identifier, known):
        return f"{identifier!r} is a document, and {where} holds passages, as {examples(passages)}: name passages"
    return f"{identifier!r} is not in {where}, which holds {examples(known)}: give the files of one collection"


def examples(ids: Collection[str]) -> str:
    """The first few of the ids, for people."""
    shown = ", ".join(repr(each) for each in islice(ids, _EXAMPLES))
    more = len(ids) - _EXAMPLES
    return f"{shown} and {more} more" if more > 0 else shown or "nothing"
