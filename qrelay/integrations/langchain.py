"""LangChain: a retriever and a document compressor. `pip install 'qrelay[langchain]'`."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ConfigDict, Field

from qrelay.client import Client
from qrelay.integrations import library
from qrelay.integrations.ranking import Text, ranked, retrieved

with library("langchain"):
    from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.retrievers import BaseRetriever


class QrelayRetriever(BaseRetriever):
    """Passages of the retriever service. Metadata: the document's, `passage_id`, `doc_id`, `title`, and every
    system's score and rank. Raises as `Client.retrieve`."""

    client: Client
    collection: str = ""
    k: int = Field(10, ge=1)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  # LangChain's name
    ) -> list[Document]:
        found = retrieved(self.client, query, self.k, self.collection)
        return [Document(each.text, id=each.passage_id, metadata=each.everything) for each in found]


class QrelayCompressor(BaseDocumentCompressor):
    """The best documents by the reranker service, whoever retrieved them; `relevance_score` is in their metadata."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    client: Client
    collection: str = ""
    top_n: int = Field(10, ge=1)

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002  # LangChain's name
    ) -> Sequence[Document]:
        """The best `top_n`, best first; those given are not changed. Raises as `Client.rerank`."""
        texts = [Text(each.page_content, str(each.metadata.get("title") or "")) for each in documents]
        found = ranked(self.client, query, texts, self.top_n, self.collection)
        return [
            documents[place].model_copy(update={"metadata": {**documents[place].metadata, "relevance_score": score}})
            for place, score in found
        ]
