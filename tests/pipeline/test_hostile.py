"""The four services' own stages among messages that none of them can take: on both brokers, into both ledgers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qrelay import wire
from qrelay.labels.ledger.dead_letters import DeadLetterEntry
from qrelay.labels.ledger.ledger import Ledger
from qrelay.runtime.topology import Queue
from qrelay.types import Query
from tests import samples
from tests.conftest import eventually
from tests.pipeline.harness import COLLECTION
from tests.pipeline.test_pipeline import four_stages
from tests.runtime.hostile import (
    UNREADABLE,
    a_collection_that_is_no_token,
    a_round_that_no_column_holds,
    dead_letter,
    enveloped,
    hostile,
    query_proto,
)

RECORDS = {
    "query": samples.query(100),
    "candidate set": samples.candidate_set(101),
    "judged set": samples.judged_set(102),
    "dead letter": dead_letter(103),
}


async def put(broker: Any, queue: Queue, number: int, payload: bytes, headers: dict[str, str]) -> None:
    await broker.publish(queue.subject(COLLECTION), payload, headers, f"hostile-{queue}-{number}")


async def put_good(broker: Any, count: int) -> None:
    for number in range(count):
        query = Query(f"good{number}", f"how does thing {number} work?", COLLECTION)
        payload, headers = wire.encode(query)
        await broker.publish(Queue.QUERIES.subject(COLLECTION), payload, headers, query.query_id)


def letters(ledger: Ledger) -> tuple[DeadLetterEntry, ...]:
    return ledger.list_dead_letters(None, True, 1000, "").entries


async def settled(broker: Any) -> bool:
    return all(each.lag == 0 for each in await broker.stats())


async def test_a_record_of_another_kind_is_a_dead_letter_on_every_queue(broker: Any, tmp_path: Path) -> None:
    misplaced = [(queue, each) for queue in Queue for each in RECORDS.values() if not isinstance(each, queue.carries)]
    async with four_stages(broker, tmp_path) as cores:
        for number, (queue, record) in enumerate(misplaced):
            await put(broker, queue, number, *wire.encode(record))
        await put_good(broker, 3)
        await eventually(lambda: len(letters(cores["sink"].ledger)) >= len(misplaced))
        await eventually(lambda: len(cores["sink"].ledger.query_states(COLLECTION, ["good0", "good1", "good2"])) == 3)
        await eventually(lambda: settled(broker))
        found = [entry.letter for entry in letters(cores["sink"].ledger)]
        states = cores["sink"].ledger.query_states(COLLECTION, ["good0", "good1", "good2"])
    assert set(states.values()) == {"committed"}
    assert sorted(letter.subject for letter in found) == sorted(queue.subject(COLLECTION) for queue, _ in misplaced)
    assert {(letter.reason, letter.attempts) for letter in found} == {("malformed", 1)}


@pytest.mark.parametrize("queue", Queue)
async def test_every_queue_may_hold_anything(broker: Any, tmp_path: Path, queue: Queue) -> None:
    kinds: tuple[Callable[[int], Any], ...] = UNREADABLE
    async with four_stages(broker, tmp_path) as cores:
        for number, message in enumerate(hostile(2 * len(kinds), kinds)):
            await put(broker, queue, number, *message)
        await put_good(broker, 3)
        await eventually(lambda: len(letters(cores["sink"].ledger)) >= 2 * len(kinds))
        await eventually(lambda: settled(broker))
        found = [entry.letter for entry in letters(cores["sink"].ledger)]
        states = cores["sink"].ledger.query_states(COLLECTION, ["good0", "good1", "good2"])
    assert set(states.values()) == {"committed"}
    assert len(found) == 2 * len(kinds)
    assert {letter.subject for letter in found} == {queue.subject(COLLECTION)}


async def test_a_dead_letter_ends_in_any_ledger_once_whatever_its_query_was(
    broker: Any, tmp_path: Path, ledger_url: str
) -> None:
    made = [make(n) for n in range(6) for make in (a_round_that_no_column_holds, a_collection_that_is_no_token)]
    async with four_stages(broker, tmp_path, QRELAY_SINK__LEDGER=ledger_url) as cores:
        for number, message in enumerate(made):
            await put(broker, Queue.QUERIES, number, *message)
        await eventually(lambda: len(letters(cores["sink"].ledger)) >= len(made))
        await eventually(lambda: settled(broker))
        found = letters(cores["sink"].ledger)
    assert len(found) == len(made)


async def test_an_id_too_long_for_an_index_is_committed_or_a_dead_letter(
    broker: Any, tmp_path: Path, ledger_url: str
) -> None:
    """PostgreSQL's indexes hold 2,704 bytes, SQLite's any."""
    query_id = "".join(map(chr, range(0x4E00, 0x4E00 + 4000)))
    judged = {"candidate_set": {"query": query_proto(1, query_id=query_id)}}
    async with four_stages(broker, tmp_path, QRELAY_SINK__LEDGER=ledger_url) as cores:
        await put(broker, Queue.JUDGED, 1, *enveloped(judged_set=judged))
        await eventually(lambda: cores["sink"].ledger.query_states("docs"))
        await eventually(lambda: settled(broker))
        states = cores["sink"].ledger.query_states("docs")
        reasons = [entry.letter.reason for entry in letters(cores["sink"].ledger)]
    assert states == ({query_id[:256]: "dead"} if reasons else {query_id: "committed"})
    assert reasons in ([], ["malformed"])


async def test_a_foreign_letter_that_does_not_fit_is_recorded_inside_one_that_does(
    broker: Any, tmp_path: Path, ledger_url: str
) -> None:
    odd = {
        "dead_letter_id": "x" * 50_000,
        "stage": "s",
        "subject": "any",
        "query_id": "".join(map(chr, range(1000, 9000))),
    }
    message = enveloped(dead_letter={**odd, "failed_at": {"seconds": 1}})
    async with four_stages(broker, tmp_path, QRELAY_SINK__LEDGER=ledger_url) as cores:
        await put(broker, Queue.DLQ, 1, *message)
        await put(broker, Queue.DLQ, 2, *wire.encode(dead_letter(1)))
        await eventually(lambda: len(letters(cores["sink"].ledger)) >= 2)
        await eventually(lambda: settled(broker))
        found = [entry.letter for entry in letters(cores["sink"].ledger)]
    assert len(found) == 2
    assert "l1" in {letter.dead_letter_id for letter in found}
