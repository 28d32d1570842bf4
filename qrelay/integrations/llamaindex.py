"""LlamaIndex: a retriever and a node postprocessor. `pip install 'qrelay[llamaindex]'`."""

from __future__ import annotations

import asyncio

from qrelay.client import Client
from qrelay.errors import InvalidQuery
from qrelay.integrations import library
from qrelay.integrations.ranking import Found, Text, ranked, retrieved

with library("llamaindex"):
    from llama_index.core.bridge.pydantic import Field
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode


class QrelayRetriever(BaseRetriever):
    """Passages of the retriever service as nodes; the score is 1 / rank. Metadata: the document's, `passage_id`,
    `doc_id`, `title`, and every system's score and rank; models are shown the document's and the title alone."""

    def __init__(self, client: Client, collection: str = "", similarity_top_k: int = 10) -> None:
        super().__init__()
        self._client, self._collection, self._top_k = client, collection, similarity_top_k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = retrieved(self._client, query_bundle.query_str, self._top_k, self._collection)
        return [NodeWithScore(node=_node(each), score=each.score) for each in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(found: Found) -> TextNode:
    hidden = [*found.ranks]
    return TextNode(
        id_=found.passage_id, text=found.text, metadata=found.everything,
        excluded_llm_metadata_keys=hidden, excluded_embed_metadata_keys=hidden,
    )  # fmt: skip


class QrelayRerank(BaseNodePostprocessor):
    """The best nodes by the reranker service, whoever retrieved them; their score is the reranker's."""

    client: Client = Field(exclude=True)
    collection: str = ""
    top_n: int = Field(10, ge=1)

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name for it."""
        return "QrelayRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidQuery("nodes are ranked for a query: give query_bundle or query_str")
        texts = [
            Text(each.node.get_content(MetadataMode.NONE), str(each.node.metadata.get("title") or ""))
            for each in nodes
        ]
        found = ranked(self.client, query_bundle.query_str, texts, self.top_n, self.collection)
        return [NodeWithScore(node=nodes[place].node, score=score) for place, score in found]
