"""What queues, dead letters, journal and judgment cache hold of queries, and taking it away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qrelay import wire
from qrelay.errors import MalformedInput
from qrelay.feed.journal import Journal
from qrelay.forgetting.finder import Finder, unpacked
from qrelay.identity import judgment_key
from qrelay.judging.cache_records import NO_CACHE, POSTGRES
from qrelay.labels.ledger import forgetting
from qrelay.labels.ledger.ledger import Ledger
from qrelay.runtime.dead_letters import UNREADABLE, query_of
from qrelay.runtime.jetstream import JetStreamBroker, StoredMessage
from qrelay.runtime.stage import Record
from qrelay.runtime.topology import Queue
from qrelay.types import CandidateSet, DeadLetter, JudgedSet, Query

if TYPE_CHECKING:
    from qrelay.judging.batches.store import SqlBatches


@dataclass(slots=True)
class Known:
    """What was learnt of the queries from the stores: their ids, texts, judgment keys, and the passages that they
    were judged with, as (text, title, passage's text). The record of it lasts as long as the run."""

    ids: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)
    """Ids that some store knows."""
    judgment_keys: set[str] = field(default_factory=set)
    pairs: set[tuple[str, str, str]] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    """Unreadable dead letters that may hold a text and stay."""

    def learn(self, record: Record) -> None:
        """From a message, a dead letter's original or a journal's record."""
        if isinstance(record, DeadLetter):
            self.found.add(record.query_id)
            self.learn_original(record.payload, record.collection, record.query_id)
        query = query_of(record)
        self.found.add(query.query_id)
        self.texts.update(each for each in (query.text,) if each)
        if isinstance(record, JudgedSet):
            self.judgment_keys.update(each.judgment_key for each in record.judgments)
        candidates = record.candidate_set if isinstance(record, JudgedSet) else record
        if isinstance(candidates, CandidateSet):
            passages = (each.passage for each in candidates.candidates)
            self.pairs.update((query.text, each.title, each.text) for each in passages if each.text)

    def learn_original(self, payload: bytes, collection: str, query_id: str) -> None:
        """From what a dead letter of this query wraps, if that is the query's too."""
        found = query_in(payload)
        if found and (found[1].collection, found[1].query_id) == (collection, query_id):
            self.learn(found[0])


def _headers(payload: bytes) -> dict[str, str]:
    return {wire.CONTENT_ENCODING: wire.ZSTD} if payload.startswith(wire.ZSTD_MAGIC) else {}


def query_in(payload: bytes) -> tuple[Record, Query] | None:
    """The record in a message and its query; None: nobody can read it."""
    try:
        record = wire.decode(payload, _headers(payload))
    except MalformedInput:
        return None
    return record, query_of(record)


async def messages(broker: JetStreamBroker, collection: str) -> AsyncIterator[tuple[Queue, StoredMessage]]:
    """What lies in the queues for a collection, and the dead letters of messages that nobody could read; front to
    back."""
    for queue in Queue:
        async for message in broker.stored(queue, collection):
            yield queue, message
    async for message in broker.stored(Queue.DLQ, UNREADABLE):
        yield Queue.DLQ, message


async def erase_messages(broker: JetStreamBroker, collection: str, known: Known, *, dry_run: bool) -> int:
    """Erases the queries' messages and learns from them; then those that nobody can read and in which a text of
    theirs stands alone. How many."""
    nameless, gone = list[tuple[Queue, StoredMessage, bytes]](), 0
    async for queue, message in messages(broker, collection):
        found = query_in(message.payload)
        if found is None or not found[1].query_id:
            nameless.append((queue, message, _whole(message.payload, found)))
        elif found[1].collection == collection and found[1].query_id in known.ids:
            known.learn(found[0])
            gone += await _erase(broker, queue, message, dry_run)
    finder = Finder(known.texts)
    for queue, message, content in nameless:
        if finder.surely(content):
            gone += await _erase(broker, queue, message, dry_run)
        elif finder.loosely(content):
            known.kept.add(f"message {message.sequence} of {queue.stream}")
    return gone


async def _erase(broker: JetStreamBroker, queue: Queue, message: StoredMessage, dry_run: bool) -> int:
    if not dry_run:
        await broker.erase(queue, message.sequence)
    return 1


def _whole(payload: bytes, found: tuple[Record, Query] | None) -> bytes:
    """A message's bytes, and those that a dead letter wraps."""
    original = found[0].payload if found and isinstance(found[0], DeadLetter) else b""
    return unpacked(payload) + b"\n" + unpacked(original)


def nameless_letters(ledger: Ledger, known: Known) -> list[int]:
    """Dead letters of the ledger about no query in which one of the texts stands alone."""
    finder, found = Finder(known.texts), list[int]()
    with ledger.snapshot() as snapshot:
        for row in forgetting.nameless_letters(snapshot.connection):
            contents = (bytes(row.payload), row.detail)
            if any(map(finder.surely, contents)):
                found.append(row.letter_no)
            elif any(map(finder.loosely, contents)):
                known.kept.add(f"dead letter {row.letter_no} of the ledger")
    return found


def learn_ledger(ledger: Ledger, collection: str, known: Known) -> None:
    """From the ledger's queries and dead letters of these ids."""
    with ledger.snapshot() as snapshot:
        for row in forgetting.held(snapshot.connection, collection, known.ids):
            known.found.add(row.query_id)
            known.texts.add(row.text)
            known.judgment_keys |= row.judgment_keys
        for letter in forgetting.letters_of(snapshot.connection, collection, known.ids):
            known.found.add(letter.query_id)
            known.texts.update(each for each in (letter.query_text,) if each)
            known.learn_original(bytes(letter.payload), collection, letter.query_id)


def learn_journal(journal: Journal, known: Known) -> None:
    """From the feed's records."""
    for query_id in known.ids:
        if entry := journal.entry(query_id):
            known.found.add(query_id)
            if entry.record:
                known.learn(entry.record)


@contextmanager
def opened_cache(address: str) -> Iterator[SqlBatches | None]:
    """The judgment cache with its batches; None where there is none."""
    from qrelay.judging.batches.store import SqlBatches

    if address == NO_CACHE or (not address.startswith(POSTGRES) and not Path(address).exists()):
        yield None
        return
    cache = SqlBatches(address)
    try:
        yield cache
    finally:
        cache.close()


def forget_labels(cache: SqlBatches, known: Known, *, dry_run: bool) -> tuple[int, int, list[str]]:
    """Labels, requests of batches, and what the endpoint calls the files and batches that those were sent in."""
    finder = Finder(known.texts)
    keys = known.judgment_keys | _keys(cache, known.pairs)
    labels = cache.erase(keys, finder.quotes, dry_run=dry_run)
    requests, there = cache.erase_texts(finder.loosely, dry_run=dry_run)
    return labels, requests, there


def _keys(cache: SqlBatches, pairs: Collection[tuple[str, str, str]]) -> set[str]:
    """Keys of pairs that never reached the ledger, by every judge of the cache."""
    judges = [each.judge_hash for each in cache.stats().judges] if pairs else []
    return {judgment_key(*pair, judge) for pair in pairs for judge in judges}


def forget_entries(journal: Journal, collection: str, ids: Collection[str], *, dry_run: bool) -> int:
    """The journal's entries of these queries; how many."""
    if dry_run:
        return sum(journal.entry(each) is not None for each in ids)
    return journal.forget(collection, ids)
