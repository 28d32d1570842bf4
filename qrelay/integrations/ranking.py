"""What each framework's retriever and reranker need of the client, in no framework's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qrelay.client import Client
from qrelay.client.frames import rows
from qrelay.identity import query_id_of
from qrelay.naming import passage_name
from qrelay.types import BI_ENCODER, CROSS_ENCODER, Candidate

AT_ONCE: Final = 32
"""Documents in one set: as many of 1 MiB fit into a request."""
_TEXTS: Final = ("title", "text", "query", "query_id", "round", "sampled")


@dataclass(frozen=True, slots=True)
class Found:
    """A passage that was retrieved. score: 1 / its rank; metadata: the document's, and its title; ranks: ids and
    every system's score and rank, by flat names."""

    passage_id: str
    text: str
    score: float
    metadata: Mapping[str, Any]
    ranks: Mapping[str, Any]

    @property
    def everything(self) -> dict[str, Any]:
        """Metadata and ranks."""
        return {**self.metadata, **self.ranks}


@dataclass(frozen=True, slots=True)
class Text:
    """A document to rank; the title is read before the text."""

    text: str
    title: str = ""


def retrieved(client: Client, query: str, top_k: int, collection: str) -> list[Found]:
    """The best `top_k` passages, best first. collection: "": the client's. Raises as `Client.retrieve`."""
    found = client.retrieve(query, collection=collection, max_candidates=top_k)
    return [
        Found(each.passage_id, each.text, 1 / rank, {**each.metadata, "title": each.title}, _ranks(row))
        for rank, (row, candidate) in enumerate(zip(rows(found), found.candidates, strict=True), 1)
        for each in [candidate.passage]
    ]


def _ranks(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _TEXTS}


def ranked(
    client: Client, query: str, texts: Sequence[Text], top_n: int, collection: str
) -> list[tuple[int, float | None]]:
    """(place in `texts`, score) of the best `top_n`, best first; what has no text comes last and has no
    score. A service that scores fewer of a set than it was sent is asked for the rest. Raises as `Client.rerank`."""
    scores: dict[int, float | None] = {}
    left, before = [*range(len(texts))], -1
    while left and len(scores) > before:
        before = len(scores)
        sets = [_set(query, texts, left[start : start + AT_ONCE]) for start in range(0, len(left), AT_ONCE)]
        for answer in client.rerank(sets, collection=collection, max_candidates=AT_ONCE):
            scores |= {int(each.passage.doc_id): _score(each) for each in answer.candidates}
        left = [place for place in left if place not in scores]
    found = [(place, scores.get(place)) for place in range(len(texts))]
    return sorted(found, key=_last_without_score)[:top_n]


def _set(query: str, texts: Sequence[Text], places: Sequence[int]) -> dict[str, Any]:
    """As `qrelay feed --format candidates` has it; each document is one passage, as it stands."""
    documents = [
        {"doc_id": str(place), "passage_id": passage_name(str(place), 0), "title": each.title, "text": each.text}
        for place in places
        for each in [texts[place]]
    ]
    return {"query_id": query_id_of(query), "text": query, "candidates": documents}


def _score(candidate: Candidate) -> float | None:
    found = candidate.score(CROSS_ENCODER) or candidate.score(BI_ENCODER)
    return found and found.score


def _last_without_score(found: tuple[int, float | None]) -> tuple[bool, float, int]:
    place, score = found
    return score is None, -(score or 0.0), place
