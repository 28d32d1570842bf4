"""The running retriever's client, as the round trip asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from qrelay import wire
from qrelay.errors import InputError
from qrelay.runtime.client import channel
from qrelay.types import CandidateSet, Query
from qrelay.v1 import retriever_pb2, retriever_pb2_grpc

_CALL_S = 120.0


class RetrieverRoundTrip:
    """See `generate.RoundTrip`. index_versions: those that answered, in order of appearance."""

    def __init__(self, address: str, collection: str, depth: int) -> None:
        """address: host:port. depth: how many passages are looked through for the source, best first."""
        self._address, self._collection, self._depth = address, collection, depth
        self.index_versions: dict[str, None] = {}

    async def check(self) -> None:
        """Ask something, before a model is loaded for nothing. Raises as `ranks`."""
        await self.ranks(["is the collection served?"], [""])

    async def ranks(self, questions: Sequence[str], doc_ids: Sequence[str]) -> list[int]:
        """As the protocol says. Raises BackendUnavailable, BackendTimeout, or InputError (an unknown collection)."""
        found = await asyncio.to_thread(self._retrieve, questions)
        self.index_versions |= dict.fromkeys(each.index_version for each in found)
        return [_rank(each, doc_id) for each, doc_id in zip(found, doc_ids, strict=True)]

    def _retrieve(self, questions: Sequence[str]) -> list[CandidateSet]:
        queries = [wire.to_proto(Query(f"q{n}", text, self._collection)) for n, text in enumerate(questions)]
        request = retriever_pb2.RetrieveRequest(queries=queries, max_candidates=self._depth)
        with channel(self._address) as opened:
            answer = retriever_pb2_grpc.RetrieverServiceStub(opened).Retrieve(request, timeout=_CALL_S)
        for each in answer.results:
            if each.WhichOneof("result") == "error":
                raise InputError(f"the retriever refused a question: {each.error.message}")
        return [wire.from_proto(each.candidate_set) for each in answer.results]


def _rank(found: CandidateSet, doc_id: str) -> int:
    places = (n for n, candidate in enumerate(found.candidates, 1) if candidate.passage.doc_id == doc_id)
    return next(places, 0)
