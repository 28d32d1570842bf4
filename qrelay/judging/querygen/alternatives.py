"""The questions of a log that are most alike: what `contrastive_likelihood` measures a query against.

Likeness is the cosine of embeddings. So the alternatives of "What are the treatments for Farber lipogranulomatosis?"
are the other questions about it, and the same question about what is easily taken for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from qrelay.chunks import chunks
from qrelay.errors import InputError
from qrelay.judging.strategies.contrastive import ALTERNATIVES
from qrelay.models.embedder import Embedder
from qrelay.types import Query

_AT_ONCE: Final = 256


def annotated(queries: Iterable[Query], log: Sequence[str], n: int, embedder: Embedder) -> Iterator[dict[str, Any]]:
    """The queries, each with its alternatives in the attribute that the judge reads. Raises as `nearest`."""
    held = list(map(row, queries))
    for query, found in zip(held, nearest([query["text"] for query in held], log, n, embedder), strict=True):
        attributes = {**query.get("attributes", {}), ALTERNATIVES: json.dumps(found, ensure_ascii=False)}
        yield {**query, "attributes": attributes}


def row(query: Query) -> dict[str, Any]:
    """The query as a line for `qrelay feed`."""
    found: dict[str, Any] = {"query_id": query.query_id, "text": query.text}
    found |= {"attributes": dict(query.attributes)} if query.attributes else {}
    return found | ({"reference_answers": list(query.reference_answers)} if query.reference_answers else {})


def nearest(texts: Sequence[str], log: Sequence[str], n: int, embedder: Embedder) -> Iterator[list[str]]:
    """For each of `texts` the `n` texts of the log that are most alike, the nearest first, its own left out. Texts
    are equal where only case and blanks differ, and each counts once.

    Raises:
        InputError: the log is empty.
    """
    known = list({_plain(text): text for text in reversed(log) if text.strip()}.values())[::-1]
    if not known:
        raise InputError("the query log holds no question to compare with")
    names = [_plain(text) for text in known]
    vectors = embedder.encode(known, "query")
    for part in chunks(texts, _AT_ONCE):
        for text, row in zip(part, embedder.encode(part, "query") @ vectors.T, strict=True):
            order = (-row).argsort(kind="stable")[: n + 1]
            yield [known[i] for i in order if names[i] != _plain(text)][:n]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
