"""What a delivered message says, before a stage sees it: a pure function beside the worker."""

from __future__ import annotations

from dataclasses import dataclass

from qrelay import wire
from qrelay.errors import MalformedInput, QrelayError
from qrelay.runtime.broker import Message
from qrelay.runtime.dead_letters import exhausted, query_of, require_writer, unreadable
from qrelay.runtime.stage import Record, Stage
from qrelay.runtime.translate import as_qrelay_error
from qrelay.types import DeadLetter


@dataclass(frozen=True, slots=True)
class Reading:
    """A message's record, or as much as is known of it, and `refusal`: why no stage may see it. cost: in the stage's
    unit; size: bytes, decompressed."""

    record: Record
    refusal: QrelayError | None = None
    cost: int = 0
    size: int = 0


def read(message: Message, stage: Stage, max_attempts: int) -> Reading:
    """Decodes a message for a stage. Raises nothing, whatever it holds."""
    record: Record = unreadable(message)
    try:
        before = message.attempt - 1
        if before > 2 * max_attempts:  # decoding it may be what kills; until then its dead letter names the query
            raise exhausted(before)
        found = wire.opened(message.payload, message.headers)
        ours = found.DESCRIPTOR.name == stage.source.carries.__name__
        record = stage.read(found) if ours else wire.from_proto(found)
        _require_its_place(record, ours, stage, message.subject)
        if before >= max_attempts:
            raise exhausted(before)
        size = wire.decoded_bytes(message.payload, message.headers)
        return Reading(record, cost=int(stage.cost(record)), size=size)
    except Exception as error:
        return Reading(record, as_qrelay_error(error))


def _require_its_place(record: Record, ours: bool, stage: Stage, subject: str) -> None:
    """A user of NATS may let JetStream copy what it reads into any stream; the copy keeps the subject that it had."""
    if not stage.source.takes(subject):
        raise MalformedInput(f"a message of subject {subject[:160]!r} on the queue {stage.source}")
    if not ours:
        wanted = stage.source.carries.__name__
        raise MalformedInput(f"a {type(record).__name__} on the queue {stage.source}: it is for a {wanted}")
    if isinstance(record, DeadLetter):
        require_writer(record, subject)
    if stage.target is not None:
        stage.target.subject(query_of(record).collection)  # no answer about another name can be published
