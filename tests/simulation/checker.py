"""What must hold at every step, and what must have happened in the end.

It trusts nobody: it reads messages with protobuf itself, keeps its own books of what was stored, and asks the
database with SQL.

At every step
    acked       a message leaves its queue only after its output, its commit or its dead letter is stored
    once        no query is committed twice in one round
    depth       a dead letter is never dead-lettered again and again
    exits       no service ends by itself
In the end, when faults have stopped
    settled     every queue is empty within SETTLE_S, and every query is committed or a dead letter
    reasons     a sound query is dead only for what was broken around it, never for itself
    labels      what is committed has the labels of a run without faults
    one place   no query is committed and an open dead letter
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
import zstandard
from google.protobuf.message import DecodeError

from qrelay.labels.ledger.ledger import CommitStatus
from qrelay.runtime.broker import Message
from qrelay.runtime.topology import Queue, QueueStats
from qrelay.types import DeadLetter
from qrelay.v1 import envelope_pb2

SETTLE_S = 300.0
"""Simulated seconds without faults within which everything must be settled. Usual are 10 to 30."""
_NEXT = {Queue.QUERIES: Queue.RETRIEVED, Queue.RETRIEVED: Queue.RERANKED, Queue.RERANKED: Queue.JUDGED}
_CIRCUMSTANCES = ("exhausted", "backend_unavailable", "backend_timeout", "rate_limited", "overloaded")
"""Reasons for which a sound query may be dead: the world's, not its own."""
_DEEPEST = 2
_LARGEST = 2**22

Labels = Mapping[str, tuple[Any, ...]]
"""passage_id -> (judgment_key, grade, p_relevant)."""


class Key(NamedTuple):
    """One submission of a query in one round."""

    collection: str
    query_id: str
    text: str
    round: int


def envelope(payload: bytes, headers: Mapping[str, str]) -> Any:
    """The message, or None where it is none."""
    try:
        if headers.get("Content-Encoding"):
            if not 0 <= zstandard.frame_content_size(payload) <= _LARGEST:
                return None
            payload = zstandard.decompress(payload)
        found = envelope_pb2.Envelope.FromString(payload)
    except (DecodeError, zstandard.ZstdError):
        return None
    return found


def key_of(found: Any) -> Key | None:
    """Which query a message is about; None: it is no record, or a dead letter."""
    match found.WhichOneof("record") if found is not None else None:
        case "query":
            query = found.query
        case "candidate_set":
            query = found.candidate_set.query
        case "judged_set":
            query = found.judged_set.candidate_set.query
        case _:
            return None
    return Key(query.collection, query.query_id, query.text, query.round)


class Checker:
    """Books of one run; what is wrong is in `findings`."""

    def __init__(self) -> None:
        self.findings: list[str] = []
        self.dead = 0
        """Sound queries that are dead letters in the end."""
        self.exits: Counter[str] = Counter()
        self.history: list[tuple[str, bytes, Mapping[str, str]]] = []
        """Messages of sound queries as they were stored, for those who deliver one again."""
        self.sound: dict[Key, Labels] = {}
        self._odd: dict[tuple[str, bytes], str] = {}
        self._odd_queries: dict[str, str] = {}
        self._ids: set[tuple[Queue, str]] = set()
        self._keys: dict[tuple[str, bytes], Key | None] = {}
        self._outputs: dict[Queue, set[Key]] = {queue: set() for queue in Queue}
        self._buried: set[tuple[str, bytes]] = set()
        self._letters: dict[tuple[str, bytes], tuple[str, int]] = {}
        self._commits: Counter[Key] = Counter()
        self._held: set[Key] = set()
        self._recorded: set[str] = set()
        self._left: set[tuple[str, bytes]] = set()
        self._numbers: dict[tuple[str, bytes], int] = {}

    def expect(self, key: Key, labels: Labels) -> None:
        """A sound query that will be fed, and its labels."""
        self.sound[key] = labels

    def odd(self, subject: str, payload: bytes, headers: Mapping[str, str], kind: str) -> None:
        """A message of which only this is asked, that it is settled; `kind` says what it is."""
        self._odd[subject, payload] = kind
        if key := key_of(envelope(payload, headers)):
            self._odd_queries[key.query_id] = kind

    def wrong(self, text: str) -> None:
        """One more finding."""
        if text not in self.findings:
            self.findings.append(text)

    def stored(self, subject: str, payload: bytes, headers: Mapping[str, str], msg_id: str) -> None:
        """A stream holds this message, or one of the same id."""
        queue = Queue(subject.rsplit(".", 1)[-1])
        if (queue, msg_id) in self._ids:
            return
        self._ids.add((queue, msg_id))
        self._left.add((subject, payload))
        self._numbers.setdefault((subject, payload), len(self._numbers) + 1)
        found = envelope(payload, headers)
        key = self._keys[subject, payload] = key_of(found)
        if key is not None:
            self._outputs[queue].add(key)
            if key in self.sound:
                self.history.append((subject, payload, headers))
        if queue is Queue.DLQ and found is not None and found.HasField("dead_letter"):
            self._letter_stored((subject, payload), found.dead_letter)

    def _letter_stored(self, message: tuple[str, bytes], letter: Any) -> None:
        original = letter.subject, letter.payload
        _, depth = self._letters.get(original, ("", 0))
        self._letters[message] = letter.dead_letter_id, depth + 1
        self._buried.add(original)
        if depth >= _DEEPEST:
            self.wrong(f"dead letters of dead letters without end: {letter.reason}: {letter.detail}")

    def acked(self, queue: Queue, message: Message) -> None:
        """A message is about to leave its queue."""
        original = message.subject, message.payload
        key = self._keys[original]
        self._left.discard(original)
        match queue:
            case Queue.DLQ:
                letter_id, _ = self._letters.get(original, ("", 0))
                settled = letter_id in self._recorded
            case Queue.JUDGED:
                settled = key in self._held
            case _:
                settled = key in self._outputs[_NEXT[queue]]
        if not settled and original not in self._buried:
            self.wrong(f"acked without an output, a commit or a dead letter: {self.name(*original)} on {queue}")

    def committed(self, key: Key, status: CommitStatus) -> None:
        """The ledger says that it holds this query in this round, by this commit or by an earlier one."""
        self._held.add(key)
        self._commits[key] += status is CommitStatus.COMMITTED
        if self._commits[key] > 1:
            self.wrong(f"committed twice: {key}")

    def recorded(self, letter: DeadLetter) -> None:
        """The database holds this dead letter."""
        self._recorded.add(letter.dead_letter_id)
        self._buried.add((letter.subject, letter.payload))

    def exited(self, service: str, error: BaseException | None) -> None:
        """A service ended, and nobody had told it to."""
        self.exits[f"{service} ended by itself: {type(error).__name__}: {str(error)[:160]}"] += 1

    def number(self, subject: str, payload: bytes) -> int:
        """The place of a message among all that were stored, from 1; 0: its id was stored already."""
        return self._numbers.get((subject, payload), 0)

    def name(self, subject: str, payload: bytes) -> str:
        """A message, for people."""
        if kind := self._odd.get((subject, payload)):
            return kind
        if key := self._keys.get((subject, payload)):
            return self._odd_queries.get(key.query_id) or f"query {key.query_id} of round {key.round}"
        return f"{len(payload)} bytes"

    def unsettled(self, connection: sa.Connection, stats: Sequence[QueueStats]) -> list[str]:
        """What is not at its end."""
        left = [f"{each.lag} left on {each.queue}, {each.held} of them held" for each in stats if each.lag]
        if left:
            return [*left, *sorted({self.name(*message) for message in self._left})]
        ends = _ends(connection)
        return [f"query {key.query_id} of round {key.round} is nowhere" for key in self.sound if key not in ends]

    def conclude(self, connection: sa.Connection) -> None:
        """Judges the database when everything is settled."""
        committed = Counter(Key(*row) for row in connection.execute(_COMMITTED))
        letters = [(Key(*row[:4]), row.state, row.reason) for row in connection.execute(_DEAD)]
        ends = {*committed, *(key for key, state, _ in letters if state != "replayed")}
        self.dead = len(self.sound.keys() - committed.keys())
        for key, times in committed.items():
            if times > 1:
                self.wrong(f"{times} generations of one round: {key}")
        told = {*self._keys.values()}  # a letter that a foreign client made may name a query that nobody sent
        for key, state, reason in letters:
            if (
                state == "replayed"
                and key in told
                and not any(end[:3] == key[:3] and end.round >= key.round for end in ends)
            ):
                self.wrong(f"replayed, and neither committed nor dead again: {key}")
            if key in committed and state in ("open", "replaying"):
                self.wrong(f"committed, and an open dead letter ({reason}): {key}")
            if key in self.sound and reason not in _CIRCUMSTANCES:
                self.wrong(f"a sound query is dead for itself ({reason}): {key}")
        self._labels(connection)

    def _labels(self, connection: sa.Connection) -> None:
        found: dict[tuple[str, str], dict[str, list[tuple[Any, ...]]]] = {}
        for collection, query_id, passage_id, *label in connection.execute(_LABELS):
            found.setdefault((collection, query_id), {}).setdefault(passage_id, []).append(tuple(label))
        for key, expected in self.sound.items():
            for passage_id, labels in found.get((key.collection, key.query_id), {}).items():
                grades = [label for label in labels if label[1] is not None]
                if any(label != expected.get(passage_id) for label in grades) or len(grades) > 1:
                    self.wrong(f"query {key.query_id}, passage {passage_id}: {grades} instead of {expected}")
            if len(found.get((key.collection, key.query_id), expected)) != len(expected):
                self.wrong(f"query {key.query_id} has labels of other passages than it should")


def _ends(connection: sa.Connection) -> set[Key]:
    """Submissions that are committed, or whose dead letter waits for an operator."""
    rows = [
        *connection.execute(_COMMITTED),
        *(row[:4] for row in connection.execute(_DEAD) if row.state != "replayed"),
    ]
    return {Key(*row) for row in rows}


_COMMITTED = sa.text(
    "SELECT collection, query_id, text, g.round FROM queries q JOIN generations g USING (query_no) "
    "WHERE g.round IS NOT NULL"
)
_DEAD = sa.text("SELECT collection, query_id, query_text, round, state, reason FROM dead_letters")
_LABELS = sa.text(
    "SELECT collection, query_id, passage_id, judgment_key, grade, p_relevant FROM judgments "
    "JOIN queries USING (query_no)"
)
