"""The streams between the services, with every value and its reason.

One JetStream work queue for each stage. A message leaves it when the next queue has it: publish acknowledged,
then the input double-acked.

| setting | value | why |
|---|---|---|
| subjects | qrelay.v1.*.<lane>.<queue> | one stream serves every collection; the tokens are there to filter by |
| lanes | 8 a queue, a durable consumer each | readers take from all: no collection's flood stands before another's |
| former subjects | qrelay.v1.*.<queue>, one consumer | one lane more: what versions without lanes publish |
| subjects of dlq | also qrelay.v1.*.<stage>.dlq | each service may publish its own stage's dead letters alone |
| retention | work queue | an acked message is done; the ledger, not the stream, is the record |
| storage | file, no S2 | survives a restart; messages come zstd-compressed, S2 on top saves nothing |
| discard | new, with max_bytes | a full stage refuses its producer instead of dropping the oldest |
| duplicate window | 10 min | longer than a publisher's retries; never the only deduplication |
| max_deliver | unlimited | the worker counts and dead-letters, so a crash on the last attempt strands nothing |
| ack_wait | 60 s | the worker's heartbeat (20 s) keeps a long judgment; a dead replica's work returns in 60 s |
| max_ack_pending | 2048 a lane | shared by all replicas: less would cap scale-out |
| dlq | as the others | dead letters wait for the sink to record them in the ledger; nothing pushes them out |
"""

from __future__ import annotations

import enum
import functools
import zlib
from dataclasses import dataclass
from typing import Final

from qrelay.errors import MalformedInput
from qrelay.identity import require_collection, valid_collection
from qrelay.types import CandidateSet, DeadLetter, JudgedSet, Query

SUBJECT_ROOT: Final = "qrelay.v1"
LANES: Final = 8
"""Of each queue but that of dead letters. Another number would leave the messages of the lanes that go unread."""
DEAD_LETTER_MARGIN: Final = 64 * 1024
"""Bytes that a dead letter may add to the message that it wraps."""
_KNOWN: Final = 4096
"""Subjects whose queue is remembered: every message's is looked up twice."""


class Queue(enum.StrEnum):
    """A queue between two services. The value is the last token of its subjects."""

    QUERIES = "queries"
    RETRIEVED = "retrieved"
    RERANKED = "reranked"
    JUDGED = "judged"
    DLQ = "dlq"

    @property
    def stream(self) -> str:
        """The JetStream stream's name."""
        return f"QRELAY_V1_{self.value.upper()}"

    @functools.cached_property
    def lanes(self) -> tuple[Lane, ...]:
        """What its readers take from in turn. The first has the service's name and what is in no other: former
        subjects, and messages of other queues that a user of NATS had copied here, which would lie here for ever."""
        if self is Queue.DLQ:
            return (Lane(self.stream, self.consumer, ()),)
        former, *laned = self.subjects()
        foreign = (pattern for each in Queue if each is not self for pattern in each.all_of("*"))
        first = Lane(self.stream, self.consumer, (former, *foreign))
        return first, *(Lane(self.stream, f"{self.consumer}-{n}", (each,)) for n, each in enumerate(laned))

    def subjects(self) -> tuple[str, ...]:
        """Patterns of the subjects that the stream takes."""
        plain, any_lane = self.all_of("*")
        return (plain, *((any_lane,) if self is Queue.DLQ else (self._in_lane("*", lane) for lane in range(LANES))))

    def all_of(self, collection: str) -> tuple[str, str]:
        """Patterns of all subjects of a collection, whichever lane or stage they name."""
        return f"{SUBJECT_ROOT}.{collection}.{self.value}", f"{SUBJECT_ROOT}.{collection}.*.{self.value}"

    def _in_lane(self, collection: str, lane: int) -> str:
        return f"{SUBJECT_ROOT}.{collection}.{lane}.{self.value}"

    @functools.lru_cache(_KNOWN)
    def takes(self, subject: str) -> bool:
        """Whether the stream takes this subject, be its collection one of qrelay's or not."""
        return subject.endswith(self.value) and any(_matches(pattern, subject) for pattern in self.subjects())

    def subject(self, collection: str) -> str:
        """The subject of one collection's messages.

        Raises:
            InvalidQuery: no collection can have this name.
        """
        require_collection(collection)
        return self.all_of(collection)[0] if self is Queue.DLQ else self._in_lane(collection, lane_of(collection))

    @property
    def consumer(self) -> str:
        """The first lane's durable consumer: the name of the service that reads this queue."""
        return CONSUMERS[self]

    @property
    def carries(self) -> type[Query | CandidateSet | JudgedSet | DeadLetter]:
        """The one type of record whose messages belong here."""
        return CARRIES[self]


@dataclass(frozen=True, slots=True)
class Lane:
    """A share of a queue: the durable consumer that reads it, and the patterns of its subjects; none: all."""

    stream: str
    consumer: str
    subjects: tuple[str, ...]

    def takes(self, subject: str) -> bool:
        """Whether it reads this subject."""
        return not self.subjects or any(_matches(pattern, subject) for pattern in self.subjects)


def lane_of(collection: str) -> int:
    """The lane of a collection's messages, the same in every process and version."""
    return zlib.crc32(collection.encode()) % LANES


CONSUMERS: Final = {
    Queue.QUERIES: "retriever",
    Queue.RETRIEVED: "reranker",
    Queue.RERANKED: "judge",
    Queue.JUDGED: "sink",
    Queue.DLQ: "sink-dead-letters",
}
CARRIES: Final[dict[Queue, type[Query | CandidateSet | JudgedSet | DeadLetter]]] = {
    Queue.QUERIES: Query,
    Queue.RETRIEVED: CandidateSet,
    Queue.RERANKED: CandidateSet,
    Queue.JUDGED: JudgedSet,
    Queue.DLQ: DeadLetter,
}


def letters(collection: str, stage: str) -> str:
    """The subject of a stage's dead letters of a collection; `*` for any."""
    return f"{SUBJECT_ROOT}.{collection}.{stage}.{Queue.DLQ}"


def writer_of(subject: str) -> str:
    """The stage that a dead letter's subject names; "": none, as it was before services had users of their own."""
    tokens = subject.split(".")
    return tokens[3] if _matches(letters("*", "*"), subject) else ""


@functools.lru_cache(_KNOWN)
def queue_of(subject: str) -> Queue:
    """The queue that takes a subject's messages.

    Raises:
        MalformedInput: it is none of qrelay's subjects.
    """
    found = next((queue for queue in Queue if queue.takes(subject)), None)
    if found is None or not all(map(valid_collection, subject.split(".")[2:-1])):
        raise MalformedInput(f"{subject[:160]!r} is no subject of qrelay's: {SUBJECT_ROOT}.COLLECTION.QUEUE")
    return found


def _matches(pattern: str, subject: str) -> bool:
    """Whether a subject is one of the pattern's, in which `*` is any one token."""
    wanted, tokens = pattern.split("."), subject.split(".")
    return len(wanted) == len(tokens) and all(
        each == token or (each == "*" and token) for each, token in zip(wanted, tokens, strict=True)
    )


@dataclass(frozen=True, slots=True)
class QueueStats:
    """One queue's load. pending: not yet delivered; held: delivered and not acked; lag is their sum."""

    queue: Queue
    pending: int
    held: int
    redelivered: int
    bytes: int

    @property
    def lag(self) -> int:
        """Messages not yet done, which is what autoscalers watch."""
        return self.pending + self.held
