"""The broker port: what the worker, the feed and the tools need of a message queue.

Two implementations: `qrelay.runtime.jetstream` (NATS JetStream) and `qrelay.runtime.memory` (in one
process, with injectable faults, for tests). The same pipeline tests run on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from qrelay.errors import Oversized
from qrelay.runtime.topology import DEAD_LETTER_MARGIN, Queue, QueueStats, queue_of


def admit(subject: str, size: int, max_message_bytes: int) -> Queue:
    """What every broker checks before it sends a payload of `size` bytes; the queue that takes it.

    Raises:
        MalformedInput: a subject that is none of qrelay's.
        Oversized: above the limit, which is higher for a dead letter, as it holds another message.
    """
    queue = queue_of(subject)
    limit = max_message_bytes + (DEAD_LETTER_MARGIN if queue is Queue.DLQ else 0)
    if size > limit:
        raise Oversized(
            f"message of {size} bytes for {subject}; nats.max_message_bytes is {max_message_bytes}: "
            "send fewer or shorter passages, or raise it together with the server's max_payload"
        )
    return queue


class Message(Protocol):
    """One delivery. Exactly one of `ack` or `retry` ends it; doing neither means that it comes back
    after ack_wait."""

    @property
    def subject(self) -> str:
        """Where it was published."""

    @property
    def payload(self) -> bytes:
        """The message's bytes."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The message's headers."""

    @property
    def attempt(self) -> int:
        """Which delivery this is, from 1."""

    @property
    def published_at(self) -> datetime:
        """When the broker took the message."""

    async def ack(self) -> None:
        """Done: remove it. Returns when the broker confirms.

        Raises:
            BackendUnavailable, BackendTimeout: not confirmed; it may be delivered again.
        """

    async def retry(self, delay_s: float) -> None:
        """Give it back, to be delivered again after `delay_s` seconds."""

    async def heartbeat(self) -> None:
        """Still at it: restart the ack_wait clock."""


class Broker(Protocol):
    """A connection to every queue."""

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str], msg_id: str) -> None:
        """Hand a message over; returns when it is stored, or was stored before under the same `msg_id`.

        Raises:
            MalformedInput: a subject that is none of qrelay's.
            Oversized: above the message limit.
            Overloaded: the stream is full; its consumers have to catch up first.
            BackendUnavailable, BackendTimeout: not confirmed; publishing again with the same id is safe.
        """

    async def fetch(self, queue: Queue, max_items: int, timeout_s: float) -> Sequence[Message]:
        """Up to `max_items` messages: what is there now, else the first to come within `timeout_s`
        seconds, else none.

        Raises:
            BackendUnavailable: the broker does not answer.
        """

    async def stats(self) -> Sequence[QueueStats]:
        """Every queue's load."""

    async def close(self) -> None:
        """Flush and disconnect. Unacked messages come back to others after ack_wait."""
