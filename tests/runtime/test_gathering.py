"""Concurrent gRPC calls in one batch, through real servers and channels around real cores that can be held up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from qrelay import wire
from qrelay.config import WorkerSettings
from qrelay.errors import BackendUnavailable, QrelayError
from qrelay.index.collections import SyntheticIndex
from qrelay.index.settings import RetrieverSettings
from qrelay.judging.judge import Judge
from qrelay.judging.settings import JudgeSettings
from qrelay.llm.fake import FakeBackend
from qrelay.runtime import telemetry
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.server import GrpcServer
from qrelay.runtime.stage import ServiceDef
from qrelay.services.judge.service import SERVICE as JUDGE
from qrelay.services.reranker.reranker import Reranker
from qrelay.services.reranker.scorers import FakeScorer
from qrelay.services.reranker.service import SERVICE as RERANKER
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.services.retriever.retriever import Retriever
from qrelay.services.retriever.service import SERVICE as RETRIEVER
from qrelay.types import CandidateSet, JudgedSet, Query
from qrelay.v1 import judge_pb2, judge_pb2_grpc, reranker_pb2, reranker_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from tests import samples
from tests.conftest import LONG_S, eventually
from tests.judging.samples import COPYTREE, candidate_set, make_judge

SETTINGS = RetrieverSettings(engine="synthetic")


class Held(Retriever):
    """Searches when it may, and remembers its batches: the queries' ids, and the limit."""

    def __init__(self) -> None:
        super().__init__(SETTINGS, SyntheticIndex(()))
        self.batches: list[tuple[list[str], int | None]] = []
        self.may = threading.Event()
        self.broken: dict[str, Exception] = {}
        """query id -> what every batch with it raises."""

    def retrieve(
        self, queries: Sequence[Query], max_candidates: int | None = None
    ) -> list[CandidateSet | QrelayError]:
        self.batches.append(([query.query_id for query in queries], max_candidates))
        self.may.wait(LONG_S)
        for query in queries:
            if query.query_id in self.broken:
                raise self.broken[query.query_id]
        return super().retrieve(queries, max_candidates)


@asynccontextmanager
async def serving(definition: ServiceDef[Any, Any], settings: Any, core: Any) -> AsyncIterator[tuple[Any, Any]]:
    """(channel, context) of a server with this core."""
    context: ServiceContext[Any, Any] = ServiceContext(definition.name, settings, "r1")
    server = GrpcServer(settings.grpc, definition.grpc_name)
    definition.add_servicer(server.raw, context)
    address = await server.start()
    context.core = core
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield channel, context
    finally:
        await server.drain(1)


class Asked:
    """A retriever's door with the calls that were made through it."""

    def __init__(self, channel: grpc.aio.Channel, context: Any, core: Held) -> None:
        self.stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        self.context, self.core = context, core
        self.held = 0

    def call(self, *ids: str, limit: int = 0, timeout: float | None = None, text: str = "a question") -> Any:
        queries = [wire.to_proto(Query(each, text, "docs")) for each in ids]
        request = retriever_pb2.RetrieveRequest(queries=queries, max_candidates=limit)
        return self.stub.Retrieve(request, timeout=timeout)

    async def ask(self, *ids: str, **options: Any) -> Any:
        """A call that the service holds by now: its core is held up."""
        call = self.call(*ids, **options)
        self.held += len(ids)
        await eventually(lambda: self.pending() == self.held)
        return call

    def pending(self) -> float:
        return telemetry.PENDING_ITEMS._value.get()

    async def hold(self, number: int = 1) -> list[Any]:
        """Calls that keep the core busy until it may go on."""
        calls = [await self.ask(f"first{n}") for n in range(number)]
        await eventually(lambda: bool(self.core.batches))
        return calls


@asynccontextmanager
async def retriever(core: Held, **worker: Any) -> AsyncIterator[Asked]:
    settings = SETTINGS.model_copy(update={"worker": WorkerSettings(**worker)})
    async with serving(RETRIEVER, settings, core) as (channel, context):
        try:
            yield Asked(channel, context, core)
        finally:
            core.may.set()


def plain(result: retriever_pb2.RetrieveResult) -> bytes:
    """Without the times of its trace, which are no two times the same."""
    for step in result.candidate_set.trace:
        step.ClearField("queue_seconds")
        step.ClearField("compute_seconds")
    return result.SerializeToString(deterministic=True)


async def test_a_lone_caller_waits_for_nobody_and_makes_batches_of_its_own() -> None:
    core = Held()
    core.may.set()
    async with retriever(core, max_delay_s=LONG_S) as door:
        for number in range(20):
            await door.call(f"q{number}")
    assert [ids for ids, _ in core.batches] == [[f"q{number}"] for number in range(20)]


async def test_calls_that_arrive_while_a_batch_computes_go_together_and_get_what_they_would_get_alone() -> None:
    core = Held()
    async with retriever(core) as door:
        calls = await door.hold()
        calls += [await door.ask(f"q{n}", text=f"question {n}") for n in range(8)]
        core.may.set()
        answers = [(await call).results[0] for call in calls]
        assert [ids for ids, _ in core.batches] == [["first0"], [f"q{n}" for n in range(8)]]
        for number, together in enumerate(answers[1:]):
            alone = await door.call(f"q{number}", text=f"question {number}")
            assert plain(together) == plain(alone.results[0])
    assert all(answer.candidate_set.trace[0].replica == "r1" for answer in answers)


async def test_calls_of_different_options_never_share_a_batch() -> None:
    core = Held()
    async with retriever(core) as door:
        await door.hold()
        calls = {f"q{n}": (await door.ask(f"q{n}", limit=limit), limit) for n, limit in enumerate([3, 5, 3, 7, 5])}
        core.may.set()
        for call, limit in calls.values():
            assert len((await call).results[0].candidate_set.candidates) == limit
    assert sorted(core.batches[1:]) == [(["q0", "q2"], 3), (["q1", "q4"], 5), (["q3"], 7)]


async def test_a_call_of_several_items_is_never_divided_and_a_batch_keeps_its_limits() -> None:
    core = Held()
    async with retriever(core, max_items=4, batches_in_flight=1) as door:
        await door.hold()
        calls = [
            await door.ask(*names) for names in (["a", "b"], ["c"], ["d", "e"], ["f", "g", "h", "i", "j"], ["k"])
        ]
        core.may.set()
        answers = [[each.candidate_set.query.query_id for each in (await call).results] for call in calls]
    assert [ids for ids, _ in core.batches[1:]] == [["a", "b", "c"], ["d", "e"], ["f", "g", "h", "i", "j"], ["k"]]
    assert answers == [["a", "b"], ["c"], ["d", "e"], ["f", "g", "h", "i", "j"], ["k"]]


async def test_cost_limits_a_batch_too() -> None:
    core = Held()
    async with retriever(core, max_cost=10) as door:
        await door.hold()
        calls = [await door.ask(name, text=text) for name, text in (("a", "12345"), ("b", "12345"), ("c", "1"))]
        core.may.set()
        await asyncio.gather(*calls)
    assert [ids for ids, _ in core.batches[1:]] == [["a", "b"], ["c"]]


async def test_a_full_batch_goes_beside_one_that_computes_up_to_the_batches_in_flight() -> None:
    core = Held()
    async with retriever(core, max_items=2, batches_in_flight=2) as door:
        calls = await door.hold()
        calls.append(await door.ask("a"))
        assert len(core.batches) == 1, "half a batch waits"
        calls += [await door.ask(name) for name in "bcd"]
        await eventually(lambda: len(core.batches) == 2)
        assert core.batches[1][0] == ["a", "b"]
        core.may.set()
        await asyncio.gather(*calls)
    assert [ids for ids, _ in core.batches] == [["first0"], ["a", "b"], ["c", "d"]]


@pytest.mark.parametrize("deadline_s", [None, 0.2])
async def test_a_call_that_was_given_up_is_left_out_of_the_batch_that_has_not_begun(deadline_s: float | None) -> None:
    core = Held()
    async with retriever(core) as door:
        calls = await door.hold()
        calls.append(await door.ask("a"))
        given_up = await door.ask("b", timeout=deadline_s)
        calls.append(await door.ask("c"))
        if deadline_s is None:
            given_up.cancel()
        await eventually(lambda: door.pending() == 3)
        core.may.set()
        await asyncio.gather(*calls)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await given_up
    assert [ids for ids, _ in core.batches] == [["first0"], ["a", "c"]]


async def test_an_item_that_fails_is_the_error_of_its_own_call() -> None:
    core = Held()
    async with retriever(core) as door:
        await door.hold()
        good, bad, other = [await door.ask(name, text=text) for name, text in (("a", "x"), ("b", "  "), ("c", "y"))]
        core.may.set()
        kinds = [(await call).results[0].WhichOneof("result") for call in (good, bad, other)]
    assert kinds == ["candidate_set", "error", "candidate_set"]
    assert [ids for ids, _ in core.batches[1:]] == [["a", "b", "c"]]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("a bug"), grpc.StatusCode.INTERNAL),
        (BackendUnavailable("it is away"), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_a_call_whose_batch_raises_fails_alone(error: Exception, code: grpc.StatusCode) -> None:
    core = Held()
    core.broken = {"b": error}
    async with retriever(core) as door:
        await door.hold()
        good, bad, other = [await door.ask(name) for name in "abc"]
        core.may.set()
        assert (await good).results[0].candidate_set.query.query_id == "a"
        assert (await other).results[0].candidate_set.query.query_id == "c"
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await bad
        assert failed.value.code() is code
    assert sorted(ids for ids, _ in core.batches[1:]) == [["a"], ["a", "b", "c"], ["b"], ["c"]]


async def test_a_core_that_forgets_an_answer_fails_its_batch_and_nobody_gets_anothers() -> None:
    class Forgetful(Held):
        def retrieve(self, queries: Sequence[Query], max_candidates: int | None = None) -> Any:
            found = super().retrieve(queries, max_candidates)
            return found[1:] if len(queries) > 1 else found

    core = Forgetful()
    async with retriever(core) as door:
        await door.hold()
        calls = {name: await door.ask(name) for name in "abc"}
        core.may.set()
        for name, call in calls.items():
            assert (await call).results[0].candidate_set.query.query_id == name


async def test_the_metrics_count_batches_not_calls() -> None:
    def batches() -> tuple[float, float]:
        found = {
            sample.name: sample.value
            for metric in telemetry.GRPC_BATCH_ITEMS.collect()
            for sample in metric.samples
            if sample.labels.get("service") == "retriever"
        }
        return found.get("qrelay_grpc_batch_items_count", 0), found.get("qrelay_grpc_batch_items_sum", 0)

    core = Held()
    before = batches()
    async with retriever(core) as door:
        calls = await door.hold()
        calls += [await door.ask(name) for name in "abc"]
        core.may.set()
        await asyncio.gather(*calls)
    after = batches()
    assert (after[0] - before[0], after[1] - before[1]) == (2, 4)


async def test_many_callers_that_ask_again_and_again_share_their_batches() -> None:
    """Sixteen callers, one query a call: after the first batches most go in company."""
    core = Held()
    core.may.set()
    core._index = SyntheticIndex((), 0.002)
    async with retriever(core) as door:

        async def caller(name: int) -> None:
            for number in range(10):
                answer = await door.call(f"{name}-{number}")
                assert answer.results[0].candidate_set.query.query_id == f"{name}-{number}"

        await asyncio.gather(*map(caller, range(16)))
    assert sum(len(ids) for ids, _ in core.batches) == 160
    assert len(core.batches) < 80, "fewer than two calls a batch"


async def test_requests_of_a_stream_share_batches_and_are_answered_in_order() -> None:
    core = Held()
    async with retriever(core) as door:

        async def requests() -> AsyncIterator[retriever_pb2.StreamRetrieveRequest]:
            for number in range(6):
                query = wire.to_proto(Query(f"q{number}", "a question", "docs"))
                yield retriever_pb2.StreamRetrieveRequest(request=retriever_pb2.RetrieveRequest(queries=[query]))

        call = door.stub.StreamRetrieve(requests())
        await eventually(lambda: door.pending() > 2)
        core.may.set()
        found = [each.response.results[0].candidate_set.query.query_id async for each in call]
    assert found == [f"q{number}" for number in range(6)]
    assert len(core.batches) < 6


async def test_a_reranker_scores_the_sets_of_several_calls_together() -> None:
    class HeldScorer(FakeScorer):
        def __init__(self) -> None:
            super().__init__()
            self.batches: list[int] = []
            self.may = threading.Event()

        def score(self, sets: Sequence[Any]) -> list[list[float]]:
            self.batches.append(len(sets))
            self.may.wait(LONG_S)
            return super().score(sets)

    settings, scorer = RerankerSettings(scorer="fake"), HeldScorer()
    async with serving(RERANKER, settings, Reranker(scorer, settings)) as (channel, _):
        stub = reranker_pb2_grpc.RerankerServiceStub(channel)
        requests = [
            reranker_pb2.RerankRequest(candidate_sets=[wire.to_proto(samples.candidate_set(n, 5))]) for n in range(5)
        ]
        calls = [stub.Rerank(requests[0])]
        await eventually(lambda: bool(scorer.batches))
        calls += [stub.Rerank(each) for each in requests[1:]]
        await eventually(lambda: telemetry.PENDING_ITEMS._value.get() == 5)
        scorer.may.set()
        for number, call in enumerate(calls):
            found = (await call).results[0].candidate_set
            assert found.query.query_id == samples.candidate_set(number, 5).query.query_id
    assert scorer.batches == [1, 4]


class HeldJudge:
    """A judge that may be held up, remembers its batches, and whether one was cancelled."""

    def __init__(self, judge: Judge) -> None:
        self.judge_of, self.batches, self.may, self.cancelled = judge, list[list[str]](), asyncio.Event(), 0

    async def judge(self, sets: Sequence[CandidateSet]) -> list[JudgedSet | QrelayError]:
        self.batches.append([each.query.query_id for each in sets])
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await self.judge_of.judge(sets)


def judging(name: str) -> judge_pb2.JudgeRequest:
    return judge_pb2.JudgeRequest(candidate_sets=[wire.to_proto(candidate_set(COPYTREE, query_id=name))])


async def test_a_judges_calls_share_a_batch_and_wait_for_no_long_one_before_them() -> None:
    core = HeldJudge(make_judge(FakeBackend()))
    settings = JudgeSettings(backend="fake", worker=WorkerSettings(max_delay_s=0.05))
    async with serving(JUDGE, settings, core) as (channel, _):
        stub = judge_pb2_grpc.JudgeServiceStub(channel)
        calls = [stub.Judge(judging("first"))]
        await eventually(lambda: bool(core.batches))
        calls += [stub.Judge(judging(name)) for name in "abc"]
        await eventually(lambda: sum(map(len, core.batches)) == 4)
        assert len(core.batches) < 4
        core.may.set()
        found = [(await call).results[0].judged_set.candidate_set.query.query_id for call in calls]
    assert found == ["first", *"abc"]


async def test_a_batch_that_nobody_waits_for_any_more_is_cancelled_and_one_with_a_caller_left_is_not() -> None:
    core = HeldJudge(make_judge(FakeBackend()))
    settings = JudgeSettings(backend="fake", worker=WorkerSettings(max_delay_s=0.05))
    async with serving(JUDGE, settings, core) as (channel, _):
        stub = judge_pb2_grpc.JudgeServiceStub(channel)
        first = stub.Judge(judging("first"))
        await eventually(lambda: bool(core.batches))
        one, other = stub.Judge(judging("a")), stub.Judge(judging("b"))
        await eventually(lambda: sum(map(len, core.batches)) == 3)
        first.cancel()
        one.cancel()
        await eventually(lambda: telemetry.PENDING_ITEMS._value.get() == 1)
        assert core.cancelled == (1 if core.batches[1:] == [["a", "b"]] else 2)
        core.may.set()
        assert (await other).results[0].WhichOneof("result") == "judged_set"
