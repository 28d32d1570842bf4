"""The reranker's two endpoints on one core: the queue's stage and the gRPC servicer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

from qrelay import wire
from qrelay.errors import QrelayError
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.following import every
from qrelay.runtime.gathering import Calls
from qrelay.runtime.servicer import Servicer, answer_items, streamed
from qrelay.runtime.stage import ServiceDef, Work
from qrelay.runtime.topology import Queue
from qrelay.services.reranker.reranker import STAGE, Reranker, load_reranker
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.types import BI_ENCODER, CandidateSet
from qrelay.v1 import reranker_pb2 as pb
from qrelay.v1 import reranker_pb2_grpc as pb_grpc

Context = ServiceContext[RerankerSettings, Reranker]


def cost(record: CandidateSet) -> int:
    """Candidates to score."""
    return len(record.candidates)


class RerankStage:
    """retrieved -> reranked."""

    name = STAGE
    source = Queue.RETRIEVED
    target = Queue.RERANKED
    read = staticmethod(wire.from_proto)

    def __init__(self, core: Reranker) -> None:
        self._core = core

    def cost(self, record: CandidateSet) -> int:
        """Candidates to score."""
        return cost(record)

    async def handle(self, works: Sequence[Work]) -> Sequence[CandidateSet | QrelayError]:
        """Score one batch off the event loop."""
        return await asyncio.to_thread(self._core.rerank, [work.record for work in works])


class RerankerServicer(Servicer, pb_grpc.RerankerServiceServicer):
    """The gRPC servicer."""

    info_response = pb.RerankerServiceGetInfoResponse

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._calls = Calls(context.service, context.settings.worker, self._rerank, cost)

    async def Rerank(self, request: pb.RerankRequest, context: Any) -> pb.RerankResponse:
        """Each set scored, in order."""
        results = await answer_items(
            self._context,
            request.candidate_sets,
            lambda sets: self._calls.answer(sets, request.max_candidates),
            lambda each: pb.RerankResult(candidate_set=wire.to_proto(each)),
            lambda error: pb.RerankResult(error=error),
        )
        return pb.RerankResponse(results=results)

    def _rerank(self, sets: list[CandidateSet], keep: int) -> Awaitable[Sequence[CandidateSet | QrelayError]]:
        return asyncio.to_thread(self._context.core.rerank, sets, keep)

    def StreamRerank(
        self, requests: AsyncIterator[pb.StreamRerankRequest], context: Any
    ) -> AsyncIterator[pb.StreamRerankResponse]:
        """Rerank, request after request."""
        return streamed(requests, self.Rerank, pb.StreamRerankResponse, context)


async def follow_registry(context: Context, stopping: asyncio.Event) -> None:
    """Takes up each promoted version until `stopping`."""
    settings = context.settings
    await every(settings.registry_poll_s if settings.follows_registry else 0, context.core.look, stopping)


def needed_models(settings: RerankerSettings) -> list[str]:
    """The configured cross-encoder, and the cascade's small one, where there are any."""
    wanted = settings.cross_encoder if settings.scorer in ("auto", "cross_encoder") else ""
    first = settings.cascade.first
    return [each for each in (wanted, first if first != BI_ENCODER else "") if each]


def prepare_models(settings: RerankerSettings) -> None:
    """Make the 8-bit copies of those that run in OpenVINO, where they are absent. Raises ModelError."""
    if needed_models(settings) and "openvino" in (settings.engine, settings.cascade.engine):
        load_reranker(settings)


SERVICE: ServiceDef[RerankerSettings, Reranker] = ServiceDef(
    name="reranker",
    grpc_name="qrelay.v1.RerankerService",
    settings=RerankerSettings,
    load=load_reranker,
    stages=lambda context: [RerankStage(context.core)],
    add_servicer=lambda server, context: pb_grpc.add_RerankerServiceServicer_to_server(
        RerankerServicer(context), server
    ),
    info=lambda core: core.info(),
    background=follow_registry,
    models=needed_models,
    prepare=prepare_models,
)
