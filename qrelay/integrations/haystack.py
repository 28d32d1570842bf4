"""Haystack: a retriever and a ranker. `pip install 'qrelay[haystack]'`.

`client` is a `Client`, or an object of its arguments, such as {"retriever": "search.example.com:7401"}: a pipeline
with the latter can be written to YAML and loaded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qrelay.client import Client
from qrelay.integrations import library
from qrelay.integrations.ranking import Text, ranked, retrieved

with library("haystack"):
    from haystack import Document, component


def _opened(client: Client | Mapping[str, Any]) -> Client:
    return client if isinstance(client, Client) else Client(**client)


@component
class QrelayRetriever:
    """Passages of the retriever service; the score is 1 / rank. Meta: the document's, `passage_id`, `doc_id`,
    `title`, and every system's score and rank."""

    def __init__(self, client: Client | dict[str, Any], collection: str = "", top_k: int = 10) -> None:
        self.client, self.collection, self.top_k = client, collection, top_k
        self._client = _opened(client)

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int | None = None) -> dict[str, list[Document]]:
        """Raises as `Client.retrieve`."""
        found = retrieved(self._client, query, top_k or self.top_k, self.collection)
        documents = [
            Document(id=each.passage_id, content=each.text, meta=each.everything, score=each.score) for each in found
        ]
        return {"documents": documents}


@component
class QrelayRanker:
    """The best documents by the reranker service, whoever retrieved them; their score is the reranker's."""

    def __init__(self, client: Client | dict[str, Any], collection: str = "", top_k: int = 10) -> None:
        self.client, self.collection, self.top_k = client, collection, top_k
        self._client = _opened(client)

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """The best, best first; those given are not changed. Raises as `Client.rerank`."""
        texts = [Text(each.content or "", str(each.meta.get("title") or "")) for each in documents]
        found = ranked(self._client, query, texts, top_k or self.top_k, self.collection)
        return {"documents": [replace(documents[place], score=score) for place, score in found]}
