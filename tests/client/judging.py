"""A judge's gRPC service with the real server around it, whose answers a test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from qrelay import wire
from qrelay.config import AccessSettings
from qrelay.errors import QrelayError
from qrelay.runtime.server import answer_stream
from qrelay.runtime.translate import item_error
from qrelay.types import CandidateSet, Graded, JudgedSet, Judgment
from qrelay.v1 import judge_pb2 as pb
from qrelay.v1 import judge_pb2_grpc
from qrelay.v1.service_info_pb2 import SERVICE_STATE_PREPARING, SERVICE_STATE_READY, ServiceInfo
from tests.samples import JUDGE
from tests.serving import serving


def judged(record: CandidateSet) -> JudgedSet:
    """A grade for every candidate."""
    outcome = Graded(2, 0, (0.1, 0.1, 0.7, 0.1), 1.8, 0.94, 0.8)
    when = datetime(2026, 1, 1, tzinfo=UTC)
    return JudgedSet(
        record, tuple(Judgment(each.passage.passage_id, "k", outcome, JUDGE, when) for each in record.candidates)
    )


@dataclass
class Judging(judge_pb2_grpc.JudgeServiceServicer):
    """Judges what it is given. asked: the query ids of every request, in the order in which they came; fail: raises
    the error of a request, or not; item: an item's error, or None; held: requests wait while it is set; streams,
    ended: how many began and ended."""

    fail: Callable[[Sequence[str]], None] = lambda _: None
    item: Callable[[str], QrelayError | None] = lambda _: None
    preparing: int = 0
    asked: list[tuple[str, ...]] = field(default_factory=list)
    streams: int = 0
    held: bool = False
    ended: int = 0

    async def Judge(self, request: pb.JudgeRequest, context: Any) -> pb.JudgeResponse:
        ids = tuple(each.query.query_id for each in request.candidate_sets)
        self.asked.append(ids)
        while self.held:
            await asyncio.sleep(0.01)
        self.fail(ids)
        return pb.JudgeResponse(results=[self._result(wire.from_proto(each)) for each in request.candidate_sets])

    def _result(self, record: CandidateSet) -> pb.JudgeResult:
        if error := self.item(record.query.query_id):
            return pb.JudgeResult(error=item_error(error, record.query.query_id))
        return pb.JudgeResult(judged_set=wire.to_proto(judged(record)))

    async def StreamJudge(
        self, requests: AsyncIterator[pb.StreamJudgeRequest], context: Any
    ) -> AsyncIterator[pb.StreamJudgeResponse]:
        async def answer(request: pb.StreamJudgeRequest) -> pb.StreamJudgeResponse:
            return pb.StreamJudgeResponse(response=await self.Judge(request.request, context))

        self.streams += 1
        try:
            async for response in answer_stream(requests, answer):
                yield response
        finally:  # cancelled, closed in the midst of a write, or told first that there is nothing more to read
            self.ended += 1

    async def GetInfo(self, request: Any, context: Any) -> pb.JudgeServiceGetInfoResponse:
        self.preparing -= 1
        state = SERVICE_STATE_PREPARING if self.preparing >= 0 else SERVICE_STATE_READY
        return pb.JudgeServiceGetInfoResponse(info=ServiceInfo(service="judge", state=state))

    @property
    def items(self) -> list[str]:
        """Every query id that was asked for, again where it was asked for again."""
        return [query_id for ids in self.asked for query_id in ids]


@contextmanager
def judge(servicer: Judging, access: AccessSettings | None = None) -> Iterator[str]:
    """The address at which it answers."""

    def add(server: Any) -> None:
        judge_pb2_grpc.add_JudgeServiceServicer_to_server(servicer, server)

    with serving("qrelay.v1.JudgeService", add, access=access) as address:
        yield address
