"""A budget stops the judge cleanly: nothing lost, nothing dead-lettered, nothing half done; later it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from qrelay import wire
from qrelay.config import GrpcSettings, WorkerSettings
from qrelay.errors import BackendUnavailable, BudgetExhausted, ConfigError, QrelayError
from qrelay.judging.budget import Budget, Budgeted
from qrelay.judging.budget_settings import BudgetSettings
from qrelay.judging.cache import NoCache
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.load import load_core
from qrelay.judging.settings import JudgeSettings
from qrelay.llm.fake import FakeBackend
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.memory import MemoryBroker
from qrelay.runtime.server import GrpcServer
from qrelay.runtime.stage import Info
from qrelay.runtime.topology import Queue
from qrelay.runtime.worker import StageWorker
from qrelay.services.judge.service import JudgeServicer, JudgeStage
from qrelay.types import CandidateSet, JudgedSet
from qrelay.v1 import judge_pb2, judge_pb2_grpc
from tests.conftest import eventually
from tests.judging.samples import candidate_set, make_judge

WORKER = WorkerSettings(max_items=1, max_delay_s=0.01, batches_in_flight=1, retry_delays_s=(0.01,), max_attempts=1,
                        drain_s=5)  # fmt: skip
EVENING = datetime(2025, 3, 1, 23, 59, 59, 700_000, tzinfo=UTC)


class Clock:
    def __init__(self, now: datetime = EVENING) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def one_set(number: int) -> CandidateSet:
    return candidate_set(f"passage {number} of its own", query=f"query {number}?", query_id=f"q{number}")


def price_of_one() -> int:
    (judged,) = asyncio.run(make_judge().judge([one_set(0)]))
    assert isinstance(judged, JudgedSet)
    return sum(each.prompt_tokens for each in judged.judgments)


PRICE = price_of_one()


async def spend_all(core: Budgeted, sets: int = 100) -> tuple[int, BudgetExhausted]:
    """How many sets were judged, one by one, before the budget was used up, and what was said then."""
    for number in range(sets):
        try:
            await core.judge([one_set(number)])
        except BudgetExhausted as error:
            return number, error
    pytest.fail("the budget was never used up")


@pytest.mark.parametrize(
    "limits",
    [
        BudgetSettings(tokens_per_run=3 * PRICE),
        BudgetSettings(tokens_per_day=3 * PRICE),
        BudgetSettings(money_per_run=3 * PRICE / 1e6 * 2.5, price_per_million_tokens=2.5),
        BudgetSettings(money_per_day=3 * PRICE / 1e6 * 2.5, price_per_million_tokens=2.5, tokens_per_run=10**9),
    ],
)
async def test_it_judges_until_the_lowest_limit_and_then_asks_nothing(limits: BudgetSettings) -> None:
    backend = FakeBackend()
    judged, error = await spend_all(Budgeted(make_judge(backend), Budget(limits, NoCache())))
    assert judged == backend.asked == 3
    assert str(3 * PRICE) in str(error)
    assert (error.retry_after_s is None) == bool(limits.tokens_per_run == 3 * PRICE or limits.money_per_run)


async def test_a_day_is_shared_by_replicas_survives_a_restart_and_ends_at_midnight_utc(tmp_path: Path) -> None:
    clock, limits = Clock(), BudgetSettings(tokens_per_day=4 * PRICE)

    def replica() -> Budgeted:
        return Budgeted(make_judge(), Budget(limits, SqlCache(str(tmp_path / "c.sqlite")), clock=clock))

    one, other = replica(), replica()
    for core in (one, other, one, other):
        await core.judge([one_set(1)])
    for core in (one, other, replica()):
        with pytest.raises(BudgetExhausted, match="00:00 UTC") as caught:
            await core.judge([one_set(2)])
        assert caught.value.retry_after_s == pytest.approx(0.3)
    clock.now = datetime(2025, 3, 2, 0, 0, 0, 1, tzinfo=UTC)
    await one.judge([one_set(2)])


async def test_labels_from_the_cache_are_free(tmp_path: Path) -> None:
    core = Budgeted(
        make_judge(cache=tmp_path / "c.sqlite"), Budget(BudgetSettings(tokens_per_run=2 * PRICE), NoCache())
    )
    for _ in range(10):
        await core.judge([one_set(0)])
    await core.judge([one_set(1)])
    with pytest.raises(BudgetExhausted):
        await core.judge([one_set(2)])


async def test_what_could_not_be_counted_is_counted_later() -> None:
    class Broken(NoCache):
        down = True

        def spend(self, day: str, tokens: int) -> None:
            if self.down:
                raise BackendUnavailable("the cache is locked")
            super().spend(day, tokens)

    store = Broken()
    core = Budgeted(make_judge(), Budget(BudgetSettings(tokens_per_day=10**9), store, clock=Clock()))
    await core.judge([one_set(0)])
    store.down = False
    await core.judge([one_set(1)])
    assert store.spent("2025-03-01") == 2 * PRICE


async def queued(broker: MemoryBroker, count: int) -> None:
    for number in range(count):
        payload, headers = wire.encode(one_set(number))
        await broker.publish(Queue.RERANKED.subject("docs"), payload, headers, f"m{number}")


async def judged_ids(broker: MemoryBroker) -> list[str]:
    found = []
    for message in await broker.fetch(Queue.JUDGED, 100, 0.05):
        record = wire.decode(message.payload, message.headers)
        assert isinstance(record, JudgedSet)
        found.append(record.candidate_set.query.query_id)
        await message.ack()
    return found


async def counts(broker: MemoryBroker) -> tuple[int, int]:
    """Messages that wait for the judge, and dead letters."""
    await asyncio.sleep(0.05)
    stats = {each.queue: each.pending + each.held for each in await broker.stats()}
    return stats[Queue.RERANKED], stats[Queue.DLQ]


async def test_a_used_up_run_ends_the_worker_and_later_runs_do_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    broker = MemoryBroker()
    await queued(broker, 5)
    found: list[str] = []
    for left in (3, 1, 0):
        core = Budgeted(make_judge(), Budget(BudgetSettings(tokens_per_run=2 * PRICE), NoCache()))
        settings = WORKER.model_copy(update={"max_attempts": 5})
        worker = StageWorker(JudgeStage(core), broker, settings)
        if left:
            await worker.run()
        else:
            task = asyncio.create_task(worker.run())
            await eventually(lambda: _acked(broker))
            worker.stop()
            await task
        found += await judged_ids(broker)
        assert await counts(broker) == (left, 0)
    assert sorted(found) == [f"q{n}" for n in range(5)]
    assert "stopping: budget used up" in caplog.text
    assert "start again to go on" in caplog.text
    await broker.close()


async def _acked(broker: MemoryBroker) -> bool:
    return await _left(broker, 0)


async def _left(broker: MemoryBroker, count: int) -> bool:
    return await counts(broker) == (count, 0)


async def test_a_used_up_day_pauses_without_an_attempt_and_goes_on_after_midnight() -> None:
    """With one attempt in all: a pause that counted as one would be a dead letter."""
    broker, clock = MemoryBroker(), Clock()
    await queued(broker, 4)
    core = Budgeted(make_judge(), Budget(BudgetSettings(tokens_per_day=2 * PRICE), NoCache(), clock=clock))
    worker = StageWorker(JudgeStage(core), broker, WORKER)
    task = asyncio.create_task(worker.run())
    await eventually(lambda: _left(broker, 2))
    assert sorted(await judged_ids(broker)) == ["q0", "q1"]
    clock.now = datetime(2025, 3, 2, tzinfo=UTC)
    await eventually(lambda: _acked(broker))
    assert sorted(await judged_ids(broker)) == ["q2", "q3"]
    worker.stop()
    await task
    await broker.close()


async def test_a_paused_worker_that_is_told_to_stop_returns_what_it_holds() -> None:
    broker = MemoryBroker()
    await queued(broker, 3)
    core = Budgeted(
        make_judge(), Budget(BudgetSettings(tokens_per_day=1), NoCache(), clock=Clock(EVENING.replace(hour=1)))
    )
    await core.judge([one_set(9)])
    worker = StageWorker(JudgeStage(core), broker, WORKER.model_copy(update={"max_attempts": 2}))
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.2)
    worker.stop()
    await task
    assert await counts(broker) == (3, 0)
    assert await judged_ids(broker) == []
    await broker.close()


async def test_the_grpc_door_says_resource_exhausted_with_the_reason() -> None:
    core = Budgeted(make_judge(), Budget(BudgetSettings(tokens_per_run=1), NoCache()))
    await core.judge([one_set(0)])
    settings = JudgeSettings(backend="fake")
    context: ServiceContext[JudgeSettings, Budgeted] = ServiceContext("judge", settings, "test")
    context.core = core
    server = GrpcServer(GrpcSettings(), "qrelay.v1.JudgeService")
    judge_pb2_grpc.add_JudgeServiceServicer_to_server(JudgeServicer(context), server.raw)  # type: ignore[arg-type]
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        request = judge_pb2.JudgeRequest(candidate_sets=[wire.to_proto(one_set(1))])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await judge_pb2_grpc.JudgeServiceStub(channel).Judge(request)
    await server.drain(0)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "budget used up" in (caught.value.details() or "")
    assert "BUDGET" in str(caught.value.trailing_metadata())


async def test_the_settings_put_any_core_within_the_budget(tmp_path: Path) -> None:
    plain = load_core(JudgeSettings(backend="fake", data_dir=tmp_path))
    assert not isinstance(plain, Budgeted)
    plain.close()
    limits = BudgetSettings(tokens_per_day=1)
    core = load_core(JudgeSettings(backend="fake", data_dir=tmp_path, budget=limits))
    await core.judge([one_set(0)])
    with pytest.raises(BudgetExhausted):
        await core.judge([one_set(1)])
    assert core.info().details["budget a day"] == "1 prompt tokens"
    core.close()
    with pytest.raises(ConfigError, match=r"judge\.cache"):
        load_core(JudgeSettings(backend="fake", cache=":none:", budget=limits))


def test_money_without_a_price_is_refused() -> None:
    with pytest.raises(ValueError, match="price_per_million_tokens"):
        BudgetSettings(money_per_day=1)


async def test_a_core_that_fails_spends_nothing_and_closing_closes_both() -> None:
    closed: list[str] = []

    class Failing:
        async def judge(self, sets: Sequence[CandidateSet]) -> list[JudgedSet | QrelayError]:
            raise BackendUnavailable("down")

        def info(self) -> Info:
            return Info()

        def close(self) -> None:
            closed.append("core")

    class Store(NoCache):
        def close(self) -> None:
            closed.append("store")

    core = Budgeted(Failing(), Budget(BudgetSettings(tokens_per_run=1), Store()))
    for _ in range(2):
        with suppress(BackendUnavailable):
            await core.judge([one_set(0)])
    core.close()
    assert closed == ["core", "store"]
