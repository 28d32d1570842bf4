"""Collects the evidence from a running installation, and repairs.

The order makes a false "lost" impossible while the services work. The journal comes first: what it holds was in the
first stream before. Then the streams, front to back: the next queue stores a message before it leaves its own, so a
query not met in a stream had passed it. The ledger comes last, as the end of every way. Only a replay of dead letters
moves a query backwards, and a feed may be about to write its journal: suspects are looked at again after a pause.

Cost: one request and one message in memory at a time for what lies in the streams, pages of the ledger, and 150
bytes of temporary disk a query.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from qrelay import wire
from qrelay.config import NatsSettings
from qrelay.errors import MalformedInput
from qrelay.feed.fed import Fed, subject_of
from qrelay.feed.journal import Journal
from qrelay.identity import feed_message_id, query_fingerprint
from qrelay.labels.ledger import audit_log, dead_letters, forgetting
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.reconcile.evidence import Evidence, Report
from qrelay.progress import step
from qrelay.runtime.dead_letters import LETTER_TEXT_CHARS, REPLAY_HEADER, query_of
from qrelay.runtime.jetstream import JetStreamBroker, StoredMessage
from qrelay.runtime.natsclient import ATTEMPTS
from qrelay.runtime.topology import Queue

_WINDOW = 64
_LOOKS = 2


async def reconcile(
    nats: NatsSettings, ledger: Ledger, journal_path: Path, collection: str, *, repair: bool, pause_s: float = 2.0
) -> Report:
    """Where every accepted query of the collection is. With `repair`, lost queries are fed again and dead letters of
    committed queries closed. `pause_s`: seconds before suspects are looked at a second time.

    Raises:
        ConfigError: no journal.
        BackendUnavailable: NATS or the ledger does not answer: nothing is known then.
    """
    async with await JetStreamBroker.connect(nats, name="reconcile", attempts=ATTEMPTS) as broker:
        with (
            Journal(journal_path, create=False) as journal,
            Evidence(collection, LETTER_TEXT_CHARS) as evidence,
        ):
            await collect(broker, ledger, journal, collection, evidence, pause_s)
            report = evidence.report()
            if not repair:
                return report
            reemitted = await reemit(broker, journal, evidence.lost(emittable=True))
            resolved = resolve(ledger, list(evidence.duplicated()))
            return replace(report, reemitted=reemitted, resolved=resolved)


async def collect(
    broker: JetStreamBroker, ledger: Ledger, journal: Journal, collection: str, evidence: Evidence, pause_s: float
) -> None:
    """Journal, streams, ledger; and again where something looks lost or unexpected."""
    evidence.accept(journal.entries())
    evidence.see_forgotten(journal.forgotten(), fed=True)
    for look in range(_LOOKS):
        if look:
            await asyncio.sleep(pause_s)
        await _look_at_streams(broker, collection, evidence)
        with ledger.snapshot() as snapshot:
            evidence.see_ledger(snapshot.submissions(collection))
            evidence.see_forgotten(forgetting.hashes(snapshot.connection, collection))
        if not evidence.suspicious:
            return
        evidence.accept(journal.entries(), only_seen=True)


async def _look_at_streams(broker: JetStreamBroker, collection: str, evidence: Evidence) -> None:
    with step("reading the queues", unit="messages") as reading:
        async for queue, message in _stored(broker, collection):
            reading.advance(1)
            try:
                query = query_of(wire.decode(message.payload, message.headers))
            except MalformedInput:
                continue  # about no query; its worker makes a dead letter of it
            fingerprint = query_fingerprint(query.collection, query.query_id, query.text)
            evidence.see_in_flight(queue, fingerprint, query.query_id, query.round)


async def _stored(broker: JetStreamBroker, collection: str) -> AsyncIterator[tuple[Queue, StoredMessage]]:
    """Front to back."""
    for queue in Queue:
        async for message in broker.stored(queue, collection):
            yield queue, message


async def reemit(broker: JetStreamBroker, journal: Journal, query_ids: Iterable[str]) -> int:
    """Publish these queries again from the journal's records; how many. Killed half-way, the next repair goes on.

    The message id is the feed's with a suffix, and the suffix travels as the replay number to every stage's output:
    streams may still remember the ids of the messages that were lost, and would drop these as repetitions.
    """
    number = str(int(time.time()))
    done = 0
    remaining = iter(query_ids)
    with step("feeding the lost again", unit="queries") as feeding:
        while window := list(islice(remaining, _WINDOW)):
            entries = [journal.entry(query_id) for query_id in window]
            records = [entry.record for entry in entries if entry and entry.record]
            await asyncio.gather(*(_reemit(broker, record, number) for record in records))
            done += len(records)
            feeding.at(done)
    return done


async def _reemit(broker: JetStreamBroker, record: Fed, number: str) -> None:
    payload, headers = wire.encode(record)
    msg_id = f"{feed_message_id(record)}-r{number}"
    await broker.publish(subject_of(record), payload, {**headers, REPLAY_HEADER: number}, msg_id)


def resolve(ledger: Ledger, submissions: list[tuple[str, int]]) -> int:
    """Close the waiting dead letters of committed submissions, each up to its round; how many submissions."""
    for i in range(0, len(submissions), 500):
        with ledger.writing("close the dead letters of committed queries") as connection:
            dead_letters.resolve(connection, submissions[i : i + 500], ledger.now_us())
            count = len(submissions[i : i + 500])
            audit_log.record(connection, "close dead letters of committed queries", ledger.now_us(), count=count)
    return len(submissions)
