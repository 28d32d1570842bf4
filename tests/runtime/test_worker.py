"""The worker's guarantee, on both brokers: every message ends once, whatever the stage and the broker do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from qrelay import wire
from qrelay.config import WorkerSettings
from qrelay.errors import (
    AnswersPending,
    BackendUnavailable,
    EndpointPaused,
    InvalidQuery,
    QrelayError,
    StoreUnavailable,
)
from qrelay.runtime import telemetry
from qrelay.runtime.memory import Faults, MemoryBroker
from qrelay.runtime.stage import Record, Work
from qrelay.runtime.topology import Queue
from qrelay.runtime.worker import StageWorker
from qrelay.types import CandidateSet, DeadLetter, Query
from tests import samples
from tests.conftest import eventually
from tests.simulation.loop import SimulatedLoop, in_simulated_time

FAST = WorkerSettings(max_items=4, max_delay_s=0.01, retry_delays_s=(0.01,), max_attempts=3, drain_s=5)


class EchoStage:
    """queries -> retrieved, with a hook a test can fail in."""

    name = "retriever"
    source = Queue.QUERIES
    target = Queue.RETRIEVED
    read = staticmethod(wire.from_proto)

    def __init__(self, answer: Callable[[Work], Any] = lambda work: None) -> None:
        self.answer = answer
        self.batches: list[list[str]] = []

    def cost(self, record: Query) -> int:
        return 1

    async def handle(self, works: Sequence[Work]) -> Sequence[Record | QrelayError | None]:
        self.batches.append([work.record.query_id for work in works])
        outcomes = []
        for work in works:
            outcome = self.answer(work)
            outcomes.append(await outcome if asyncio.iscoroutine(outcome) else outcome)
        return [
            outcome or CandidateSet(work.record, samples.candidates(2), "v1")
            for outcome, work in zip(outcomes, works, strict=True)
        ]


@asynccontextmanager
async def running(
    stage: EchoStage, broker: Any, worker_settings: WorkerSettings = FAST
) -> AsyncIterator[StageWorker]:
    worker = StageWorker(stage, broker, worker_settings)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await task


async def publish(broker: Any, *queries: Query) -> None:
    for query in queries:
        payload, headers = wire.encode(query)
        await broker.publish(Queue.QUERIES.subject(query.collection), payload, headers, f"feed-{query.query_id}")


async def collect(broker: Any, queue: Queue, count: int) -> list[Any]:
    """The first `count` records of a queue."""
    records: list[Any] = []
    while len(records) < count:
        for message in await broker.fetch(queue, count, 0.2):
            records.append(wire.decode(message.payload, message.headers))
            await message.ack()
    return records


async def idle(broker: Any, queue: Queue = Queue.QUERIES) -> bool:
    stats = {each.queue: each for each in await broker.stats()}
    return bool(stats[queue].lag == 0)


async def test_every_query_comes_out_once_with_its_trace(broker: Any) -> None:
    stage = EchoStage()
    async with running(stage, broker):
        await publish(broker, *(samples.query(i) for i in range(10)))
        found = await collect(broker, Queue.RETRIEVED, 10)
        await eventually(lambda: idle(broker))
    assert sorted(each.query.query_id for each in found) == sorted(f"q{i}" for i in range(10))
    assert all(each.trace[0].stage == "retriever" for each in found)
    assert max(len(batch) for batch in stage.batches) <= 4


async def test_a_stage_may_read_its_messages_itself_but_for_those_of_other_queues(broker: Any) -> None:
    class Reads(EchoStage):
        def read(self, message: Any) -> Query:
            return replace(wire.from_proto(message), text="as it reads it")

    stray, headers = wire.encode(samples.candidate_set())
    await broker.publish(Queue.QUERIES.subject("docs"), stray, headers, "stray")
    async with running(Reads(), broker):
        await publish(broker, samples.query(0))
        (found,) = await collect(broker, Queue.RETRIEVED, 1)
        (letter,) = await collect(broker, Queue.DLQ, 1)
    assert found.query.text == "as it reads it"
    assert "a CandidateSet on the queue queries" in letter.detail


async def test_a_message_that_comes_alone_waits_for_nobody(broker: Any) -> None:
    for_ever = FAST.model_copy(update={"max_delay_s": 86_400.0})
    async with running(EchoStage(), broker, for_ever) as worker:
        for number in range(3):
            await eventually(lambda: not worker._held)
            await publish(broker, samples.query(number))
            (record,) = await collect(broker, Queue.RETRIEVED, 1)
            assert record.query.query_id == f"q{number}"


async def test_nobody_waits_for_company_when_nothing_is_handled_any_more(broker: Any) -> None:
    for_ever = FAST.model_copy(update={"max_delay_s": 86_400.0})
    async with running(EchoStage(), broker, for_ever):
        for first in range(0, 15, 3):  # fewer than a batch: some come while the first of them is handled
            await publish(broker, *(samples.query(first + n) for n in range(3)))
            found = await collect(broker, Queue.RETRIEVED, 3)
            assert {each.query.query_id for each in found} == {f"q{first + n}" for n in range(3)}


def test_what_waited_for_company_goes_at_the_moment_when_the_batch_before_it_ends() -> None:
    async def claim(broker: MemoryBroker, loop: SimulatedLoop) -> None:
        began: list[float] = []

        async def takes_long() -> None:
            began.append(loop.time())
            await asyncio.sleep(2.5)

        for_ever = FAST.model_copy(update={"max_delay_s": 86_400.0})
        stage = EchoStage(lambda _: takes_long())
        async with running(stage, broker, for_ever):
            for number in range(3):  # the first is handled before another is fetched
                await publish(broker, samples.query(number))
                await asyncio.sleep(5.0 if number == 0 else 1.0)
            await collect(broker, Queue.RETRIEVED, 3)
        assert [len(batch) for batch in stage.batches] == [1, 1, 1]
        assert began[2] - began[1] == pytest.approx(2.5, abs=0.01)

    in_simulated_time(claim)


async def test_a_raising_batch_is_tried_one_by_one_so_that_neighbours_survive(broker: Any) -> None:
    def answer(work: Work) -> None:
        if work.record.query_id == "q2":
            raise KeyError("poison")

    stage = EchoStage(answer)
    await publish(broker, *(samples.query(i) for i in range(4)))
    async with running(stage, broker):
        found = await collect(broker, Queue.RETRIEVED, 3)
        (letter,) = await collect(broker, Queue.DLQ, 1)
        await eventually(lambda: idle(broker))
    assert sorted(each.query.query_id for each in found) == ["q0", "q1", "q3"]
    assert (letter.query_id, letter.reason, letter.attempts) == ("q2", "internal", 3)


async def test_bad_input_is_a_dead_letter_at_once_with_the_original_to_replay(broker: Any) -> None:
    query = samples.query(7)
    async with running(EchoStage(lambda work: InvalidQuery("too long: make it shorter")), broker):
        await publish(broker, query)
        (letter,) = await collect(broker, Queue.DLQ, 1)
        await eventually(lambda: idle(broker))
    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.detail, letter.attempts) == ("invalid_query", "too long: make it shorter", 1)
    assert wire.decode(letter.payload, letter.headers) == query
    assert letter.subject == Queue.QUERIES.subject("docs")


async def test_a_transient_error_is_retried_then_dead_lettered(broker: Any) -> None:
    seen: list[tuple[int, bool]] = []

    def answer(work: Work) -> QrelayError | None:
        seen.append((work.attempt, work.last_attempt))
        ends_well = work.record.query_id == "q1" and work.attempt == 2
        return None if ends_well else BackendUnavailable("endpoint answers 503")

    async with running(EchoStage(answer), broker):
        await publish(broker, samples.query(0))
        (letter,) = await collect(broker, Queue.DLQ, 1)
        assert seen == [(1, False), (2, False), (3, True)]
        await publish(broker, samples.query(1))
        (found,) = await collect(broker, Queue.RETRIEVED, 1)
    assert (letter.reason, letter.attempts) == ("backend_unavailable", 3)
    assert found.query.query_id == "q1"


async def test_an_outage_of_the_store_holds_messages_and_counts_no_attempt(broker: Any) -> None:
    tries = 0

    def answer(work: Work) -> None:
        nonlocal tries
        tries += 1
        if tries <= FAST.max_attempts * 3:
            raise StoreUnavailable("the database restarts", retry_after_s=0.01)

    async with running(EchoStage(answer), broker):
        await publish(broker, samples.query(0))
        (found,) = await collect(broker, Queue.RETRIEVED, 1)
        await eventually(lambda: idle(broker))
    assert found.query.query_id == "q0"
    assert await idle(broker, Queue.DLQ)


async def test_what_is_on_hold_waits_alone_and_its_neighbours_in_the_batch_go_on(broker: Any) -> None:
    open_again = False

    def answer(work: Work) -> QrelayError | None:
        held = work.record.query_id == "q1" and not open_again
        return EndpointPaused("the endpoint asks for a pause", retry_after_s=0.01) if held else None

    async with running(EchoStage(answer), broker) as worker:
        await publish(broker, *(samples.query(n) for n in range(3)))
        found = await collect(broker, Queue.RETRIEVED, 2)
        await eventually(lambda: worker.on_hold is not None)
        open_again = True
        found += await collect(broker, Queue.RETRIEVED, 1)
        await eventually(lambda: idle(broker))
        await eventually(lambda: worker.on_hold is None)
    assert sorted(each.query.query_id for each in found[:2]) == ["q0", "q2"]
    assert found[2].query.query_id == "q1"
    assert await idle(broker, Queue.DLQ)


async def test_messages_that_came_often_wait_for_ordered_answers_side_by_side() -> None:
    answered = False

    def answer(_: Work) -> QrelayError | None:
        return None if answered else AnswersPending("waits for its batch", retry_after_s=0.01)

    broker, patient = MemoryBroker(), FAST.model_copy(update={"max_attempts": 9, "batches_in_flight": 8})
    await publish(broker, *(samples.query(n) for n in range(4)))
    for _ in range(4):
        stage = EchoStage(answer)
        async with running(stage, broker, patient):
            await eventually(lambda: len({each for batch in stage.batches for each in batch}) == 4)  # noqa: B023
    answered = True
    async with running(EchoStage(answer), broker, patient):
        found = await collect(broker, Queue.RETRIEVED, 4)
    assert sorted(each.query.query_id for each in found) == ["q0", "q1", "q2", "q3"]
    assert await idle(broker, Queue.DLQ)


async def test_a_hold_is_told_by_the_workers_own_clock() -> None:
    broker = MemoryBroker()
    stage = EchoStage(lambda _: EndpointPaused("the endpoint asks for a pause", retry_after_s=60.0))
    worker = StageWorker(stage, broker, FAST, now=lambda: samples.NOW)
    task = asyncio.create_task(worker.run())
    await publish(broker, samples.query(0))
    await eventually(lambda: worker.on_hold is not None)
    assert worker.on_hold is not None
    assert (worker.on_hold.since, worker.on_hold.until) == (samples.NOW, samples.NOW + timedelta(minutes=1))
    worker.stop()
    await task


async def test_a_hold_may_last_for_thousands_of_tries() -> None:
    tries = 0

    def answer(work: Work) -> None:
        nonlocal tries
        tries += 1
        if tries < 3000:
            raise StoreUnavailable("the database restarts", retry_after_s=0.0)

    broker = MemoryBroker()
    async with running(EchoStage(answer), broker):
        await publish(broker, samples.query(0))
        (found,) = await collect(broker, Queue.RETRIEVED, 1)
    assert (found.query.query_id, tries) == ("q0", 3000)


class LetterStage(EchoStage):
    """Records dead letters, where its store lets it."""

    name = "sink-dead-letters"
    source = Queue.DLQ
    target = None

    async def handle(self, works: Sequence[Work]) -> Sequence[Record | QrelayError | None]:
        return [self.answer(work) for work in works]


async def test_a_dead_letter_that_cannot_be_recorded_is_never_buried_in_another(broker: Any) -> None:
    attempts: list[int] = []

    def answer(work: Work) -> QrelayError | None:
        attempts.append(work.attempt)
        return BackendUnavailable("no database") if len(attempts) <= FAST.max_attempts + 2 else None

    async with running(EchoStage(lambda work: InvalidQuery("odd")), broker):
        await publish(broker, samples.query(0))
        async with running(LetterStage(answer), broker):
            await eventually(lambda: len(attempts) > FAST.max_attempts + 2)
            await eventually(lambda: idle(broker, Queue.DLQ))
    assert attempts == list(range(1, FAST.max_attempts + 4))


async def test_a_message_that_is_no_record_is_a_dead_letter(broker: Any) -> None:
    async with running(EchoStage(), broker):
        await broker.publish(Queue.QUERIES.subject("docs"), b"\xff garbage", {}, "x")
        (letter,) = await collect(broker, Queue.DLQ, 1)
        await eventually(lambda: idle(broker))
    assert (letter.reason, letter.collection, letter.payload) == ("malformed", "docs", b"\xff garbage")


async def test_an_output_above_the_limit_is_a_dead_letter_that_names_it() -> None:
    broker = MemoryBroker(max_message_bytes=3000)

    def answer(work: Work) -> CandidateSet:
        text = "".join(random.Random(1).choices("abcdefghijklmnop0123456789", k=20_000))
        return CandidateSet(work.record, samples.candidates(1), text)

    async with running(EchoStage(answer), broker):
        await publish(broker, samples.query(0))
        (letter,) = await collect(broker, Queue.DLQ, 1)
    assert letter.reason == "oversized"
    assert "max_message_bytes is 3000" in letter.detail


async def test_a_set_above_the_limit_loses_its_largest_texts_and_no_query() -> None:
    broker = MemoryBroker(max_message_bytes=20_000)
    noise = [random.Random(n).randbytes(size).hex() for n, size in enumerate((4000, 9000, 9000, 3000))]
    before = telemetry.TEXTS_DROPPED.labels("retriever")._value.get()

    def answer(work: Work) -> CandidateSet:
        given = [
            replace(c, passage=replace(c.passage, text=text))
            for c, text in zip(samples.candidates(4), noise, strict=True)
        ]
        return CandidateSet(work.record, tuple(given), "v1")

    async with running(EchoStage(answer), broker):
        await publish(broker, samples.query(0))
        (found,) = await collect(broker, Queue.RETRIEVED, 1)
        await eventually(lambda: idle(broker))
    assert [c.passage.text for c in found.candidates] == [noise[0], noise[1], "", noise[3]]
    assert [c.passage.passage_id for c in found.candidates] == [c.passage.passage_id for c in samples.candidates(4)]
    assert telemetry.TEXTS_DROPPED.labels("retriever")._value.get() - before == 1


async def test_a_message_whose_workers_died_too_often_is_a_dead_letter_unhandled(broker: Any) -> None:
    await publish(broker, samples.query(0))
    for _ in range(FAST.max_attempts):
        (message,) = await broker.fetch(Queue.QUERIES, 1, 5)
        await message.retry(0)
    stage = EchoStage()
    async with running(stage, broker):
        (letter,) = await collect(broker, Queue.DLQ, 1)
    assert (letter.reason, stage.batches) == ("exhausted", [])


async def test_an_exhausted_message_is_a_dead_letter_of_its_query_before_a_neighbour_can_kill_the_worker(
    broker: Any,
) -> None:
    await publish(broker, samples.query(0))
    for _ in range(FAST.max_attempts + 1):
        (message,) = await broker.fetch(Queue.QUERIES, 1, 5)
        await message.retry(0)
    await publish(broker, samples.query(1))
    stage = EchoStage(lambda work: _after(asyncio.Event()))
    pairs = FAST.model_copy(update={"max_items": 2, "max_delay_s": 1.0, "drain_s": 0.1})
    async with running(stage, broker, pairs):
        await eventually(lambda: stage.batches)
        await publish(broker, samples.query(2), samples.query(3))
        await eventually(lambda: len(stage.batches) == 2)
        assert not await idle(broker, Queue.DLQ), "its letter is stored already"
        (letter,) = await collect(broker, Queue.DLQ, 1)
    assert (stage.batches[0], letter.query_id, letter.reason) == (["q1"], "q0", "exhausted")


async def test_a_message_that_may_have_ended_the_process_is_handled_with_nothing_beside_it(broker: Any) -> None:
    await publish(broker, *(samples.query(i) for i in range(4)))
    for _ in range(2):
        for message in [message for _ in range(4) for message in await broker.fetch(Queue.QUERIES, 1, 5)]:
            await message.retry(0)
    handled: list[str] = []

    async def lasting(work: Work) -> None:
        handled.append("begin")
        await asyncio.sleep(0.01)
        handled.append("end")

    stage = EchoStage(lasting)
    async with running(stage, broker, FAST.model_copy(update={"max_items": 4})):
        await collect(broker, Queue.RETRIEVED, 4)
    assert [len(batch) for batch in stage.batches] == [1] * 4
    assert handled == ["begin", "end"] * 4


async def test_a_full_next_hop_holds_the_worker_back_until_there_is_room() -> None:
    broker = MemoryBroker(max_stream_bytes=900)
    async with running(EchoStage(), broker):
        await publish(broker, *(samples.query(i) for i in range(4)))
        await asyncio.sleep(0.5)
        assert not await idle(broker)
        found = await collect(broker, Queue.RETRIEVED, 4)
        await eventually(lambda: idle(broker))
    assert len({each.query.query_id for each in found}) == 4


async def test_a_drain_finishes_what_is_handled_and_returns_what_waits(broker: Any) -> None:
    gate = asyncio.Event()
    stage = EchoStage(lambda work: _after(gate))
    slow = FAST.model_copy(update={"max_items": 1, "batches_in_flight": 1})
    await publish(broker, *(samples.query(i) for i in range(3)))
    worker = StageWorker(stage, broker, slow)
    task = asyncio.create_task(worker.run())
    await eventually(lambda: len(stage.batches) == 1)
    worker.stop()
    gate.set()
    await task
    handled = len(stage.batches)
    assert len(await collect(broker, Queue.RETRIEVED, handled)) == handled
    async with running(EchoStage(), broker):
        rest = await collect(broker, Queue.RETRIEVED, 3 - handled)
    assert len(rest) == 3 - handled


async def _after(gate: asyncio.Event) -> None:
    await gate.wait()


async def test_a_drain_that_takes_too_long_returns_the_message_unharmed(broker: Any) -> None:
    never = asyncio.Event()
    await publish(broker, samples.query(0))
    stage = EchoStage(lambda work: _after(never))
    async with running(stage, broker, FAST.model_copy(update={"drain_s": 0.1})):
        await eventually(lambda: stage.batches)
    async with running(EchoStage(), broker):
        (found,) = await collect(broker, Queue.RETRIEVED, 1)
    assert found.query.query_id == "q0"


async def test_a_worker_that_is_told_to_stop_waits_for_no_free_place(broker: Any) -> None:
    """Else the batch in hand, and the next one after it, would each take as long as they like before the drain."""
    never = asyncio.Event()
    stage = EchoStage(lambda work: _after(never))
    narrow = FAST.model_copy(update={"max_items": 1, "batches_in_flight": 1, "drain_s": 0.1})
    await publish(broker, *(samples.query(i) for i in range(3)))
    worker = StageWorker(stage, broker, narrow)
    task = asyncio.create_task(worker.run())
    await eventually(lambda: stage.batches)
    await asyncio.sleep(0.1)
    worker.stop()
    await task
    assert worker.gave_up and len(stage.batches) == 1
    async with running(EchoStage(), broker):
        assert len(await collect(broker, Queue.RETRIEVED, 3)) == 3


async def test_the_drain_says_what_became_of_every_held_message(
    broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    never, gate = asyncio.Event(), asyncio.Event()
    stage = EchoStage(lambda work: _after(gate if work.record.query_id == "q0" else never))
    each_alone = FAST.model_copy(update={"max_items": 1, "batches_in_flight": 2, "drain_s": 1.0})
    await publish(broker, *(samples.query(i) for i in range(2)))
    worker = StageWorker(stage, broker, each_alone)
    task = asyncio.create_task(worker.run())
    await eventually(lambda: len(stage.batches) == 2)
    with caplog.at_level("INFO", "qrelay.runtime.worker"):
        worker.stop()
        gate.set()
        await task
    (said,) = (record for record in caplog.records if record.message == "drained")
    found = {name: getattr(said, name) for name in ("stage", "held", "finished", "returned", "unconfirmed")}
    assert found == {"stage": "retriever", "held": 2, "finished": 1, "returned": 1, "unconfirmed": 0}
    assert said.__dict__["seconds"] >= 1.0


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_with_every_accident_at_once_each_query_still_ends_exactly_once(seed: int) -> None:
    asyncio.run(_accidents(seed))


async def _accidents(seed: int) -> None:
    faults = Faults(0.2, 0.2, 0.2, 0.2, 0.2, seed=seed)
    broker = MemoryBroker(faults=faults)
    queries = [samples.query(i) for i in range(12)]
    for query in queries:
        while True:
            try:
                await publish(broker, query)
                break
            except QrelayError:
                continue

    def answer(work: Work) -> QrelayError | None:
        return InvalidQuery("odd") if int(work.record.query_id[1:]) % 3 == 0 else None

    lenient = FAST.model_copy(update={"max_attempts": 1000})
    async with running(EchoStage(answer), broker, lenient):
        while not await idle(broker):
            broker.redeliver_held(Queue.QUERIES)
            await asyncio.sleep(0.05)
    faults.ack_lost = faults.duplicate_delivery = 0.0
    found = [each.query.query_id for each in await collect(broker, Queue.RETRIEVED, 8)]
    dead = [each.query_id for each in await collect(broker, Queue.DLQ, 4)]
    assert sorted(found) == sorted(f"q{i}" for i in range(12) if i % 3)
    assert sorted(dead) == ["q0", "q3", "q6", "q9"]
    assert await idle(broker, Queue.RETRIEVED)
    assert await idle(broker, Queue.DLQ)


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


async def test_a_trace_crosses_the_queue(broker: Any, spans: InMemorySpanExporter) -> None:
    spans.clear()
    query = samples.query(0)
    payload, headers = wire.encode(query)
    with telemetry.tracer().start_as_current_span("feed"):
        telemetry.inject_context(headers)
    async with running(EchoStage(), broker):
        await broker.publish(Queue.QUERIES.subject("docs"), payload, headers, "traced")
        (message,) = await broker.fetch(Queue.RETRIEVED, 1, 10)
        await eventually(lambda: len(spans.get_finished_spans()) >= 2)
    by_name = {span.name: span for span in spans.get_finished_spans()}
    feed, process = by_name["feed"], by_name["retriever process"]
    assert process.context.trace_id == feed.context.trace_id
    assert process.parent is not None
    assert process.parent.span_id == feed.context.span_id
    assert f"{process.context.span_id:016x}" in message.headers["traceparent"]
