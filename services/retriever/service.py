"""The retriever's two endpoints on one core: the queue's stage and the gRPC servicer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

from qrelay import wire
from qrelay.errors import QrelayError
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import HASH_NAME, TextKind, load_embedder
from qrelay.models.engines import ENDPOINT_NAME
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.following import every
from qrelay.runtime.gathering import Calls
from qrelay.runtime.servicer import Servicer, answer_items, streamed
from qrelay.runtime.stage import ServiceDef, Work
from qrelay.runtime.topology import Queue
from qrelay.services.retriever.retriever import STAGE, Retriever, check_retriever, load_retriever
from qrelay.types import CandidateSet, Query
from qrelay.v1 import retriever_pb2 as pb
from qrelay.v1 import retriever_pb2_grpc as pb_grpc

Context = ServiceContext[RetrieverSettings, Retriever]


def cost(record: Query) -> int:
    """Characters to embed."""
    return len(record.text)


class RetrieveStage:
    """queries -> retrieved."""

    name = STAGE
    source = Queue.QUERIES
    target = Queue.RETRIEVED
    read = staticmethod(wire.from_proto)

    def __init__(self, core: Retriever) -> None:
        self._core = core

    def cost(self, record: Query) -> int:
        """Characters to embed."""
        return cost(record)

    async def handle(self, works: Sequence[Work]) -> Sequence[CandidateSet | QrelayError]:
        """Search one batch off the event loop."""
        return await asyncio.to_thread(self._core.retrieve, [work.record for work in works])


class RetrieverServicer(Servicer, pb_grpc.RetrieverServiceServicer):
    """The gRPC servicer."""

    info_response = pb.RetrieverServiceGetInfoResponse

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        settings = context.settings
        elsewhere = settings.engine not in ("embedded", "synthetic") or settings.embedder == ENDPOINT_NAME
        self._calls = Calls(context.service, settings.worker, self._retrieve, cost, queues=elsewhere)

    async def Retrieve(self, request: pb.RetrieveRequest, context: Any) -> pb.RetrieveResponse:
        """Candidates for each query, in order."""
        results = await answer_items(
            self._context,
            request.queries,
            lambda queries: self._calls.answer(queries, request.max_candidates),
            lambda found: pb.RetrieveResult(candidate_set=wire.to_proto(found)),
            lambda error: pb.RetrieveResult(error=error),
        )
        return pb.RetrieveResponse(results=results)

    def _retrieve(self, queries: list[Query], limit: int) -> Awaitable[Sequence[CandidateSet | QrelayError]]:
        return asyncio.to_thread(self._context.core.retrieve, queries, limit)

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        """Vectors of the texts, in order."""
        kind: TextKind = "document" if request.kind == pb.TEXT_KIND_DOCUMENT else "query"
        with self._context.admission.hold(len(request.texts)):
            model, vectors = await asyncio.to_thread(
                self._context.core.embed, list(request.texts), kind, request.collection
            )
        return pb.EmbedResponse(embeddings=[pb.Embedding(values=vector) for vector in vectors.tolist()], model=model)

    def StreamRetrieve(
        self, requests: AsyncIterator[pb.StreamRetrieveRequest], context: Any
    ) -> AsyncIterator[pb.StreamRetrieveResponse]:
        """Retrieve, request after request."""
        return streamed(requests, self.Retrieve, pb.StreamRetrieveResponse, context)


async def follow_registry(context: Context, stopping: asyncio.Event) -> None:
    """Takes up promoted versions and new indexes until `stopping`."""
    await every(context.settings.registry_poll_s, context.core.look, stopping)


def needed_models(settings: RetrieverSettings) -> list[str]:
    """The embedder, where this engine has one."""
    named = settings.embeds and settings.embedder not in (HASH_NAME, ENDPOINT_NAME)
    return [settings.embedder] if named else []


def prepare_models(settings: RetrieverSettings) -> None:
    """Make the embedder's 8-bit copy, where it runs in OpenVINO and the copy is absent. Raises ModelError."""
    if needed_models(settings) and settings.embedder_engine == "openvino":
        load_embedder(settings.embedder, engine="openvino")


SERVICE: ServiceDef[RetrieverSettings, Retriever] = ServiceDef(
    name="retriever",
    grpc_name="qrelay.v1.RetrieverService",
    settings=RetrieverSettings,
    load=load_retriever,
    check=check_retriever,
    stages=lambda context: [RetrieveStage(context.core)],
    add_servicer=lambda server, context: pb_grpc.add_RetrieverServiceServicer_to_server(
        RetrieverServicer(context), server
    ),
    info=lambda core: core.info(),
    close=lambda core: core.close(),
    background=follow_registry,
    models=needed_models,
    prepare=prepare_models,
)
