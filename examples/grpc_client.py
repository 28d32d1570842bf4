"""Queries through all four services over gRPC, and their labels read back.

    qrelay up --detach
    python examples/grpc_client.py COLLECTION "What causes glaucoma?" ["another query" …] [--data-dir .qrelay]

Each call takes many items and answers each with a result or an error of its own. Where queries come as a stream, feed
the queue instead (`qrelay feed`): it retries, and nothing that it accepted is lost.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc

from qrelay.rundir import require
from qrelay.v1 import (
    judge_pb2,
    judge_pb2_grpc,
    records_pb2,
    reranker_pb2,
    reranker_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    sink_pb2,
    sink_pb2_grpc,
)

TIMEOUT_S = 600.0


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection")
    parser.add_argument("queries", nargs="+")
    parser.add_argument("--data-dir", type=Path, default=Path(".qrelay"))
    given = parser.parse_args()
    label(given.collection, given.queries, given.data_dir)
    for line in labels(given.collection, given.queries, given.data_dir):
        print(line)


def query_id(text: str) -> str:
    """The same text gets the same id, so labelling it again adds nothing."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def label(collection: str, texts: list[str], data_dir: Path) -> None:
    """Retrieve, rerank, judge, commit."""
    queries = [records_pb2.Query(query_id=query_id(text), text=text, collection=collection) for text in texts]
    with channel(data_dir, "retriever") as opened:
        request = retriever_pb2.RetrieveRequest(queries=queries)
        answer = retriever_pb2_grpc.RetrieverServiceStub(opened).Retrieve(request, timeout=TIMEOUT_S)
    with channel(data_dir, "reranker") as opened:
        request = reranker_pb2.RerankRequest(candidate_sets=[each.candidate_set for each in good(answer.results)])
        answer = reranker_pb2_grpc.RerankerServiceStub(opened).Rerank(request, timeout=TIMEOUT_S)
    with channel(data_dir, "judge") as opened:
        request = judge_pb2.JudgeRequest(candidate_sets=[each.candidate_set for each in good(answer.results)])
        answer = judge_pb2_grpc.JudgeServiceStub(opened).Judge(request, timeout=TIMEOUT_S)
    with channel(data_dir, "sink") as opened:
        request = sink_pb2.IngestRequest(judged_sets=[each.judged_set for each in good(answer.results)])
        answer = sink_pb2_grpc.SinkServiceStub(opened).Ingest(request, timeout=TIMEOUT_S)
    good(answer.results)


def labels(collection: str, texts: list[str], data_dir: Path) -> Iterable[str]:
    """One line a judgment: query, passage, grade and P(relevant), or why there is none."""
    with channel(data_dir, "sink") as opened:
        sink = sink_pb2_grpc.SinkServiceStub(opened)
        for text in texts:
            request = sink_pb2.ListJudgedSetsRequest(collection=collection, where=f"query_id={query_id(text)}")
            for answer in sink.ListJudgedSets(request, timeout=TIMEOUT_S):
                for judgment in answer.judged_set.judgments:
                    graded = judgment.WhichOneof("outcome") == "graded"
                    outcome = (
                        f"grade {judgment.graded.grade}, P(relevant) {judgment.graded.p_relevant:.2f}"
                        if graded
                        else f"missing: {judgment.missing.reason}"
                    )
                    yield f"{text}\t{judgment.passage_id}\t{outcome}"


def channel(data_dir: Path, service: str) -> grpc.Channel:
    """A channel to the service that `qrelay up` runs on this data folder."""
    return grpc.insecure_channel(require(data_dir, service).grpc)


def good(results: Iterable[Any]) -> list[Any]:
    """The results. Ends the program at the first error."""
    found = list(results)
    for each in found:
        if each.WhichOneof("result") == "error":
            raise SystemExit(f"{each.error.query_id}: {each.error.message}")
    return found


if __name__ == "__main__":
    main()
