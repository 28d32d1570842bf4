"""A message's subject, the ids of its output, and its dead letter: pure functions beside the worker.

A dead letter always fits, whatever its original was: its texts are bounded and valid Unicode, its headers are those
that can travel again, its subject is one of qrelay's, and where the original itself is too large it goes without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from qrelay.errors import Exhausted, MalformedInput, QrelayError
from qrelay.identity import digest, round_fields, valid_collection
from qrelay.runtime.broker import Message
from qrelay.runtime.stage import Record
from qrelay.runtime.topology import letters, queue_of, writer_of
from qrelay.types import DeadLetter, JudgedSet, Query

REPLAY_HEADER: Final = "Qrelay-Replay"
"""How often the query was replayed from the dead letters: part of every message id downstream, so that a
replay is not mistaken for a repetition."""
_REPLAYS: Final = re.compile(r"[0-9]{1,18}")
LETTER_TEXT_CHARS: Final = 16_384
_LETTER_DETAIL_CHARS: Final = 2_000
_LETTER_ID_CHARS: Final = 256
_LETTER_HEADER_CHARS: Final = 8_192
"""Bounds that keep a dead letter within topology.DEAD_LETTER_MARGIN of its original, and its ids within what an index
of PostgreSQL holds."""
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
UNREADABLE: Final = "unreadable"
"""The collection in the subject of a dead letter whose own collection is none."""


def query_of(record: Record) -> Query:
    """The query that a record is about."""
    match record:
        case Query():
            return record
        case JudgedSet():
            return record.candidate_set.query
        case DeadLetter():
            return Query(record.query_id, record.query_text, record.collection, round=record.round)
        case _:  # a set of candidates, or what a stage reads in place of its record
            return record.query


def message_id(stage: str, query: Query, replay: str) -> str:
    """The deterministic Nats-Msg-Id of a stage's output for a query."""
    return digest(stage, query.collection, query.query_id, query.text, replay, *round_fields(query.round))[:40]


def replays(headers: Mapping[str, str]) -> str:
    """The number of replays that a message tells of; empty: none, or no number."""
    told = headers.get(REPLAY_HEADER, "")
    return told if _REPLAYS.fullmatch(told) else ""


def portable(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that can be sent again, as far as there is room, the shortest first: none of NATS' own, which give
    orders to the server, and none that a line cannot hold."""
    kept, room = {}, _LETTER_HEADER_CHARS
    for name, value in sorted(headers.items(), key=lambda header: len(header[1])):
        room -= len(name) + len(value)
        if room < 0:
            break
        if _HEADER_NAME.fullmatch(name) and not name.startswith("Nats-") and value.isascii() and value.isprintable():
            kept[name] = value
    return kept


def dead_letter(stage: str, message: Message, query: Query, error: QrelayError, failed_at: datetime) -> DeadLetter:
    """The dead letter of a message that `stage` cannot process, with its original whole."""
    return DeadLetter(
        dead_letter_id=digest("dlq", stage, message.subject, message.payload, replays(message.headers))[:40],
        stage=stage,
        collection=_text(query.collection, _LETTER_ID_CHARS),
        query_id=_text(query.query_id, _LETTER_ID_CHARS),
        query_text=_text(query.text, LETTER_TEXT_CHARS),
        reason=error.reason,
        detail=_text(str(error), _LETTER_DETAIL_CHARS),
        attempts=message.attempt,
        failed_at=failed_at,
        subject=message.subject,
        headers=portable(message.headers),
        payload=message.payload,
        round=query.round,
    )


def without_original(letter: DeadLetter) -> DeadLetter:
    """The letter of a message that is too large to travel in one; it cannot be replayed."""
    said = f"(its original of {len(letter.payload)} bytes is too large to be kept) {letter.detail}"
    return replace(letter, detail=said, payload=b"")


def letter_subject(letter: DeadLetter) -> str:
    """Where a dead letter is published: under the name of its stage."""
    return letters(letter.collection if valid_collection(letter.collection) else UNREADABLE, letter.stage)


def require_writer(letter: DeadLetter, subject: str) -> None:
    """A dead letter is its stage's own word: NATS lets each service publish under its stage's name alone, and one
    without a name was there before services had users. Raises MalformedInput: another stage wrote it."""
    writer = writer_of(subject)
    if writer and writer != letter.stage:
        raise MalformedInput(f"a dead letter of stage {letter.stage[:80]!r} that stage {writer[:80]!r} published")


def require_own_queue(letter: DeadLetter) -> None:
    """A dead letter is replayed to the queue that its stage reads, and to no other: who can write one decides nothing
    about other stages' work.

    Raises:
        MalformedInput: its original was on another queue, or on none.
    """
    queue = queue_of(letter.subject)
    if queue.consumer != letter.stage:
        raise MalformedInput(
            f"a dead letter of stage {letter.stage[:80]!r} with a message of the queue {queue}, which that stage does"
            " not read: it is replayed to its own stage alone"
        )


def _text(text: str, most: int) -> str:
    """At most so many characters, without halves of any."""
    return text[:most].encode(errors="replace").decode()


def unreadable(message: Message) -> Query:
    """A stand-in for a record that cannot be decoded: the subject still names its collection."""
    parts = message.subject.split(".")
    return Query("", "", parts[2] if len(parts) in (4, 5) else "")


def exhausted(deliveries: int) -> QrelayError:
    """The error of a message that came so often without an answer."""
    return Exhausted(
        f"delivered {deliveries} times without an answer: its workers crashed or were killed; "
        "find out why in the workers' logs, then replay it"
    )
