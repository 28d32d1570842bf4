"""Many items through one stream: in order, each with its answer or its error, whatever breaks, a bounded number in
flight. Over gRPC, to a scripted judge behind the real server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from qrelay import AsyncClient, Client, wire
from qrelay.client import flow, patience, requests
from qrelay.errors import (
    BackendTimeout,
    BackendUnavailable,
    ConfigError,
    InvalidQuery,
    Overloaded,
    Oversized,
    QrelayError,
    RateLimited,
)
from qrelay.runtime import telemetry
from qrelay.types import CandidateSet, JudgedSet, Passage
from qrelay.v1 import judge_pb2 as pb
from qrelay.v1 import judge_pb2_grpc
from tests.client.judging import Judging, judge
from tests.conftest import eventually
from tests.samples import candidate_set
from tests.serving import announce


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_pause_s", lambda *_: 0.01)


def sets(count: int) -> list[CandidateSet]:
    return [candidate_set(number) for number in range(count)]


def ids(found: Sequence[JudgedSet | QrelayError]) -> list[str]:
    return [type(each).__name__ if isinstance(each, QrelayError) else each.candidate_set.query.query_id
            for each in found]  # fmt: skip


def once(error: QrelayError, when: str) -> Callable[[Sequence[str]], None]:
    """Fails the first request that holds this query."""
    left = [error]

    def fail(asked: Sequence[str]) -> None:
        if when in asked and left:
            raise left.pop()

    return fail


async def test_answers_come_in_the_order_of_the_items_through_one_stream() -> None:
    servicer = Judging()
    with judge(servicer) as address:
        async with AsyncClient(judge=address) as client:
            found = await client.judge(sets(200)).list()
    assert ids(found) == [f"q{n}" for n in range(200)]
    assert (servicer.streams, servicer.items) == (1, [f"q{n}" for n in range(200)])
    assert max(map(len, servicer.asked)) > 1, "quick answers make room for several items in a request"


async def test_one_item_is_answered_by_one_record() -> None:
    with judge(Judging()) as address:
        async with AsyncClient(judge=address) as client:
            found = await client.judge(candidate_set(7))
    assert found.candidate_set == candidate_set(7)


async def test_calls_belong_to_the_callers_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a stream and by themselves, from both clients."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("qrelay"))
    with judge(Judging()) as address:
        async with AsyncClient(judge=address) as client:
            with telemetry.tracer().start_as_current_span("the caller's"):
                await client.judge(sets(9)).list()
                await client.judge(candidate_set())
                await asyncio.to_thread(_judge_blocking, address)
    *served, caller = exporter.get_finished_spans()
    assert Counter(each.name.rsplit("/")[-1] for each in served) == {"StreamJudge": 2, "Judge": 2}
    assert {each.parent and each.parent.span_id for each in served} == {caller.context.span_id}


def _judge_blocking(address: str) -> None:
    with Client(judge=address) as client:
        list(client.judge(sets(9)))
        client.judge(candidate_set())


async def test_no_more_is_taken_from_the_source_than_may_be_in_flight() -> None:
    servicer = Judging(held=True)
    taken = 0

    async def source() -> AsyncIterator[CandidateSet]:
        nonlocal taken
        for each in sets(500):
            taken += 1
            yield each

    with judge(servicer) as address:
        async with AsyncClient(judge=address) as client:
            results = client.judge(source())
            first = asyncio.ensure_future(anext(results))
            await eventually(lambda: servicer.asked)
            for _ in range(50):
                await asyncio.sleep(0.01)
            assert taken <= 3 * 4, "a request, what waits for room, and what is read ahead"
            servicer.held = False
            assert ids([await first]) == ["q0"]
            assert len(await results.list()) == 499
    assert max(map(len, servicer.asked)) <= 4


async def test_a_consumer_that_stops_reading_stops_the_source() -> None:
    servicer = Judging()
    with judge(servicer) as address:
        async with AsyncClient(judge=address) as client:
            async with client.judge(sets(1000)) as results:
                for _ in range(50):
                    await anext(results)
                for _ in range(50):
                    await asyncio.sleep(0.01)
                assert len(servicer.items) <= 50 + 7 * 4
            await eventually(lambda: servicer.ended)


@pytest.mark.parametrize("error", [BackendUnavailable("away"), Overloaded("full"), RateLimited("slowly")])
async def test_where_a_stream_breaks_what_is_unanswered_goes_through_a_new_one(error: QrelayError) -> None:
    servicer = Judging(fail=once(error, "q50"))
    with judge(servicer) as address:
        async with AsyncClient(judge=address) as client:
            found = await client.judge(sets(100)).list()
    assert ids(found) == [f"q{n}" for n in range(100)]
    assert servicer.streams == 2, "what is asked for by itself comes between the two"
    assert servicer.items.count("q0") == 1
    assert servicer.items.count("q50") == 2


async def test_one_request_takes_no_stream_which_a_service_has_room_for_few_of() -> None:
    servicer = Judging()
    with judge(servicer) as address:
        async with AsyncClient(judge=address) as client:
            await asyncio.gather(*(client.judge(candidate_set(n)) for n in range(20)))
    assert servicer.streams == 0


async def test_more_clients_than_a_service_has_room_for_streams_go_on_request_by_request() -> None:
    servicer = Judging()
    with judge(servicer) as address:
        async with AsyncClient(judge=address) as client:
            found = await asyncio.gather(*(client.judge(sets(60)).list() for _ in range(8)))
    assert [ids(each) for each in found] == [[f"q{n}" for n in range(60)]] * 8


async def test_attempts_end_with_the_services_own_error() -> None:
    servicer = Judging(fail=lambda _: _raise(Overloaded("512 items held")))
    with judge(servicer) as address:
        async with AsyncClient(judge=address, attempts=3) as client:
            with pytest.raises(Overloaded, match="512 items held") as caught:
                await client.judge(sets(5)).list()
    assert servicer.items.count("q0") == 1 + 3, "by the stream, and by itself"
    assert caught.value.retry_after_s == 1.0


async def test_attempts_count_only_while_nothing_is_answered() -> None:
    def fail(asked: Sequence[str]) -> None:
        if servicer.items.count(asked[0]) < 2:
            raise BackendUnavailable("away")

    servicer = Judging(fail=fail)
    with judge(servicer) as address:
        async with AsyncClient(judge=address, attempts=2) as client:
            assert len(await client.judge(sets(20)).list()) == 20


async def test_a_setup_error_is_not_tried_again() -> None:
    servicer = Judging(fail=lambda _: _raise(ConfigError("judge.model is empty")))
    with judge(servicer) as address:
        async with AsyncClient(judge=address) as client:
            with pytest.raises(ConfigError, match=r"judge\.model is empty"):
                await client.judge(sets(5)).list()
    assert servicer.items.count("q0") <= 2, "once more where gRPC lost the status"


async def test_a_service_that_prepares_itself_is_waited_for_beyond_the_attempts() -> None:
    def fail(_: Sequence[str]) -> None:
        if servicer.preparing > 0:
            raise BackendUnavailable("the judge is not ready")

    servicer = Judging(fail=fail, preparing=20)
    with judge(servicer) as address:
        async with AsyncClient(judge=address, attempts=2) as client:
            assert len(await client.judge(sets(2)).list()) == 2
    assert servicer.items.count("q0") > 10


async def test_without_an_answer_within_the_deadline_it_is_said_which_to_raise() -> None:
    servicer = Judging(held=True)
    with judge(servicer) as address:
        async with AsyncClient(judge=address, timeout_s=0.3) as client:
            with pytest.raises(BackendTimeout, match=r"the judge at .* within 0\.3 s: give a higher timeout_s"):
                await client.judge(sets(3)).list()
        servicer.held = False
    assert servicer.streams == 1


async def test_the_deadline_does_not_run_while_the_source_has_nothing() -> None:
    gate = asyncio.Event()

    async def source() -> AsyncIterator[CandidateSet]:
        yield candidate_set(0)
        await gate.wait()
        yield candidate_set(1)

    with judge(Judging()) as address:
        async with AsyncClient(judge=address, timeout_s=0.2) as client:
            results = client.judge(source())
            assert ids([await anext(results)]) == ["q0"], "an answer does not wait for the next item"
            await asyncio.sleep(0.5)
            gate.set()
            assert ids(await results.list()) == ["q1"]


async def test_an_item_that_fails_fails_no_other() -> None:
    servicer = Judging(item=lambda query_id: InvalidQuery("no text") if query_id == "q3" else None)
    with judge(servicer) as address:
        async with AsyncClient(judge=address) as client:
            found = await client.judge(sets(6), on_error="return").list()
            assert ids(found) == ["q0", "q1", "q2", "InvalidQuery", "q4", "q5"]
            assert str(found[3]) == "q3: no text"
            results = client.judge(sets(6))
            assert [ids([await anext(results)]) for _ in range(3)] == [["q0"], ["q1"], ["q2"]]
            with pytest.raises(InvalidQuery, match="q3: no text"):
                await anext(results)


async def test_an_item_whose_failure_may_pass_is_asked_for_again_alone() -> None:
    def item(query_id: str) -> QrelayError | None:
        return BackendUnavailable("Milvus is away") if query_id == "q3" and servicer.items.count("q3") < 3 else None

    servicer = Judging(item=item)
    with judge(servicer) as address:
        async with AsyncClient(judge=address) as client:
            assert ids(await client.judge(sets(40)).list()) == [f"q{n}" for n in range(40)]
    assert servicer.items.count("q3") == 3
    assert servicer.items.count("q0") == 1


async def test_an_item_that_keeps_failing_is_its_own_error_in_the_end() -> None:
    servicer = Judging(item=lambda query_id: BackendUnavailable("away") if query_id == "q3" else None)
    with judge(servicer) as address:
        async with AsyncClient(judge=address, attempts=3) as client:
            found = await client.judge(sets(6), on_error="return").list()
    assert ids(found) == ["q0", "q1", "q2", "BackendUnavailable", "q4", "q5"]


async def test_an_item_above_the_services_limit_is_refused_alone() -> None:
    large = replace(candidate_set(3), candidates=tuple(
        replace(each, passage=Passage("d#0", "d", "", "x" * 40_000_000)) for each in candidate_set(0, 1).candidates
    ))  # fmt: skip
    with judge(Judging()) as address:
        async with AsyncClient(judge=address) as client:
            found = await client.judge([*sets(3), large, *sets(2)], on_error="return").list()
    assert ids(found) == ["q0", "q1", "q2", "Oversized", "q0", "q1"]


async def test_a_request_that_is_refused_whole_is_divided() -> None:
    def fail(asked: Sequence[str]) -> None:
        if "q30" in asked:
            raise Oversized("too many fields")

    servicer = Judging(fail=fail)
    with judge(servicer) as address:
        async with AsyncClient(judge=address) as client:
            found = await client.judge(sets(60), on_error="return").list()
    assert ids(found) == [f"q{n}" if n != 30 else "Oversized" for n in range(60)]


async def test_what_cannot_be_sent_and_errors_among_the_items_are_their_own_answers() -> None:
    broken = replace(candidate_set(1), index_version="\ud800")
    with judge(Judging()) as address:
        async with AsyncClient(judge=address) as client:
            items = [candidate_set(0), broken, InvalidQuery("of before"), candidate_set(2)]
            found = await client.judge(items, on_error="return").list()
            assert ids(found) == ["q0", "MalformedInput", "InvalidQuery", "q2"]
            assert ids(await client.judge([broken], on_error="return").list()) == ["MalformedInput"]
            assert await client.judge([]).list() == []


async def test_an_error_of_the_source_comes_after_the_answers_to_what_came_before_it() -> None:
    def source() -> Iterator[CandidateSet]:
        yield from sets(2)
        raise RuntimeError("the file is gone")

    with judge(Judging()) as address:
        async with AsyncClient(judge=address) as client:
            results = client.judge(source())
            with pytest.raises(RuntimeError, match="the file is gone"):
                await results.list()

            async def slow() -> AsyncIterator[CandidateSet]:
                yield candidate_set(0)
                await asyncio.sleep(0.01)
                raise RuntimeError("the file is gone")

            results = client.judge(slow())
            assert ids([await anext(results)]) == ["q0"]
            with pytest.raises(RuntimeError, match="the file is gone"):
                await anext(results)


async def test_a_service_that_comes_back_at_another_address_is_found(tmp_path: Path) -> None:
    first, second = Judging(), Judging()
    with judge(second) as new, judge(first) as old:

        def fail(asked: Sequence[str]) -> None:
            if "q10" in asked:
                announce(tmp_path, "judge", new)
                raise BackendUnavailable("stopping")

        first.fail = fail
        announce(tmp_path, "judge", old)
        async with AsyncClient(tmp_path) as client:
            assert ids(await client.judge(sets(20)).list()) == [f"q{n}" for n in range(20)]
    assert (first.streams, second.streams) == (1, 1)


async def test_a_service_that_never_ran_is_not_waited_for(tmp_path: Path) -> None:
    async with AsyncClient(tmp_path) as client:
        with pytest.raises(BackendUnavailable, match="no judge runs from"):
            await client.judge(sets(1)).list()


async def test_nothing_at_the_address_is_said_after_the_attempts() -> None:
    async with AsyncClient(judge="127.0.0.1:9", attempts=2) as client:
        with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9 does not answer"):
            await client.judge(candidate_set())


async def test_another_service_at_the_address_is_said_at_once() -> None:
    with judge(Judging()) as address:
        async with AsyncClient(reranker=address) as client:
            with pytest.raises(QrelayError, match="UNIMPLEMENTED"):
                await client.rerank(sets(3), on_error="return").list()


def test_the_requests_of_a_flow_are_few() -> None:
    assert flow._REQUESTS * requests.BYTES <= 8 * 1024**2


def _raise(error: QrelayError) -> None:
    raise error


async def test_a_stream_that_is_left_while_an_answer_is_written_ends() -> None:
    servicer, few = Judging(), candidate_set(count=1)
    (only,) = few.candidates
    large = replace(few, candidates=(replace(only, passage=replace(only.passage, text="word " * 100_000)),))
    request = pb.StreamJudgeRequest(request=pb.JudgeRequest(candidate_sets=[wire.to_proto(large)]))
    with judge(servicer) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            call = judge_pb2_grpc.JudgeServiceStub(channel).StreamJudge()
            for _ in range(8):  # more than HTTP/2's window takes for a client that does not read
                await call.write(request)
            await eventually(lambda: len(servicer.asked) >= 2)
            call.cancel()
            await eventually(lambda: servicer.ended)
