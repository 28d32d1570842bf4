"""Items on their way: as many as travel in one request, and the answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import Message

from qrelay import wire
from qrelay.errors import QrelayError

BYTES: Final = 1024**2
"""Of one request, unless one item is larger."""


@dataclass(eq=False, slots=True)
class Request:
    """Items that travel together. answers: of each item, None where there is none yet; messages: of those without.
    sent_at: on the monotonic clock; failures: answers to it that were to be asked for again."""

    answers: list[Any]
    messages: list[Message] = field(default_factory=list)
    sent_at: float = 0.0
    failures: int = 0

    def take(self, found: Sequence[Any]) -> None:
        """The answers to its messages, in order."""
        left = iter(found)
        self.answers = [next(left) if each is None else each for each in self.answers]
        self.messages = []

    def divided(self) -> list[Request]:
        """Each item by itself."""
        messages = iter(self.messages)
        return [Request([each], [next(messages)] if each is None else []) for each in self.answers]


def packed(records: Sequence[Any], most: int) -> list[Request]:
    """Requests of these records, of at most so many items and BYTES each. A QrelayError among the records is its own
    answer, as is what a record cannot be sent for."""
    requests: list[Request] = []
    size = 0
    for record in records:
        message, error = _message(record)
        bytes_more = message.ByteSize() if message else 0
        if not requests or len(requests[-1].answers) >= most or size + bytes_more > BYTES:
            requests.append(Request([]))
            size = 0
        size += bytes_more
        requests[-1].answers.append(error)
        if message:
            requests[-1].messages.append(message)
    return requests


def _message(record: Any) -> tuple[Message | None, QrelayError | None]:
    """(the message of a record, None) or (None, why there is none)."""
    if isinstance(record, QrelayError):
        return None, record
    try:
        return wire.to_proto(record), None
    except QrelayError as error:
        return None, error
