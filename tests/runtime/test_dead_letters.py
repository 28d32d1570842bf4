"""A dead letter always fits: into a message of every broker, into both databases, whatever its original was."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrelay import wire
from qrelay.config import NatsSettings
from qrelay.errors import InternalError, QrelayError
from qrelay.labels.ledger.ledger import Ledger
from qrelay.runtime.dead_letters import dead_letter, letter_subject, portable
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import DEAD_LETTER_MARGIN, Queue, queue_of
from qrelay.types import MAX_ROUND, Query
from tests import samples
from tests.conftest import eventually
from tests.runtime.test_hostile import SUBJECT
from tests.runtime.test_worker import EchoStage, collect, idle, publish, running

ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=40)
LONG = "\U0010fffd" * 20_000


@dataclass(frozen=True)
class Original:
    """A message that was delivered."""

    payload: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    subject: str = SUBJECT
    attempt: int = 1
    published_at: datetime = samples.NOW


def letter_of(query: Query, error: QrelayError, message: Any = Original()) -> Any:
    return dead_letter("judge", message, query, error, samples.NOW)


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT, st.dictionaries(ANY_TEXT, ANY_TEXT), st.binary(max_size=40))
def test_it_is_a_message_whatever_its_texts_hold(
    query_id: str, text: str, collection: str, error: str, headers: dict[str, str], payload: bytes
) -> None:
    letter = letter_of(Query(query_id, text, collection), InternalError(error), Original(payload, headers))
    assert wire.decode(*wire.encode(letter)) == letter
    assert queue_of(letter_subject(letter)) is Queue.DLQ


def test_all_but_its_original_stays_within_the_margin() -> None:
    headers = {f"h{n}": "v" * 500 for n in range(1000)}
    letter = letter_of(
        Query(LONG, "how? " * 10_000, LONG, round=MAX_ROUND), InternalError(LONG), Original(b"", headers)
    )
    assert len(wire.encode(letter, compress=False)[0]) < DEAD_LETTER_MARGIN + len(letter.query_text)


def test_every_ledger_records_it_however_long_its_ids(ledger: Ledger) -> None:
    letters = [
        letter_of(Query(LONG, LONG, LONG, round=MAX_ROUND), InternalError(LONG), Original(b"1")),
        letter_of(Query("\0", "\0", "\0"), InternalError("\0 \ud83d"), Original(b"2", {"h": "\0", "g": "\ud83d"})),
        letter_of(Query("", "", ""), InternalError(""), Original(b"3", attempt=MAX_ROUND)),
    ]
    ledger.record_dead_letters(letters)
    assert len(ledger.list_dead_letters(None, False, 10, "").entries) == 3


def test_headers_that_command_the_server_or_break_the_line_do_not_travel_again() -> None:
    given = {
        "Content-Encoding": "zstd",
        "Nats-Rollup": "all",
        "a b": "1",
        "c": "1\r\nNats-Rollup: all",
        "d": "é",
        "": "1",
    }
    assert portable(given) == {"Content-Encoding": "zstd"}


@pytest.mark.parametrize(("size", "kept"), [(960 * 1024, True), (1024**2 - 300, False)])
async def test_an_original_that_fits_is_kept_whole_and_one_that_does_not_is_left_out(
    nats_settings: NatsSettings, size: int, kept: bool
) -> None:
    """The second comes from a producer that is not qrelay's: qrelay's keep to nats.max_message_bytes."""
    payload = random.Random(size).randbytes(size)
    other = nats_settings.model_copy(update={"max_message_bytes": 1024**2})
    async with (
        await JetStreamBroker.connect(nats_settings, name="worker", owner=True) as broker,
        await JetStreamBroker.connect(other, name="producer") as producer,
    ):
        await producer.publish(SUBJECT, payload, {}, "id")
        await publish(broker, samples.query(0))
        async with running(EchoStage(), broker):
            (letter,) = await collect(broker, Queue.DLQ, 1)
            assert len(await collect(broker, Queue.RETRIEVED, 1)) == 1
            await eventually(lambda: idle(broker))
    assert (letter.reason, letter.collection, letter.payload) == ("malformed", "docs", payload if kept else b"")
    assert (f"its original of {size} bytes" in letter.detail) == (not kept)
