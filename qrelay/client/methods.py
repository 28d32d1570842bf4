"""The calls that carry many items: what they are called on the wire, and what their items and answers are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    speed. kind: the type of its requests, and in them the field of the items, and others; read: what a result that is
    no error says."""

    service: str
    name: str
    items: int
    begin: int
    kind: type[Message]
    items_field: str
    read: Callable[[Any], Answer]
    options: Mapping[str, Any] = field(default_factory=dict)

    def request(self, messages: Sequence[Message]) -> Any:
        """The stream's request of these items, each copied once."""
        asked: Any = self.kind()
        for name, value in self.options.items():
            setattr(asked.request, name, value)
        getattr(asked.request, self.items_field).extend(messages)
        return asked

    def answer(self, result: Any) -> Any:
        """What a result says, or its error. Raises MalformedInput: no record can hold it."""
        return error_of_item(result.error) if result.WhichOneof("result") == "error" else self.read(result)


def retrieve(max_candidates: int = 0) -> Method[CandidateSet]:
    """max_candidates: a query; 0: as many as the service is set to."""
    kind, options = retriever_pb2.StreamRetrieveRequest, {"max_candidates": max_candidates}
    return Method("retriever", "StreamRetrieve", 16, 16, kind, "queries", _candidate_set, options)


def rerank(max_candidates: int = 0) -> Method[CandidateSet]:
    """max_candidates: a set; 0: as many as the service is set to."""
    kind, options = reranker_pb2.StreamRerankRequest, {"max_candidates": max_candidates}
    return Method("reranker", "StreamRerank", 8, 4, kind, "candidate_sets", _candidate_set, options)


def ingest(rejudgment: bool) -> Method[int]:
    """rejudgment: as the next generation of sets that the ledger holds."""
    read, options = _added if rejudgment else _committed, {"rejudgment": rejudgment}
    return Method("sink", "StreamIngest", 16, 16, sink_pb2.StreamIngestRequest, "judged_sets", read, options)


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


JUDGE: Final = Method("judge", "StreamJudge", 4, 1, judge_pb2.StreamJudgeRequest, "candidate_sets", _judged_set)
