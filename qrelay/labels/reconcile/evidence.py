"""What was seen of every accepted query, and what follows from it.

Facts lie in a temporary SQLite file, about 150 bytes a query, so that memory does not grow with the feed.

| accepted | in the ledger | dead letter waits | in a stream | state |
|---|---|---|---|---|
| yes | yes | no | any | committed |
| yes | no | yes | any | dead |
| yes | yes | yes | any | duplicated |
| yes | no | no | yes | in flight |
| yes | no | no | no | lost |
| no | yes, or a dead letter waits || any | unexpected: another feeder's, or nobody's |
| its hash | no | no | any | forgotten |

A copy in a stream beside a final state is no second state: it is recognised when it arrives.

A query is accepted in a round, and everything above is of that round or a later one: committed in an earlier round
only, it is in flight or lost. A dead letter waits beside a commit only where it is of no later round than the commit.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from qrelay.feed.journal import Accepted
from qrelay.identity import forgotten_hash, query_fingerprint
from qrelay.labels.ledger.states import COMMITTED, DEAD, Submission
from qrelay.runtime.topology import Queue

_LEDGER: Final = (COMMITTED, DEAD)
_QUEUES: Final = tuple(Queue)
SHOWN: Final = 1000
"""Ids of one kind in a report, at most; the counts are whole."""

_TABLES = """
CREATE TABLE accepted (fingerprint TEXT PRIMARY KEY, query_id TEXT, round INTEGER, emittable INTEGER) WITHOUT ROWID;
CREATE TABLE aliases (letter TEXT PRIMARY KEY, fingerprint TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE seen (fingerprint TEXT, place INTEGER, query_id TEXT, round INTEGER, PRIMARY KEY (fingerprint, place))
  WITHOUT ROWID;
CREATE TABLE forgotten (query TEXT PRIMARY KEY, fed INTEGER) WITHOUT ROWID;
CREATE VIEW rounds AS
  SELECT a.fingerprint, a.query_id, a.round, a.emittable,
    MAX(CASE WHEN s.place = -2 AND s.round >= a.round THEN s.round END) AS commit_round,
    MAX(CASE WHEN s.place = -1 THEN s.round END) AS letter_round,
    MAX(CASE WHEN s.place >= 0 AND s.round >= a.round THEN s.place END) AS queue
  FROM accepted a LEFT JOIN seen s ON s.fingerprint = a.fingerprint GROUP BY a.fingerprint;
CREATE VIEW standing AS
  SELECT fingerprint, query_id, emittable, queue, commit_round, commit_round IS NOT NULL AS committed,
    COALESCE(CASE WHEN commit_round IS NULL THEN letter_round >= round
                  ELSE letter_round <= commit_round END, 0) AS dead
  FROM rounds;
CREATE VIEW unexpected AS
  SELECT fingerprint, MIN(query_id) AS query_id FROM seen
  WHERE place < 0 AND fingerprint NOT IN (SELECT fingerprint FROM accepted) GROUP BY fingerprint;
"""
_PLACES: Final = {COMMITTED: -2, DEAD: -1, **{str(queue): number for number, queue in enumerate(_QUEUES)}}


@dataclass(frozen=True, slots=True)
class Report:
    """Where the accepted queries of a collection are. Counts; the lists hold query_ids, at most SHOWN.

    in_flight: stream -> queries, each counted in the last stream that holds it. without_record: lost, and the journal
    does not know their texts. forgotten: `qrelay forget` took them. reemitted, resolved: what `repair` did.
    """

    collection: str
    accepted: int
    committed: int
    dead: int
    in_flight: dict[str, int]
    lost: int
    duplicated: int
    unexpected: int
    forgotten: int
    lost_ids: list[str]
    duplicated_ids: list[str]
    unexpected_ids: list[str]
    without_record: int
    reemitted: int = 0
    resolved: int = 0

    @property
    def unsound(self) -> int:
        """Queries that are in no state, or in two, and were not repaired."""
        return self.lost + self.duplicated - self.reemitted - self.resolved

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "unsound": self.unsound}


class Evidence:
    """See the module. A context manager; its file goes with it."""

    def __init__(self, collection: str, letter_chars: int) -> None:
        """`letter_chars`: dead letters hold no more of a query's text than this many characters."""
        self._collection = collection
        self._letter_chars = letter_chars
        self._folder = tempfile.TemporaryDirectory(prefix="qrelay-reconcile-")
        self._facts = sqlite3.connect(Path(self._folder.name) / "evidence.sqlite")
        self._facts.execute("PRAGMA synchronous=OFF")  # temporary: a crash may take it
        self._facts.executescript(_TABLES)
        self._facts.create_function("hashed", 1, lambda query_id: forgotten_hash(collection, query_id))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._facts.close()
        self._folder.cleanup()

    def accept(self, entries: Iterable[Accepted], *, only_seen: bool = False) -> None:
        """The feed's journal. `only_seen`: of what it accepted since, only those found in the ledger before."""
        for entry in entries:
            if (
                only_seen
                and not self._facts.execute(
                    "SELECT 1 FROM unexpected WHERE fingerprint = ?", (entry.fingerprint,)
                ).fetchone()
            ):
                continue
            self._facts.execute(
                "INSERT OR IGNORE INTO accepted VALUES (?, ?, ?, ?)",
                (entry.fingerprint, entry.query_id, entry.round, entry.query is not None),
            )
            if entry.query is not None and len(entry.query.text) > self._letter_chars:
                cut = query_fingerprint(self._collection, entry.query_id, entry.query.text[: self._letter_chars])
                self._facts.execute("INSERT OR IGNORE INTO aliases VALUES (?, ?)", (cut, entry.fingerprint))

    def see_forgotten(self, hashes: Iterable[str], *, fed: bool = False) -> None:
        """Tombstones: of the ledger, or of the journal (`fed`), whose queries were accepted."""
        add = "INSERT INTO forgotten VALUES (?, ?) ON CONFLICT DO UPDATE SET fed = MAX(fed, excluded.fed)"
        if self._facts.executemany(add, ((each, fed) for each in hashes)).rowcount > 0:
            self._facts.execute("UPDATE forgotten SET fed = 1 WHERE query IN (SELECT hashed(query_id) FROM accepted)")
            self._facts.execute("DELETE FROM accepted WHERE hashed(query_id) IN (SELECT query FROM forgotten)")

    def see_in_flight(self, queue: Queue, fingerprint: str, query_id: str, query_round: int = 0) -> None:
        """A message about this submission lies in the queue's stream."""
        self._see(fingerprint, str(queue), query_id, query_round)

    def see_ledger(self, submissions: Iterable[Submission]) -> None:
        """The ledger as it is now, instead of what it was before."""
        self._facts.execute("DELETE FROM seen WHERE place < 0")
        for each in submissions:
            if each.state in _LEDGER:  # replayed is not final: it is in a stream, or lost
                self._see(each.fingerprint, each.state, each.query_id, each.round)

    def _see(self, fingerprint: str, place: str, query_id: str, query_round: int) -> None:
        row = self._facts.execute("SELECT fingerprint FROM aliases WHERE letter = ?", (fingerprint,)).fetchone()
        self._facts.execute(
            "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET round = MAX(round, excluded.round)",
            (row[0] if row else fingerprint, _PLACES[place], query_id, query_round),
        )

    @property
    def suspicious(self) -> bool:
        """Whether something looks lost, or unexpected: a second look may find it."""
        found = self._facts.execute(
            "SELECT EXISTS (SELECT 1 FROM standing WHERE NOT committed AND NOT dead AND queue IS NULL)"
            " OR EXISTS (SELECT 1 FROM unexpected)"
        ).fetchone()
        return bool(found[0])

    def lost(self, *, emittable: bool) -> Iterator[str]:
        """query_ids in no state, whose texts the journal knows or does not know."""
        rows = self._facts.execute(
            "SELECT query_id FROM standing WHERE NOT committed AND NOT dead AND queue IS NULL AND emittable = ?"
            " ORDER BY query_id",
            (emittable,),
        )
        return (row[0] for row in rows)

    def duplicated(self) -> Iterator[tuple[str, int]]:
        """(submission of the dead letter, committed round) of those that are committed and of which one waits, by
        query_id."""
        rows = self._facts.execute(
            "SELECT COALESCE(letter, s.fingerprint), commit_round FROM standing s"
            " LEFT JOIN aliases a ON a.fingerprint = s.fingerprint WHERE committed AND dead ORDER BY query_id"
        )
        return ((row[0], row[1]) for row in rows)

    def report(self) -> Report:
        """The counts, and the ids that somebody has to look at."""
        states: Counter[tuple[int, int, int | None, int]] = Counter()
        grouped = "SELECT committed, dead, queue, emittable, COUNT(*) FROM standing GROUP BY 1, 2, 3, 4"
        for committed, dead, queue, emittable, count in self._facts.execute(grouped):
            states[committed, dead, queue, emittable] += count
        lost = {key: n for key, n in states.items() if key[:3] == (0, 0, None)}
        flying: Counter[str] = Counter()
        for (committed, dead, queue, _), count in states.items():
            if not committed and not dead and queue is not None:
                flying[str(_QUEUES[queue])] += count
        forgotten = self._facts.execute("SELECT COUNT(*) FROM forgotten WHERE fed").fetchone()[0]
        return Report(
            collection=self._collection,
            accepted=states.total() + forgotten,
            committed=sum(n for key, n in states.items() if key[:2] == (1, 0)),
            dead=sum(n for key, n in states.items() if key[:2] == (0, 1)),
            in_flight=dict(flying),
            lost=sum(lost.values()),
            duplicated=sum(n for key, n in states.items() if key[:2] == (1, 1)),
            unexpected=self._facts.execute("SELECT COUNT(*) FROM unexpected").fetchone()[0],
            forgotten=forgotten,
            lost_ids=self._ids("SELECT query_id FROM standing WHERE NOT committed AND NOT dead AND queue IS NULL"),
            duplicated_ids=self._ids("SELECT query_id FROM standing WHERE committed AND dead"),
            unexpected_ids=self._ids("SELECT query_id FROM unexpected"),
            without_record=sum(n for key, n in lost.items() if not key[3]),
        )

    def _ids(self, chosen: str) -> list[str]:
        return [row[0] for row in self._facts.execute(f"{chosen} ORDER BY query_id LIMIT {SHOWN}")]
