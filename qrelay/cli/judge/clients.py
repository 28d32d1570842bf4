"""Clients of the other services, as the judge's commands call them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qrelay import wire
from qrelay.errors import InputError, QrelayError
from qrelay.rundir import require
from qrelay.runtime.client import channel
from qrelay.types import CandidateSet, JudgedSet, Query
from qrelay.v1 import reranker_pb2, reranker_pb2_grpc, retriever_pb2, retriever_pb2_grpc, sink_pb2, sink_pb2_grpc
from qrelay.v1.service_info_pb2 import ItemError

_CALL_S = 120.0


def candidate_sets(data_dir: Path, queries: Sequence[Query]) -> list[CandidateSet]:
    """The queries through the running retriever and reranker, with the judge's sample marked.

    Raises:
        BackendUnavailable: one of them does not run, or does not answer.
        InputError: a query that they refuse.
    """
    retriever, reranker = require(data_dir, "retriever").grpc, require(data_dir, "reranker").grpc
    with channel(retriever) as opened:
        request = retriever_pb2.RetrieveRequest(queries=[wire.to_proto(query) for query in queries])
        answer = retriever_pb2_grpc.RetrieverServiceStub(opened).Retrieve(request, timeout=_CALL_S)
        retrieved = [_taken(each).candidate_set for each in answer.results]
    with channel(reranker) as opened:
        ranking = reranker_pb2.RerankRequest(candidate_sets=retrieved)
        ranked = reranker_pb2_grpc.RerankerServiceStub(opened).Rerank(ranking, timeout=_CALL_S)
        return [wire.from_proto(_taken(each).candidate_set) for each in ranked.results]


def judged_sets(address: str, collection: str, where: str, after: str) -> Iterator[JudgedSet]:
    """The ledger's sets that `where` selects, by query_id, above `after`. Raises what the sink answers."""
    request = sink_pb2.ListJudgedSetsRequest(collection=collection, where=where, after_query_id=after)
    with channel(address) as opened:
        for response in sink_pb2_grpc.SinkServiceStub(opened).ListJudgedSets(request):
            yield wire.from_proto(response.judged_set)


def judged_pairs(
    address: str, collection: str, pairs: Iterable[tuple[str, str]], where: str, after: str
) -> Iterator[JudgedSet]:
    """The ledger's sets of these (query_id, passage_id), with only those passages to be judged, by query_id, above
    `after`; pairs that `where` does not select are left out. Raises what the sink answers."""
    wanted: dict[str, set[str]] = {}
    for query_id, passage_id in pairs:
        wanted.setdefault(query_id, set()).add(passage_id)
    for query_id in sorted(each for each in wanted if each > after):
        term = " and ".join(filter(None, [where, f"query_id={query_id}"]))
        for found in judged_sets(address, collection, term, ""):
            yield _narrowed(found, wanted[query_id])


def _narrowed(found: JudgedSet, passage_ids: Collection[str]) -> JudgedSet:
    candidates = tuple(
        replace(each, sampled=each.sampled and each.passage.passage_id in passage_ids)
        for each in found.candidate_set.candidates
    )
    return replace(found, candidate_set=replace(found.candidate_set, candidates=candidates))


class Ledger:
    """The sink's client for re-judgments."""

    def __init__(self, address: str) -> None:
        """address: host:port."""
        self._address = address

    async def send(self, judged: Sequence[JudgedSet]) -> list[int | QrelayError]:
        """Add the labels; how many of each set were new, or the set's error. Raises BackendUnavailable."""
        return await asyncio.to_thread(self._send, judged)

    def _send(self, judged: Sequence[JudgedSet]) -> list[int | QrelayError]:
        request = sink_pb2.IngestRequest(judged_sets=[wire.to_proto(each) for each in judged], rejudgment=True)
        with channel(self._address) as opened:
            answer = sink_pb2_grpc.SinkServiceStub(opened).Ingest(request, timeout=_CALL_S)
        return [
            _refused(each.error) if each.WhichOneof("result") == "error" else each.judgments_added
            for each in answer.results
        ]


def _refused(error: ItemError) -> InputError:
    return InputError(f"{error.query_id}: {error.message}")


def _taken(result: Any) -> Any:
    """The result itself. Raises InputError where it is an item's error."""
    if result.WhichOneof("result") == "error":
        raise _refused(result.error)
    return result
