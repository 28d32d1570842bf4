"""The shapes of two servers that programs know: text-embeddings-inference's `/embed` and `/rerank` (its OpenAPI, 1.8)
and Cohere's `/v2/embed` and `/v2/rerank` (version 2 of its API). What we cannot do is refused, not ignored.

`/embed` is answered by the retriever's embedder, `/rerank` by the reranker's model, whatever `model` says. Scores are
that model's own, as its files have them (many give logits): the order is theirs, a threshold is the model's.
"""

from __future__ import annotations

import math
import uuid
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from qrelay import wire
from qrelay.errors import InputError, Oversized
from qrelay.types import CandidateSet
from qrelay.v1 import reranker_pb2, retriever_pb2
from qrelay.web.api import models, shapes
from qrelay.web.api.calls import only
from qrelay.web.security import Person
from qrelay.web.site import Site

_DEFAULT: Final = "default"
Texts = Annotated[list[models.Text], Field(min_length=1, max_length=models.MOST)]


class Theirs(BaseModel):
    """Fields that we do not know are left aside, as their servers do."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class TeiEmbedRequest(Theirs):
    """Texts to embed. `prompt_name`: query or document; absent: document. `normalize`: to unit length; false: as the
    model gives them, which for most is unit length too."""

    inputs: models.Text | Texts
    normalize: bool = True
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] = "Right"
    prompt_name: Literal["query", "document"] | None = None
    dimensions: None = None


class TeiRerankRequest(Theirs):
    """A query with the texts to put in order."""

    query: models.Text = Field(min_length=1)
    texts: Texts
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] = "Right"


class TeiRank(Theirs):
    """A text's place in the request and its score."""

    index: int
    score: float
    text: str | None = None


class CohereEmbedRequest(Theirs):
    """Texts to embed."""

    model: str = ""
    texts: Texts
    input_type: Literal["search_query", "search_document", "classification", "clustering"]
    embedding_types: list[Literal["float"]] = ["float"]
    truncate: Literal["END"] = "END"
    output_dimension: None = None


class CohereVectors(Theirs):
    """By type; there is one."""

    float_: list[list[float]] = Field(alias="float")


class CohereEmbedAnswer(Theirs):
    """The vectors, in the texts' order."""

    id: str
    embeddings: CohereVectors
    texts: list[str]
    meta: dict[str, Any]


class CohereRerankRequest(Theirs):
    """A query with the documents to put in order."""

    model: str = ""
    query: models.Text = Field(min_length=1)
    documents: Texts
    top_n: int | None = Field(None, ge=1)


class CohereRank(Theirs):
    """A document's place in the request and its score."""

    index: int
    relevance_score: float


class CohereRerankAnswer(Theirs):
    """Documents, the most relevant first."""

    id: str
    results: list[CohereRank]
    meta: dict[str, Any]


_META: Final = {"api_version": {"version": "2"}}


async def tei_embed(site: Site, _: Person, asked: TeiEmbedRequest) -> list[list[float]]:
    """Vectors of texts by the embedder that serves retrieval (text-embeddings-inference's shape)."""
    texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
    vectors = await _embedded(site, texts, query=asked.prompt_name == "query")
    return [_unit(each) for each in vectors] if asked.normalize else vectors


async def cohere_embed(site: Site, _: Person, asked: CohereEmbedRequest) -> CohereEmbedAnswer:
    """Vectors of texts by the embedder that serves retrieval (Cohere's shape)."""
    vectors = await _embedded(site, asked.texts, query=asked.input_type == "search_query")
    return CohereEmbedAnswer(id=_id(), embeddings=CohereVectors(float=vectors), texts=asked.texts, meta=_META)


async def tei_rerank(site: Site, _: Person, asked: TeiRerankRequest) -> list[TeiRank]:
    """Texts by their relevance to a query (text-embeddings-inference's shape)."""
    ranks = await _ranked(site, asked.query, asked.texts)
    return [TeiRank(index=i, score=score, text=asked.texts[i] if asked.return_text else None) for i, score in ranks]


async def cohere_rerank(site: Site, _: Person, asked: CohereRerankRequest) -> CohereRerankAnswer:
    """Documents by their relevance to a query (Cohere's shape)."""
    ranks = await _ranked(site, asked.query, asked.documents)
    results = [CohereRank(index=i, relevance_score=score) for i, score in ranks[: asked.top_n]]
    return CohereRerankAnswer(id=_id(), results=results, meta=_META)


async def _embedded(site: Site, texts: list[str], *, query: bool) -> list[list[float]]:
    kind = retriever_pb2.TEXT_KIND_QUERY if query else retriever_pb2.TEXT_KIND_DOCUMENT
    answer = await site.call("retriever", "Embed", retriever_pb2.EmbedRequest(texts=texts, kind=kind))
    return [list(each.values) for each in answer.embeddings]


async def _ranked(site: Site, query: str, texts: list[str]) -> list[tuple[int, float]]:
    """(place of a text, its score), the highest first; every text has one.

    Raises:
        Oversized: more texts than the reranker reads.
        InputError: a text that it cannot score.
    """
    asked = models.RerankRequest(query=query, candidates=texts, max_candidates=len(texts), collection=_DEFAULT)
    request = reranker_pb2.RerankRequest(
        candidate_sets=[wire.to_proto(shapes.candidate_set(asked, texts))], max_candidates=len(texts)
    )
    found: CandidateSet = wire.from_proto(only(await site.call("reranker", "Rerank", request)).candidate_set)
    if len(found.candidates) < len(texts):
        raise Oversized(
            f"{len(texts)} texts; the reranker reads {len(found.candidates)} (reranker.max_candidates): send fewer"
        )
    scores = {}
    for each in found.candidates:
        own = each.scores[-1].score
        if own is None:
            raise InputError(f"text {each.passage.passage_id} is empty, or has no finite score: leave it out")
        scores[int(each.passage.passage_id)] = own
    return list(scores.items())


def _unit(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    return [each / length for each in vector] if length else vector


def _id() -> str:
    return str(uuid.uuid4())
