"""A message's subject, the ids of its output, and its dead letter: pure functions beside the worker."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from qrelay.errors import Exhausted, QrelayError
from qrelay.identity import digest, round_fields
from qrelay.runtime.broker import Message
from qrelay.runtime.stage import Record
from qrelay.types import CandidateSet, DeadLetter, JudgedSet, Query

REPLAY_HEADER: Final = "Qrelay-Replay"
"""How often the query was replayed from the dead letters: part of every message id downstream, so that a
replay is not mistaken for a repetition."""
LETTER_TEXT_CHARS: Final = 16_384
_LETTER_DETAIL_CHARS: Final = 2_000
"""Bounds that keep a dead letter within topology.DEAD_LETTER_MARGIN of its original; the payload is whole."""


def query_of(record: Record) -> Query:
    """The query that a record is about."""
    match record:
        case Query():
            return record
        case CandidateSet():
            return record.query
        case JudgedSet():
            return record.candidate_set.query
        case DeadLetter():
            return Query(record.query_id, record.query_text, record.collection, round=record.round)


def message_id(stage: str, query: Query, replay: str) -> str:
    """The deterministic Nats-Msg-Id of a stage's output for a query."""
    return digest(stage, query.collection, query.query_id, query.text, replay, *round_fields(query.round))[:40]


def dead_letter(stage: str, message: Message, query: Query, error: QrelayError, failed_at: datetime) -> DeadLetter:
    """The dead letter of a message that `stage` cannot process, with its original whole."""
    replay = message.headers.get(REPLAY_HEADER, "")
    return DeadLetter(
        dead_letter_id=digest("dlq", stage, message.subject, message.payload, replay)[:40],
        stage=stage,
        collection=query.collection,
        query_id=query.query_id,
        query_text=query.text[:LETTER_TEXT_CHARS],
        reason=error.reason,
        detail=str(error)[:_LETTER_DETAIL_CHARS],
        attempts=message.attempt,
        failed_at=failed_at,
        subject=message.subject,
        headers={key: value for key, value in message.headers.items() if not key.startswith("Nats-")},
        payload=message.payload,
        round=query.round,
    )


def unreadable(message: Message) -> Query:
    """A stand-in for a record that cannot be decoded: the subject still names its collection."""
    parts = message.subject.split(".")
    return Query("", "", parts[2] if len(parts) == 4 else "")


def exhausted(deliveries: int) -> QrelayError:
    """The error of a message that came so often without an answer."""
    return Exhausted(
        f"delivered {deliveries} times without an answer: its workers crashed or were killed; "
        "find out why in the workers' logs, then replay it"
    )
