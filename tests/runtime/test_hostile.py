"""Nothing stops a stage: whatever lies on its queue or is raised, each message ends and its neighbours go on."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from qrelay.identity import valid_collection
from qrelay.runtime.memory import MemoryBroker
from qrelay.runtime.stage import Work
from qrelay.runtime.topology import Queue
from qrelay.types import DeadLetter
from tests import samples
from tests.conftest import eventually
from tests.runtime.hostile import FAILURES, MISPLACED, UNREADABLE, UNSPEAKABLE, Published, hostile, judged
from tests.runtime.test_worker import FAST, EchoStage, collect, idle, publish, running

SUBJECT = Queue.QUERIES.subject("docs")


async def put(broker: Any, number: int, message: Published, queue: Queue = Queue.QUERIES) -> None:
    payload, headers = message
    await broker.publish(queue.subject("docs"), payload, headers, f"hostile-{number}")


@pytest.mark.parametrize("make", [*UNREADABLE, *MISPLACED], ids=lambda make: make.__name__)
async def test_a_message_that_no_stage_can_take_is_a_dead_letter_and_its_neighbours_go_on(
    broker: Any, make: Any
) -> None:
    stage = EchoStage()
    await put(broker, 1, make(1))
    await publish(broker, samples.query(0), samples.query(1))
    async with running(stage, broker):
        found = await collect(broker, Queue.RETRIEVED, 2)
        (letter,) = await collect(broker, Queue.DLQ, 1)
        await eventually(lambda: idle(broker))
    assert {each.query.query_id for each in found} == {"q0", "q1"}
    assert sorted(chain.from_iterable(stage.batches)) == ["q0", "q1"], "the stage never sees it"
    assert (letter.payload, letter.attempts, letter.subject) == (make(1)[0], 1, SUBJECT)


@pytest.mark.parametrize("how", FAILURES)
async def test_however_a_stage_fails_its_item_is_a_dead_letter_after_the_last_attempt(broker: Any, how: str) -> None:
    def answer(work: Work) -> Any:
        return FAILURES[how](work) if work.record.query_id == "q1" else None

    await publish(broker, *(samples.query(i) for i in range(3)))
    async with running(EchoStage(answer), broker):
        found = await collect(broker, Queue.RETRIEVED, 2)
        (letter,) = await collect(broker, Queue.DLQ, 1)
        await eventually(lambda: idle(broker))
    assert {each.query.query_id for each in found} == {"q0", "q2"}
    assert isinstance(letter, DeadLetter)
    assert (letter.query_id, letter.attempts <= FAST.max_attempts + 1) == ("q1", True)


@pytest.mark.parametrize("fields", UNSPEAKABLE.values(), ids=UNSPEAKABLE)
async def test_an_answer_that_no_message_can_hold_is_a_dead_letter_and_nothing_is_held(
    broker: Any, fields: dict[str, Any]
) -> None:
    class Judging(EchoStage):
        target = Queue.JUDGED

    def answer(work: Work) -> Any:
        number = int(work.record.query_id[1:])
        return judged(number, **fields) if number == 1 else samples.judged_set(number)

    await publish(broker, *(samples.query(i) for i in range(3)))
    async with running(Judging(answer), broker):
        found = await collect(broker, Queue.JUDGED, 2)
        (letter,) = await collect(broker, Queue.DLQ, 1)
        await eventually(lambda: idle(broker))
    assert {each.candidate_set.query.query_id for each in found} == {"q0", "q2"}
    assert (letter.query_id, letter.attempts <= FAST.max_attempts) == ("q1", True)


async def test_among_as_many_hostile_messages_every_good_one_is_settled(broker: Any) -> None:
    count = 100
    for number, message in enumerate(hostile(count)):
        await put(broker, number, message)
        await publish(broker, samples.query(number))
    letters: list[Any] = []
    async with running(EchoStage(), broker):
        found = await collect(broker, Queue.RETRIEVED, count)
        while len(letters) < count:
            for message in await broker.fetch(Queue.DLQ, count, 0.2):
                letters.append(message)
                await message.ack()
        await eventually(lambda: idle(broker))
    assert {each.query.query_id for each in found} == {f"q{n}" for n in range(count)}
    assert all(valid_collection(letter.subject.split(".")[2]) for letter in letters)
    assert await idle(broker, Queue.DLQ)


async def test_a_batch_of_hostile_messages_delays_its_neighbours_by_that_batch_alone() -> None:
    broker = MemoryBroker()
    stage = EchoStage()
    for number, message in enumerate(hostile(FAST.max_items, UNREADABLE)):
        await put(broker, number, message)
    await publish(broker, *(samples.query(n) for n in range(4)))
    async with running(stage, broker):
        assert len(await collect(broker, Queue.RETRIEVED, 4)) == 4
        assert len(await collect(broker, Queue.DLQ, FAST.max_items)) == FAST.max_items
    assert [each for batch in stage.batches for each in batch] == ["q0", "q1", "q2", "q3"]
    assert len(stage.batches) <= 2  # one that comes where nothing is in hand goes at once


async def test_a_stage_that_cannot_say_what_an_item_costs_fails_over_that_item_alone(broker: Any) -> None:
    class Unsure(EchoStage):
        def cost(self, record: Any) -> int:
            return int("nan") if record.query_id == "q1" else 1

    await publish(broker, *(samples.query(n) for n in range(3)))
    async with running(Unsure(), broker):
        found = await collect(broker, Queue.RETRIEVED, 2)
        (letter,) = await collect(broker, Queue.DLQ, 1)
        await eventually(lambda: idle(broker))
    assert {each.query.query_id for each in found} == {"q0", "q2"}
    assert (letter.query_id, letter.reason, letter.attempts) == ("q1", "internal", FAST.max_attempts)
