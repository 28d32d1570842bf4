"""The calls that carry many items: what they are called on the wire, and what their items and answers are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message

from qrelay import wire
from qrelay.runtime.translate import error_of_item
from qrelay.types import CandidateSet, JudgedSet
from qrelay.v1 import judge_pb2, reranker_pb2, retriever_pb2, sink_pb2

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Method(Generic[Answer]):
    """One streamed call. items: in one request at most; begin: in flight before anything is known of the service's
    speed. request: of messages; read: what a result that is no error says."""

    service: str
    name: str
    items: int
    begin: int
    request: Callable[[Sequence[Any]], Message]
    read: Callable[[Any], Answer]

    def answer(self, result: Any) -> Any:
        """What a result says, or its error. Raises MalformedInput: no record can hold it."""
        return error_of_item(result.error) if result.WhichOneof("result") == "error" else self.read(result)


def retrieve(max_candidates: int = 0) -> Method[CandidateSet]:
    """max_candidates: a query; 0: as many as the service is set to."""
    return Method(
        "retriever", "StreamRetrieve", 16, 16,
        lambda queries: retriever_pb2.StreamRetrieveRequest(
            request=retriever_pb2.RetrieveRequest(queries=queries, max_candidates=max_candidates)
        ),
        _candidate_set,
    )  # fmt: skip


def ingest(rejudgment: bool) -> Method[int]:
    """rejudgment: as the next generation of sets that the ledger holds."""
    return Method(
        "sink", "StreamIngest", 16, 16,
        lambda sets: sink_pb2.StreamIngestRequest(
            request=sink_pb2.IngestRequest(judged_sets=sets, rejudgment=rejudgment)
        ),
        _added if rejudgment else _committed,
    )  # fmt: skip


def _candidate_set(result: Any) -> CandidateSet:
    found: CandidateSet = wire.from_proto(result.candidate_set)
    return found


def _judged_set(result: Any) -> JudgedSet:
    found: JudgedSet = wire.from_proto(result.judged_set)
    return found


def _committed(result: Any) -> int:
    return int(result.status == sink_pb2.INGEST_STATUS_COMMITTED)


def _added(result: Any) -> int:
    return int(result.judgments_added)


RERANK: Final = Method(
    "reranker", "StreamRerank", 8, 4,
    lambda sets: reranker_pb2.StreamRerankRequest(request=reranker_pb2.RerankRequest(candidate_sets=sets)),
    _candidate_set,
)  # fmt: skip
JUDGE: Final = Method(
    "judge", "StreamJudge", 4, 1,
    lambda sets: judge_pb2.StreamJudgeRequest(request=judge_pb2.JudgeRequest(candidate_sets=sets)),
    _judged_set,
)  # fmt: skip
