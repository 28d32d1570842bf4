"""What a gRPC server takes in: measured before it is parsed, and no more at once than there is room for."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from qrelay.rundir import endpoints
from qrelay.runtime.intake import MAX_FIELDS, Room, has_more_fields
from qrelay.v1 import records_pb2, reranker_pb2, reranker_pb2_grpc, sink_pb2
from tests.conftest import LONG_S, eventually
from tests.runtime.test_server import HeldScorer, failure, request, serving

RERANK = "/qrelay.v1.RerankerService/Rerank"
STREAM = "/qrelay.v1.RerankerService/StreamRerank"
NONSENSE = b"\xff" * 100
MB = 1000**2


async def streamed(channel: grpc.aio.Channel, *requests: bytes) -> list[bytes]:
    call = channel.stream_stream(STREAM)(iter(requests), timeout=LONG_S)
    return [answer async for answer in call]


def one_stream(items: int = 1, candidates: int = 3) -> bytes:
    return reranker_pb2.StreamRerankRequest(request=request(items, candidates)).SerializeToString()


@pytest.mark.parametrize("method", [RERANK, "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"])
async def test_bytes_that_do_not_parse_are_an_invalid_argument_without_a_traceback(
    method: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving() as (_, channel, _context):
        code, text, _ = await failure(_first(channel.unary_stream(method)(NONSENSE, timeout=LONG_S)))
        assert (code, "use the protos" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert "Traceback" not in caplog.text + capfd.readouterr().err


async def _first(call: Any) -> Any:
    return await anext(aiter(call))


async def test_a_streams_bytes_that_do_not_parse_are_an_invalid_argument_too() -> None:
    async with serving() as (_, channel, _context):
        code, _, _ = await failure(streamed(channel, one_stream(), NONSENSE))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_of_a_stream_has_the_limit_of_any_message() -> None:
    async with serving(max_message_bytes=4096) as (_, channel, _context):
        assert len(await streamed(channel, one_stream(), one_stream())) == 2
        code, text, _ = await failure(streamed(channel, one_stream(1, 50)))
        assert (code, "4096" in text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)


async def test_an_answer_above_the_limit_is_refused_in_words() -> None:
    asked = request(1, 10)  # its answer has a score and a trace beside what was asked
    limit = len(asked.SerializeToString())
    async with serving(max_message_bytes=limit) as (_, channel, _context):
        code, text, _ = await failure(reranker_pb2_grpc.RerankerServiceStub(channel).Rerank(asked, timeout=LONG_S))
        assert (code, f"grpc.max_message_bytes is {limit}" in text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)


async def test_a_request_of_millions_of_empty_items_is_refused_before_it_is_parsed() -> None:
    async with serving() as (_, channel, _context):
        bomb = b"\x0a\x00" * (MAX_FIELDS + 1)
        code, text, details = await failure(channel.unary_unary(RERANK)(bomb, timeout=LONG_S))
        assert (code, f"more than {MAX_FIELDS} fields" in text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        assert details["ErrorInfo"].reason == "OVERSIZED"


async def test_calls_wait_for_room_and_none_is_refused_or_forgotten() -> None:
    scorer = HeldScorer()
    async with serving(scorer, max_message_bytes=2048, max_bytes_in_flight=24 * 1024) as (_, channel, _context):
        stub = reranker_pb2_grpc.RerankerServiceStub(channel)
        calls = [asyncio.ensure_future(_awaited(stub.Rerank(request(), timeout=LONG_S))) for _ in range(40)]
        await eventually(scorer.began.is_set)
        scorer.may.set()
        answers = await asyncio.gather(*calls)
        assert [len(answer.results) for answer in answers] == [1] * 40


async def _awaited(call: Any) -> Any:
    return await call


async def test_health_and_info_answer_while_all_room_for_items_is_taken() -> None:
    scorer = HeldScorer()
    async with serving(scorer, max_message_bytes=1024, max_bytes_in_flight=12 * 1024) as (_, channel, _context):
        stub = reranker_pb2_grpc.RerankerServiceStub(channel)
        calls = [stub.Rerank(request(1, 5), timeout=LONG_S) for _ in range(20)]
        await eventually(scorer.began.is_set)
        info = await stub.GetInfo(reranker_pb2.RerankerServiceGetInfoRequest(), timeout=LONG_S)
        assert info.info.service == "reranker"
        scorer.may.set()
        await asyncio.gather(*map(_awaited, calls))


async def test_a_request_that_does_not_arrive_gives_its_room_back() -> None:
    async with serving(receive_timeout_s=0.2) as (_, channel, _context):

        async def never() -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

        calls = [channel.stream_unary(RERANK)(never(), timeout=LONG_S) for _ in range(12)]
        answer = await reranker_pb2_grpc.RerankerServiceStub(channel).Rerank(request(), timeout=LONG_S)
        assert len(answer.results) == 1
        for call in calls:
            code, text, _ = await failure(call)
            assert (code, "grpc.receive_timeout_s" in text) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)


async def test_more_streams_than_there_is_room_for_are_refused_and_closed_ones_make_room() -> None:
    async with serving(max_message_bytes=4096, max_bytes_in_flight=12 * 4096) as (_, channel, _context):
        idle = [await _open(channel) for _ in range(3)]
        code, text, _ = await failure(streamed(channel, one_stream()))
        assert (code, "close one" in text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        for call in idle:
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
        assert len(await streamed(channel, one_stream(), one_stream())) == 2


async def _open(channel: grpc.aio.Channel) -> Any:
    """A stream that has had an answer, and is open."""
    call = channel.stream_stream(STREAM)(timeout=LONG_S)
    await call.write(one_stream())
    await call.read()
    return call


async def test_room_is_given_in_order_and_a_waiter_that_leaves_holds_nobody_up() -> None:
    room, order = Room(10), []

    async def take(name: str, amount: int) -> None:
        await room.take(amount)
        order.append(name)

    await take("first", 8)
    large, small = asyncio.create_task(take("large", 5)), asyncio.create_task(take("small", 2))
    await asyncio.sleep(0)
    assert order == ["first"]  # what fits does not overtake
    large.cancel()
    await asyncio.gather(large, small, return_exceptions=True)
    assert order == ["first", "small"]
    room.give(8 + 2)
    await take("all", 10)


@pytest.mark.parametrize(
    ("fields", "most", "more"),
    [(3, 3, False), (4, 3, True)],
)
def test_fields_are_counted_as_deep_as_they_lie(fields: int, most: int, more: bool) -> None:
    inner = records_pb2.JudgedSet(judgments=[records_pb2.Judgment()] * (fields - 1))
    raw = sink_pb2.IngestRequest(judged_sets=[inner]).SerializeToString()
    assert has_more_fields(raw, sink_pb2.IngestRequest.DESCRIPTOR, most) is more


@pytest.mark.parametrize("bombs", [10, 11])
def test_what_a_text_takes_is_no_room_for_fields(bombs: int) -> None:
    """Before, between and behind the fields that are counted; a length that lies does not hide what comes before."""
    text, empty = b"\x7a\x14" + b"t" * 20, b"\x12\x00"
    inner = text + empty * (bombs - 3) + text
    raw = b"\x0a" + bytes([len(inner)]) + inner
    assert has_more_fields(raw, sink_pb2.IngestRequest.DESCRIPTOR, 10) is (bombs > 10)
    lying = raw + b"\x1a\xff\xff\xff\x7f"
    assert has_more_fields(b"\x0a\x00" * bombs + lying, sink_pb2.IngestRequest.DESCRIPTOR, bombs) is True


@pytest.mark.parametrize("raw", [b"\xff" * 4096, b"\x0a\xff\xff\xff\xff\x7f", b"\x09", b"\x08\xff", b""])
def test_fields_of_what_is_cut_off_or_nonsense_are_counted_without_an_error(raw: bytes) -> None:
    assert not has_more_fields(raw, sink_pb2.IngestRequest.DESCRIPTOR, 10)


def test_a_sink_that_gets_many_large_requests_holds_a_few_of_them(tmp_path: Path) -> None:
    """Twelve of 62 MB cost 1.6 GB once, and twelve of 31 MB 1.4 GB."""
    environ = {
        **os.environ,
        "QRELAY_ALL__RUN_DIR": str(tmp_path / "run"),
        "QRELAY_ALL__DATA_DIR": str(tmp_path / "data"),
        "QRELAY_ALL__NATS__URL": "nats://127.0.0.1:9",
    }
    process = subprocess.Popen([sys.executable, "-m", "qrelay.services.sink"], env=environ, stderr=subprocess.DEVNULL)
    try:
        asyncio.run(_flooded(tmp_path, process.pid))
    finally:
        process.kill()
        process.wait()


async def _flooded(folder: Path, pid: int) -> None:
    await eventually(lambda: "sink" in endpoints(folder))
    address = json.loads((folder / "run" / "sink.json").read_text())["grpc"]
    before = peak_mb(pid)
    assert await _sent(address, 62) == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 12
    assert peak_mb(pid) - before < 100
    assert await _sent(address, 31) == [grpc.StatusCode.OK] * 12
    assert peak_mb(pid) - before < 900


async def _sent(address: str, megabytes: int) -> list[grpc.StatusCode]:
    """How twelve requests of that size, at once, each over its own connection, ended."""
    judged = records_pb2.JudgedSet()
    judged.candidate_set.query.text = "x" * (megabytes * MB)
    payload = sink_pb2.IngestRequest(judged_sets=[judged]).SerializeToString()

    async def one() -> grpc.StatusCode:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            call = channel.unary_unary("/qrelay.v1.SinkService/Ingest")(payload, timeout=LONG_S, wait_for_ready=True)
            return await call.code()

    return await asyncio.gather(*(one() for _ in range(12)))


def peak_mb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024
