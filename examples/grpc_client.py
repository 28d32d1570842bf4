"""Queries through all four services over gRPC, and their labels read back.

    qrelay up --detach
    python examples/grpc_client.py COLLECTION "What causes glaucoma?" "another query"

Each call takes many items and answers each with a result or an error of its own. Where queries come as a stream, feed
the queue instead (`qrelay feed`): it retries, and nothing that it accepted is lost.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import grpc

from qrelay.rundir import require
from qrelay.v1 import judge_pb2_grpc, reranker_pb2_grpc, retriever_pb2_grpc, sink_pb2_grpc
from qrelay.v1.judge_pb2 import JudgeRequest
from qrelay.v1.records_pb2 import Query
from qrelay.v1.reranker_pb2 import RerankRequest
from qrelay.v1.retriever_pb2 import RetrieveRequest
from qrelay.v1.sink_pb2 import IngestRequest, ListJudgedSetsRequest

DATA_DIR = Path(os.environ.get("QRELAY_DATA_DIR", ".qrelay"))


def main(collection: str, *texts: str) -> None:
    """Retrieve, rerank, judge and commit each query; then print its labels from the ledger."""
    retriever = retriever_pb2_grpc.RetrieverServiceStub(channel("retriever"))
    reranker = reranker_pb2_grpc.RerankerServiceStub(channel("reranker"))
    judge = judge_pb2_grpc.JudgeServiceStub(channel("judge"))
    sink = sink_pb2_grpc.SinkServiceStub(channel("sink"))

    # The id is a hash of the text: labelling a query again adds nothing.
    ids = {text: hashlib.sha256(text.encode()).hexdigest()[:12] for text in texts}
    queries = [Query(query_id=ids[text], text=text, collection=collection) for text in texts]
    found = good(retriever.Retrieve(RetrieveRequest(queries=queries)))
    ranked = good(reranker.Rerank(RerankRequest(candidate_sets=[each.candidate_set for each in found])))
    judged = good(judge.Judge(JudgeRequest(candidate_sets=[each.candidate_set for each in ranked])))
    good(sink.Ingest(IngestRequest(judged_sets=[each.judged_set for each in judged])))

    for text, query_id in ids.items():
        for answer in sink.ListJudgedSets(ListJudgedSetsRequest(collection=collection, where=f"query_id={query_id}")):
            for judgment in answer.judged_set.judgments:
                label = (
                    judgment.graded.grade if judgment.HasField("graded") else f"missing: {judgment.missing.reason}"
                )
                print(text, judgment.passage_id, label, sep="\t")


def channel(service: str) -> grpc.Channel:
    """A channel to the service that `qrelay up` runs on the data folder."""
    return grpc.insecure_channel(require(DATA_DIR, service).grpc)


def good(answer: Any) -> list[Any]:
    """The results of a call. Ends the program at the first error among them."""
    for result in answer.results:
        if result.WhichOneof("result") == "error":
            sys.exit(f"{result.error.query_id}: {result.error.message}")
    return list(answer.results)


if __name__ == "__main__":
    main(*sys.argv[1:])
