"""LangChain's, LlamaIndex's and Haystack's own code runs our retrievers and rerankers against running services."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from haystack import Document as HaystackDocument
from haystack import Pipeline
from haystack.core.errors import SerializationError
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core import Settings
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from qrelay import Client
from qrelay.errors import InvalidQuery, UnknownCollection
from qrelay.integrations import haystack, langchain, llamaindex
from qrelay.integrations.ranking import AT_ONCE
from tests.conftest import LONG_S
from tests.integrations.conftest import DOCUMENTS

TIDES = "what causes tides?"
MANY = [f"Green tea number {n} is steeped in hot water." for n in range(3 * AT_ONCE)]


def test_langchain_retrieves_passages_with_their_metadata(client: Client) -> None:
    retriever = langchain.QrelayRetriever(client=client, k=3)
    found = retriever.invoke(TIDES)
    assert (len(found), found[0].id, found[0].page_content) == (3, "moon#0", DOCUMENTS["moon"])
    assert found[0].metadata.items() >= {
        "doc_id": "moon", "title": "Moon", "source": "moon.txt", "bm25_rank": 1, "dense_rank": 1
    }.items()  # fmt: skip
    assert asyncio.run(retriever.ainvoke(TIDES)) == found
    assert [each[0].id for each in retriever.batch([TIDES, "how is bread made?"])] == ["moon#0", "bread#0"]


def test_langchain_chains_retriever_and_compressor(client: Client) -> None:
    compressor = langchain.QrelayCompressor(client=client, top_n=2)
    retriever = langchain.QrelayRetriever(client=client)
    chain = retriever | RunnableLambda(lambda found: compressor.compress_documents(found, TIDES))
    best = chain.invoke(TIDES)
    assert (len(best), best[0].id, best[0].metadata["source"]) == (2, "moon#0", "moon.txt")
    assert best[0].metadata["relevance_score"] > best[1].metadata["relevance_score"]


def test_langchain_compresses_documents_of_others_and_leaves_those_given_as_they_are(client: Client) -> None:
    given = [Document(text, metadata={"n": n}) for n, text in enumerate([*MANY, DOCUMENTS["moon"], ""])]
    compressor = langchain.QrelayCompressor(client=client, top_n=1000)
    found = asyncio.run(compressor.acompress_documents(given, TIDES))
    assert sorted(each.metadata["n"] for each in found) == [*range(len(given))], (
        "each document once, whatever the set"
    )
    assert (found[0].page_content, found[-1].page_content) == (DOCUMENTS["moon"], "")
    assert found[-1].metadata["relevance_score"] is None
    assert all("relevance_score" not in each.metadata for each in given)
    assert compressor.compress_documents([], TIDES) == []


def test_llamaindex_asks_through_its_own_query_engine(client: Client) -> None:
    Settings.llm = MockLLM()  # which nobody asks, but each engine wants one
    engine = RetrieverQueryEngine(
        llamaindex.QrelayRetriever(client),
        get_response_synthesizer(response_mode=ResponseMode.CONTEXT_ONLY),
        node_postprocessors=[llamaindex.QrelayRerank(client=client, top_n=2)],
    )
    for answer in (engine.query(TIDES), asyncio.run(engine.aquery(TIDES))):
        best = answer.source_nodes[0]
        assert (len(answer.source_nodes), best.node.node_id, best.node.metadata["source"]) == (
            2,
            "moon#0",
            "moon.txt",
        )
        assert best.score is not None and best.score > (answer.source_nodes[1].score or 0.0)


def test_llamaindex_shows_models_the_documents_metadata_and_no_ranks(client: Client) -> None:
    (found,) = llamaindex.QrelayRetriever(client, similarity_top_k=1).retrieve(TIDES)
    assert (found.score, found.node.metadata["dense_rank"]) == (1.0, 1)
    shown = found.node.get_content(MetadataMode.LLM)
    assert "moon.txt" in shown and "dense" not in shown


def test_llamaindex_ranks_nodes_of_others_and_needs_a_query_for_it(client: Client) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in (MANY[0], DOCUMENTS["moon"])]
    rerank = llamaindex.QrelayRerank(client=client)
    found = rerank.postprocess_nodes(nodes, query_str=TIDES)
    assert [each.node.get_content() for each in found] == [DOCUMENTS["moon"], MANY[0]]
    assert [each.score for each in nodes] == [0.5, 0.5]
    with pytest.raises(InvalidQuery, match="query_bundle or query_str"):
        rerank.postprocess_nodes(nodes)


def pipeline(client: Client | dict[str, Any]) -> Pipeline:
    made = Pipeline()
    made.add_component("retriever", haystack.QrelayRetriever(client, collection="facts"))
    made.add_component("ranker", haystack.QrelayRanker(client, collection="facts", top_k=2))
    made.connect("retriever.documents", "ranker.documents")
    return made


def test_haystack_runs_both_in_a_pipeline(client: Client) -> None:
    asked = {"retriever": {"query": TIDES, "top_k": 3}, "ranker": {"query": TIDES}}
    documents = pipeline(client).run(asked)["ranker"]["documents"]
    assert (len(documents), documents[0].id, documents[0].meta["source"]) == (2, "moon#0", "moon.txt")
    assert documents[0].score > documents[1].score


def test_haystack_loads_a_pipeline_that_was_written_to_yaml(client: Client) -> None:
    written = pipeline({"data_dir": str(client.data_dir), "timeout_s": 10 * LONG_S}).dumps()
    loaded = Pipeline.loads(written, allowed_modules=["qrelay.integrations.haystack"])
    found = loaded.run({"retriever": {"query": TIDES}, "ranker": {"query": TIDES, "top_k": 1}})
    assert [each.id for each in found["ranker"]["documents"]] == ["moon#0"]
    with pytest.raises(SerializationError, match="Client"):
        pipeline(client).dumps()


def test_haystack_ranks_documents_of_others(client: Client) -> None:
    given = [HaystackDocument(content=text) for text in (MANY[0], DOCUMENTS["moon"])]
    found = haystack.QrelayRanker(client).run(TIDES, given)["documents"]
    assert [each.content for each in found] == [DOCUMENTS["moon"], MANY[0]]
    assert all(each.score is None for each in given)


def test_errors_of_the_services_pass_through_as_they_are(client: Client) -> None:
    with pytest.raises(UnknownCollection):
        langchain.QrelayRetriever(client=client, collection="nowhere").invoke(TIDES)
    with pytest.raises(InvalidQuery):
        langchain.QrelayCompressor(client=client).compress_documents([Document("text")], " ")
