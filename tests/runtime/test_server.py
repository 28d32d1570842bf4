"""The gRPC frame, through a real channel, around the real reranker with its shipped double."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from qrelay import wire
from qrelay.config import GrpcSettings, NatsSettings
from qrelay.errors import BackendUnavailable, PortInUse
from qrelay.rundir import Endpoint, endpoints
from qrelay.runtime.client import from_rpc_error
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.natsserver import NatsServer
from qrelay.runtime.server import LIVENESS, GrpcServer
from qrelay.services.reranker.reranker import Reranker
from qrelay.services.reranker.scorers import FakeScorer
from qrelay.services.reranker.service import SERVICE
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.v1 import reranker_pb2, reranker_pb2_grpc
from tests import samples
from tests.conftest import LONG_S, eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HeldScorer(FakeScorer):
    """Scores when it may, so that calls overlap for certain."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.may = threading.Event(), threading.Event()

    def score(self, sets: Sequence[Any]) -> list[list[float]]:
        self.began.set()
        self.may.wait(LONG_S)
        return super().score(sets)


@asynccontextmanager
async def serving(
    scorer: Any = None, **grpc_settings: Any
) -> AsyncIterator[tuple[GrpcServer, grpc.aio.Channel, Any]]:
    settings = RerankerSettings(scorer="fake", grpc=GrpcSettings(**grpc_settings))
    context: ServiceContext[Any, Any] = ServiceContext("reranker", settings, "r1")
    server = GrpcServer(settings.grpc, SERVICE.grpc_name)
    SERVICE.add_servicer(server.raw, context)
    address = await server.start()
    if scorer is not False:
        context.core = Reranker(scorer or FakeScorer(), settings)
        await server.ready(True)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield server, channel, context
    finally:
        await server.drain(1)


def request(count: int = 1, candidates: int = 3) -> reranker_pb2.RerankRequest:
    return reranker_pb2.RerankRequest(
        candidate_sets=[wire.to_proto(samples.candidate_set(i, candidates)) for i in range(count)]
    )


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    answer = await health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service=service), timeout=LONG_S
    )
    return int(answer.status)


async def failure(call: Any) -> tuple[grpc.StatusCode, str, dict[str, Any]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)
    details = {}
    for packed in status.details if status else ():
        for kind in (error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()):
            if packed.Unpack(kind):
                details[type(kind).__name__] = kind
    return caught.value.code(), caught.value.details() or "", details


async def test_alive_before_the_model_is_loaded_but_not_ready() -> None:
    async with serving(scorer=False) as (_, channel, _context):
        assert await health(channel, LIVENESS) == SERVING
        assert await health(channel) == NOT_SERVING
        assert await health(channel, SERVICE.grpc_name) == NOT_SERVING
        stub = reranker_pb2_grpc.RerankerServiceStub(channel)
        code, text, details = await failure(stub.Rerank(request(), timeout=LONG_S))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "still loading" in text
        assert details["RetryInfo"].retry_delay.seconds == 2


async def test_ready_answers_in_order_and_one_bad_item_does_not_fail_its_neighbours() -> None:
    async with serving() as (_, channel, _context):
        assert await health(channel) == SERVING
        asked = request(3)
        asked.candidate_sets[1].query.text = " "
        answer = await reranker_pb2_grpc.RerankerServiceStub(channel).Rerank(asked, timeout=LONG_S)
        kinds = [result.WhichOneof("result") for result in answer.results]
        assert kinds == ["candidate_set", "error", "candidate_set"]
        assert answer.results[2].candidate_set.query.query_id == "q2"
        error = answer.results[1].error
        assert (error.query_id, error.reason, error.retryable) == ("q1", "invalid_query", False)


async def test_too_much_at_once_is_resource_exhausted_with_details() -> None:
    scorer = HeldScorer()
    async with serving(scorer, max_pending_items=4) as (_, channel, _context):
        stub = reranker_pb2_grpc.RerankerServiceStub(channel)
        running = stub.Rerank(request(3), timeout=LONG_S)
        await eventually(scorer.began.is_set)
        code, text, details = await failure(stub.Rerank(request(2), timeout=LONG_S))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "grpc.max_pending_items is 4" in text
        assert details["ErrorInfo"].reason == "OVERLOADED"
        assert details["RetryInfo"].retry_delay.seconds >= 1
        scorer.may.set()
        assert len((await running).results) == 3


async def test_calls_are_answered_by_a_server_that_stood_still_while_they_waited_for_it() -> None:
    """Left to itself gRPC drops a call that was not taken up within 30 s, and of more than 1,000 at once some, as
    CANCELLED: no client cancelled anything."""
    async with serving(max_calls=2000) as (_, channel, _):
        stub = reranker_pb2_grpc.RerankerServiceStub(channel)
        await stub.GetInfo(reranker_pb2.RerankerServiceGetInfoRequest(), timeout=LONG_S)
        asked = [
            asyncio.ensure_future(stub.GetInfo(reranker_pb2.RerankerServiceGetInfoRequest(), timeout=LONG_S))
            for _ in range(1500)
        ]
        await asyncio.sleep(0)
        time.sleep(31)  # of the server's loop, which is this one
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(each) for each in answers} == {reranker_pb2.RerankerServiceGetInfoResponse}


async def test_a_call_that_a_server_drops_may_be_tried_again() -> None:
    class Dropped(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.CANCELLED

        def details(self) -> str:
            return "CANCELLED"

    error = from_rpc_error("host:1", Dropped())
    assert isinstance(error, BackendUnavailable) and "try again" in str(error)


async def test_an_oversized_request_is_resource_exhausted_and_names_the_limit() -> None:
    async with serving(max_message_bytes=4096) as (_, channel, _context):
        stub = reranker_pb2_grpc.RerankerServiceStub(channel)
        code, text, _ = await failure(stub.Rerank(request(1, 50), timeout=LONG_S))
        assert (code, "4096" in text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)


async def test_too_many_items_in_one_request_is_invalid_and_says_how_many() -> None:
    async with serving(max_items_per_request=2) as (_, channel, _context):
        code, text, _ = await failure(
            reranker_pb2_grpc.RerankerServiceStub(channel).Rerank(request(3), timeout=LONG_S)
        )
        assert (code, "max_items_per_request is 2" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_an_item_that_no_record_can_hold_is_refused_by_itself() -> None:
    asked = request(3)
    asked.candidate_sets[1].query.submitted_at.seconds = 1_767_323_045_000
    async with serving() as (_, channel, _context):
        answer = await reranker_pb2_grpc.RerankerServiceStub(channel).Rerank(asked, timeout=LONG_S)
    assert [each.WhichOneof("result") for each in answer.results] == ["candidate_set", "error", "candidate_set"]
    assert (answer.results[1].error.reason, answer.results[1].error.retryable) == ("malformed", False)


async def test_an_answer_that_no_message_can_hold_is_the_error_of_its_item() -> None:
    class Odd(Reranker):
        def rerank(self, sets: Sequence[Any], keep: int = 0) -> Any:
            return [
                replace(each, index_version="half \ud83d") if each.query.query_id == "q1" else each for each in sets
            ]

    async with serving() as (_, channel, context):
        context.core = Odd(FakeScorer(), context.settings)
        answer = await reranker_pb2_grpc.RerankerServiceStub(channel).Rerank(request(3), timeout=LONG_S)
    assert [each.WhichOneof("result") for each in answer.results] == ["candidate_set", "error", "candidate_set"]
    assert (answer.results[1].error.query_id, answer.results[1].error.reason) == ("q1", "malformed")


async def test_a_call_without_a_deadline_gets_the_servers() -> None:
    scorer = HeldScorer()
    async with serving(scorer, default_deadline_s=0.1) as (_, channel, _context):
        code, text, _ = await failure(reranker_pb2_grpc.RerankerServiceStub(channel).Rerank(request()))
        scorer.may.set()
        assert (code, "deadline" in text) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)


async def test_a_stream_is_answered_in_order_while_the_client_still_writes() -> None:
    async with serving() as (_, channel, _context):

        async def asks() -> AsyncIterator[reranker_pb2.StreamRerankRequest]:
            for number in range(50):
                message = request(1, 40)
                message.candidate_sets[0].query.query_id = f"s{number}"
                yield reranker_pb2.StreamRerankRequest(request=message)

        stream = reranker_pb2_grpc.RerankerServiceStub(channel).StreamRerank(asks(), timeout=LONG_S)
        ids = [answer.response.results[0].candidate_set.query.query_id async for answer in stream]
        assert ids == [f"s{number}" for number in range(50)]


async def test_an_unexpected_exception_is_internal_and_does_not_leak_a_traceback() -> None:
    class Broken(FakeScorer):
        def score(self, sets: Sequence[Any]) -> list[list[float]]:
            raise KeyError("oops")

    async with serving(Broken()) as (_, channel, _context):
        code, text, _ = await failure(
            reranker_pb2_grpc.RerankerServiceStub(channel).Rerank(request(), timeout=LONG_S)
        )
        assert code is grpc.StatusCode.INTERNAL
        assert "bug in qrelay" in text
        assert "Traceback" not in text


async def test_reflection_lists_the_service() -> None:
    async with serving() as (_, channel, _context):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=LONG_S
        )
        async for answer in call:
            names = {service.name for service in answer.list_services_response.service}
            break
    assert {SERVICE.grpc_name, "grpc.health.v1.Health"} <= names


async def test_a_taken_port_is_a_clear_error() -> None:
    async with serving() as (_, _channel, _context):
        pass
    first = GrpcServer(GrpcSettings(), "x")
    address = await first.start()
    with pytest.raises(PortInUse, match=address.rsplit(":", 1)[1]):
        await GrpcServer(GrpcSettings(bind=address), "x").start()
    await first.drain(0)


def start_process(tmp_path: Path, **environ: str) -> subprocess.Popen[bytes]:
    wanted = {
        "QRELAY_ALL__RUN_DIR": str(tmp_path),
        "QRELAY_ALL__NATS__URL": "nats://127.0.0.1:9",
        "QRELAY_RERANKER__SCORER": "fake",
        **environ,
    }
    command = [sys.executable, "-m", "qrelay.services.reranker"]
    return subprocess.Popen(command, env={**os.environ, **wanted}, stderr=subprocess.PIPE)


async def up(tmp_path: Path, name: str = "reranker") -> Endpoint:
    await eventually(lambda: name in endpoints(tmp_path.parent))
    return endpoints(tmp_path.parent)[name]


async def test_a_stage_that_gets_nowhere_is_not_ready_and_says_why_until_it_goes_on(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    folder = tmp_path / "run"
    patience = {"QRELAY_ALL__WORKER__STALLED_AFTER_S": "0.5", "QRELAY_ALL__NATS__URL": nats_server.url}
    process = start_process(folder, **patience)
    try:
        endpoint = await up(folder)
        async with grpc.aio.insecure_channel(endpoint.grpc) as channel:
            stub = reranker_pb2_grpc.RerankerServiceStub(channel)

            async def stalled() -> str:
                info = (await stub.GetInfo(reranker_pb2.RerankerServiceGetInfoRequest(), timeout=LONG_S)).info
                return str(info.details.get("stalled.reranker", ""))

            async def consumer_waits() -> bool:
                async with await JetStreamBroker.connect(NatsSettings(url=nats_server.url), name="test") as broker:
                    return bool((await broker._js.consumer_info("QRELAY_V1_RETRIEVED", "reranker")).num_waiting)

            await eventually(_is_serving(channel))
            await eventually(consumer_waits)
            nats_server.kill()
            await eventually(stalled)
            assert "cannot fetch" in await stalled()
            assert await health(channel) == NOT_SERVING
            assert await health(channel, SERVICE.grpc_name) == SERVING, "calls are served without NATS"
            assert len((await stub.Rerank(request(2), timeout=LONG_S)).results) == 2
            nats_server.start()
            await eventually(_is_serving(channel))
            assert await stalled() == ""
    finally:
        process.kill()
        process.communicate()


async def test_a_service_whose_queues_a_server_does_not_allow_is_not_ready_and_names_the_limit(
    tmp_path: Path,
) -> None:
    server = NatsServer(tmp_path / "nats", max_payload=65536)
    server.start()
    folder = tmp_path / "run"
    patience = {"QRELAY_ALL__WORKER__STALLED_AFTER_S": "0.5", "QRELAY_ALL__NATS__URL": server.url}
    process = start_process(folder, **patience)
    try:
        endpoint = await up(folder)
        async with grpc.aio.insecure_channel(endpoint.grpc) as channel:
            stub = reranker_pb2_grpc.RerankerServiceStub(channel)

            async def stalled() -> str:
                info = (await stub.GetInfo(reranker_pb2.RerankerServiceGetInfoRequest(), timeout=LONG_S)).info
                return str(info.details.get("stalled.queues", ""))

            await eventually(stalled)
            assert "the server's max_payload is 65536 bytes" in await stalled()
            assert await health(channel) == NOT_SERVING
            assert await health(channel, SERVICE.grpc_name) == SERVING
    finally:
        process.kill()
        process.communicate()
        server.kill()


async def test_a_service_stands_alone_without_nats_and_drains_on_sigterm(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start_process(folder)
    try:
        endpoint = await up(folder)
        async with grpc.aio.insecure_channel(endpoint.grpc) as channel:
            await eventually(_is_serving(channel))
            answer = await reranker_pb2_grpc.RerankerServiceStub(channel).Rerank(request(2), timeout=LONG_S)
            assert len(answer.results) == 2
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        process.communicate()


def _is_serving(channel: grpc.aio.Channel) -> Callable[[], Any]:
    async def check() -> bool:
        try:
            return await health(channel) == SERVING
        except grpc.aio.AioRpcError:
            return False

    return check


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"QRELAY_RERANKER__SAMPLE": "99"}, b"sample (99) cannot exceed keep (40)"),
        ({"QRELAY_RERANKER__SCORER": "cross_encoder"}, b"cross_encoder names no model"),
        ({"QRELAY_RERANKER__SCORER": "auto", "QRELAY_RERANKER__CROSS_ENCODER": "path:/nowhere"}, b"/nowhere"),
    ],
)
def test_a_bad_installation_ends_with_78_and_says_why(tmp_path: Path, environ: dict[str, str], words: bytes) -> None:
    process = start_process(tmp_path, **environ)
    _, errors = process.communicate()
    assert process.returncode == 78
    assert words in errors
