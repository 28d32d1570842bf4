"""The steps of forgetting queries, in an order in which each may be taken again after a kill.

    tombstones ─► queues ─► cache ─► files ─► ledger ─► journal ─► compaction ─► done
                     ▲────────┘ until the queues hold nothing of the queries

The tombstones come first, so that nothing of the queries comes back meanwhile. The ledger and the journal come last,
because the other stores are searched by the texts that they know. What a dry run counts is what a run takes.

Compaction is for all queries of the collection that are erased, also those of a run that was killed before it: nobody
knows their ids any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from qrelay.chunks import chunks
from qrelay.config import NatsSettings
from qrelay.errors import BackendUnavailable, InputError
from qrelay.feed.journal import Journal
from qrelay.forgetting import stores
from qrelay.forgetting.finder import Finder
from qrelay.forgetting.folder import Files, forget_files
from qrelay.forgetting.named import named
from qrelay.forgetting.stores import Known
from qrelay.identity import forgotten_hash
from qrelay.labels.ledger import audit_log, forgetting
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.retention import without_remains
from qrelay.runtime import faults
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.natsclient import ATTEMPTS

_PAGE: Final = 500
"""Queries that are searched for at a time."""
_PASSES: Final = 10
"""Times that the queues are searched, as long as each finds something."""
_PAUSE_S: Final = 0.2
"""Between them, for services to pass on what they hold."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an installation's stores are. nats: None leaves the queues alone. cache: a file or address."""

    data_dir: Path
    ledger: Ledger
    cache: str
    registry: Path
    nats: NatsSettings | None


@dataclass(slots=True)
class Report:
    """What was, or would be, taken: counts. The lists name what may hold a query and stays: exports (file, format),
    versions of models, other files of the data folder, unreadable dead letters, and files and batches at an endpoint.
    unknown: ids that no store knows."""

    collection: str
    queries: int = 0
    messages: int = 0
    labels: int = 0
    requests: int = 0
    dead_letters: int = 0
    journal: int = 0
    files: dict[str, int] = field(default_factory=dict)
    exports: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    other_files: list[str] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)
    at_endpoints: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


async def forget(place: Place, wanted: Mapping[str, Sequence[str]], *, dry_run: bool) -> list[Report]:
    """Forgets the queries, collection -> ids; see the module. A report a page of queries.

    Raises:
        BackendUnavailable: a store does not answer, messages are under way, or a reader holds what was deleted: the
            same call goes on.
    """
    reports, left = list[Report](), list(_left(place, wanted))
    try:
        for collection, ids in wanted.items():
            for page in chunks(ids, _PAGE):
                reports.append(await _forget(place, collection, set(page), dry_run))
    finally:
        if not dry_run:
            _compact(place, wanted)
    return [*reports, *left]


def _left(place: Place, wanted: Mapping[str, Sequence[str]]) -> Iterator[Report]:
    """A report of each collection's other queries that an earlier run erased, and whose bytes it left."""
    for collection, ids in wanted.items():
        if others := _erased(place, collection) - {forgotten_hash(collection, each) for each in ids}:
            yield Report(collection, len(others))


def _erased(place: Place, collection: str) -> set[str]:
    """The tombstones of queries of which the ledger and the journal have nothing more but bytes."""
    with place.ledger.snapshot() as snapshot:
        found = forgetting.erased(snapshot.connection, collection)
    with opened_journal(place, collection) as journal:
        here = journal.query_ids() if journal and found else ()
        return found - {forgotten_hash(collection, each) for each in here}


async def _forget(place: Place, collection: str, ids: set[str], dry_run: bool) -> Report:
    async with connected(place) as broker:
        with opened_journal(place, collection) as journal, stores.opened_cache(place.cache) as cache:
            run = _Run(place, collection, Known(ids=ids), journal, broker, dry_run)
            await run.learn()
            if run.known.ids:
                await run.everywhere(cache)
            return run.report


def _compact(place: Place, collections: Iterable[str]) -> None:
    """Takes the bytes of what was deleted, and says that all is done."""
    erased = {each: found for each in collections if (found := _erased(place, each))}
    if not erased:
        return
    emptied = {"ledger": without_remains(place.ledger)}
    with stores.opened_cache(place.cache) as cache:
        if cache:
            emptied["judgment cache"] = cache.compact()
    for collection in erased:
        with opened_journal(place, collection) as journal:
            if journal:
                emptied[f"feed's journal of {collection}"] = journal.compact()
    faults.point("forget.compacted")
    if kept := [name for name, empty in emptied.items() if not empty]:
        raise BackendUnavailable(
            f"the queries are forgotten, but a reader of the {' and the '.join(kept)} keeps their bytes in its"
            " log: run the same command again when exports, backups and feeds have ended"
        )
    with place.ledger.writing("finish forgetting") as connection:
        for tombstones in erased.values():
            forgetting.finish(connection, tombstones, place.ledger.now_us())


def allow_again(place: Place, collection: str, ids: set[str]) -> int:
    """Lets forgotten queries be fed and stored again; how many there were. Raises InputError: none was forgotten."""
    here = 0
    with opened_journal(place, collection) as journal:
        if journal:
            here = journal.allow_again(collection, ids)
    with place.ledger.writing("allow queries again") as connection:
        allowed = forgetting.allow(connection, collection, ids)
        if allowed:
            audit_log.record(
                connection, "allow again", place.ledger.now_us(), collection=collection,
                subject=audit_log.ids(sorted(ids)), count=allowed,
            )  # fmt: skip
    if not max(here, allowed):
        raise InputError(f"none of these queries of collection {collection!r} was forgotten: check ids and name")
    return max(here, allowed)


class _Run:
    """One run over all stores."""

    def __init__(
        self, place: Place, collection: str, known: Known, journal: Journal | None,
        broker: JetStreamBroker | None, dry_run: bool,
    ) -> None:  # fmt: skip
        self._place, self._ledger, self._collection = place, place.ledger, collection
        self.known, self._journal, self._broker, self._dry_run = known, journal, broker, dry_run
        self.report = Report(collection)

    async def learn(self) -> None:
        """What the stores know of the queries; ids that none knows are left out."""
        stores.learn_ledger(self._ledger, self._collection, self.known)
        if self._journal:
            stores.learn_journal(self._journal, self.known)
        if self._broker:
            async for _, message in stores.messages(self._broker, self._collection):
                found = stores.query_in(message.payload)
                if found and found[1].collection == self._collection and found[1].query_id in self.known.ids:
                    self.known.learn(found[0])
        with self._ledger.snapshot() as snapshot:
            keys = {(self._collection, each) for each in self.known.ids}
            begun = {query_id for _, query_id in forgetting.among(snapshot.connection, keys)}
        self.report.unknown = sorted(self.known.ids - self.known.found - begun)
        self.known.ids &= self.known.found | begun
        self.report.queries = len(self.known.ids)

    async def everywhere(self, cache: Any) -> None:
        """Every step."""
        self._mark()
        await self._drain(cache)
        self._files()
        self._done("files")
        self._erase()
        self._done("ledger")
        if self._journal:
            self.report.journal = stores.forget_entries(
                self._journal, self._collection, self.known.ids, dry_run=self._dry_run
            )
        self._done("journal")
        self.report.letters = sorted(self.known.kept)

    async def _drain(self, cache: Any) -> None:
        """Queues and cache, again until the queues hold nothing more: what was under way moves on meanwhile."""
        for number in range(_PASSES):
            if number:
                await asyncio.sleep(_PAUSE_S)
            gone = 0
            if self._broker:
                gone = await stores.erase_messages(self._broker, self._collection, self.known, dry_run=self._dry_run)
            self.report.messages += gone
            self._done("queues")
            self._labels(cache)
            self._done("cache")
            if not gone or self._dry_run:
                return
        raise BackendUnavailable(
            f"messages of the queries of {self._collection} were still under way after {_PASSES} searches of the"
            " queues. The ledger and the journal still hold the queries: run the same command again when the queues"
            " have drained (`qrelay top`)"
        )

    def _labels(self, cache: Any) -> None:
        if cache:
            labels, requests, there = stores.forget_labels(cache, self.known, dry_run=self._dry_run)
            self.report.labels += labels
            self.report.requests += requests
            self.report.at_endpoints = sorted({*self.report.at_endpoints, *there})

    def _done(self, step: str) -> None:
        if not self._dry_run:
            faults.point(f"forget.{step}")

    def _mark(self) -> None:
        told = named(self._ledger, self._collection, self.known.ids, self._place.registry)
        self.report.exports, self.report.models = told
        if not self._dry_run:
            with self._ledger.writing("mark queries as forgotten") as connection:
                forgetting.mark(connection, self._collection, self.known.ids, self._ledger.now_us())
        self._done("marked")

    def _files(self) -> None:
        place = self._place
        stems = (Path(each) for each in (self._ledger.url, place.cache) if "://" not in each)
        apart = {Path(f"{each.resolve()}{end}") for each in stems for end in ("", "-wal", "-shm")}
        finder = Finder(self.known.texts, self._collection, self.known.ids)
        found: Files = forget_files(place.data_dir, finder, apart, dry_run=self._dry_run)
        self.report.files = {str(path): count for path, count in found.rewritten.items()}
        self.report.other_files = list(map(str, found.named))

    def _erase(self) -> None:
        """The act itself, with its row in the audit log."""
        nameless = stores.nameless_letters(self._ledger, self.known)
        with self._ledger.snapshot() as snapshot:
            letters = list(forgetting.letters_of(snapshot.connection, self._collection, self.known.ids))
        self.report.dead_letters = len(letters) + len(nameless)
        if not self._dry_run:
            with self._ledger.writing("forget queries") as connection:
                forgetting.erase(connection, self._collection, self.known.ids, nameless)
                gone = sorted(self.known.ids)
                audit_log.record(
                    connection, "forget", self._ledger.now_us(), collection=self._collection,
                    subject=audit_log.ids(gone), count=len(gone),
                )  # fmt: skip


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[JetStreamBroker | None]:
    """The queues; None where they are to be left alone."""
    if place.nats is None:
        yield None
        return
    async with await JetStreamBroker.connect(place.nats, name="forget", attempts=ATTEMPTS) as broker:
        yield broker


@contextmanager
def opened_journal(place: Place, collection: str) -> Iterator[Journal | None]:
    """The feed's journal of the collection; None where there is none."""
    path = place.data_dir / "feed" / f"{collection}.sqlite"
    if not path.exists():
        yield None
        return
    with Journal(path, create=False) as journal:
        yield journal
