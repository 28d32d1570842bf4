"""The whole pipeline as a target: a query is published as the feed does, and answered when the ledger has it.

One poller asks the sink's GetQueryStates for all queries on their way; the sink answers at its next commit, and the
poller pauses for POLL_S: a latency is that much too long at most. The ledger, not a count in this process, says what
was committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from qrelay import wire
from qrelay.bench.data import Source
from qrelay.bench.load import Answer
from qrelay.bench.targets.tasks import end
from qrelay.chunks import chunks
from qrelay.config import PLAIN, NatsSettings, Transport
from qrelay.errors import BackendTimeout, TransientError
from qrelay.identity import feed_message_id
from qrelay.runtime.client import OPTIONS, from_rpc_error, signed
from qrelay.runtime.intake import MAX_IDS
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.natsclient import ATTEMPTS
from qrelay.runtime.topology import Queue
from qrelay.security.tls import aio_channel
from qrelay.types import Query
from qrelay.v1 import sink_pb2, sink_pb2_grpc

POLL_S: Final = 0.005
_WAIT_S: Final = 1.0
"""The sink waits so long for a commit; not where queries are so many that they take several calls."""
_PAUSE_S: Final = 0.05
_RPC_S: Final = 30.0
_RETRY_S: Final = 0.05
_DEAD: Final = "dead_letter"
_ENDS: Final[dict[int, str]] = {sink_pb2.QUERY_STATE_COMMITTED: "", sink_pb2.QUERY_STATE_DEAD: _DEAD}


@dataclass(frozen=True, slots=True)
class Ledger:
    """A collection's counts at one moment, from the sink's GetStats."""

    queries: int = 0
    judgments: int = 0
    pairs: int = 0

    def since(self, earlier: Ledger) -> Ledger:
        """What was added."""
        return Ledger(self.queries - earlier.queries, self.judgments - earlier.judgments, self.pairs - earlier.pairs)


@dataclass(frozen=True, slots=True)
class Left:
    """Query ids that `settle` gave up on. lost: the broker confirmed that it stored them, and nothing became of them.
    unconfirmed: their publication was never confirmed. ended: those of the unconfirmed that are in the ledger or the
    dead letters: the broker had stored them nevertheless."""

    lost: Sequence[str] = ()
    unconfirmed: Sequence[str] = ()
    ended: Sequence[str] = ()


@dataclass
class PipelineTarget:
    """load.Target. An async context manager, to be entered in the loop that sends.

    A query's way, from its publication to its end, is a task of the target's own. Whoever sends only waits for it:
    where the waiting is cancelled, the query is published, confirmed and counted all the same, once.
    """

    nats_url: str
    sink: str
    """gRPC address."""
    source: Source
    poll_s: float = POLL_S
    transport: Transport = PLAIN
    nkey_seed: Path | None = None
    name: str = "pipeline"
    sent: int = 0
    """Publications that the broker confirmed."""
    dead: int = 0
    commits: array[float] = field(default_factory=lambda: array("d"))
    """When each commit was seen, monotonic seconds, rising."""
    errors: dict[str, str] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        """Connects.

        Raises:
            BackendUnavailable: NATS or the sink does not answer.
        """
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._unconfirmed: set[str] = set()
        self._ways: set[asyncio.Task[str]] = set()
        settings = NatsSettings(url=self.nats_url, nkey_seed=self.nkey_seed).by(self.transport)
        self.broker = await JetStreamBroker.connect(settings, name="bench", attempts=ATTEMPTS)
        self._channel = aio_channel(self.sink, self.transport, OPTIONS)
        self._stub: Any = signed(sink_pb2_grpc.SinkServiceStub(self._channel))
        self.collection = wire.from_proto(self.source.item(0)).collection
        self._before = await self._stats()
        self._poller = asyncio.create_task(self._poll())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end([self._poller, *self._ways])
        await self._channel.close()
        await self.broker.close()

    async def send(self, number: int) -> Answer:
        """See load.Target: one query, from its publication to its commit."""
        query = replace(wire.from_proto(self.source.item(number)), submitted_at=datetime.now(UTC))
        way = asyncio.create_task(self._way(query))
        self._ways.add(way)
        way.add_done_callback(self._ways.discard)
        reason = await asyncio.shield(way)
        return Answer(0, {reason: 1}) if reason else Answer(1)

    async def settle(self, quiet_s: float) -> Left:
        """Wait until all that was sent has ended, or nothing has for so many seconds; what is left then."""
        ways, changed = len(self._ways), time.monotonic()
        while self._ways and time.monotonic() < changed + quiet_s and not self._poller.done():
            await asyncio.sleep(self.poll_s)
            if len(self._ways) < ways:
                ways, changed = len(self._ways), time.monotonic()
        lost, ended = self._waiting.keys() - self._unconfirmed, self._unconfirmed - self._waiting.keys()
        return Left(sorted(lost), sorted(self._unconfirmed), sorted(ended))

    async def added(self) -> Ledger:
        """What the ledger gained in this collection since the target was entered."""
        return (await self._stats()).since(self._before)

    async def _way(self, query: Query) -> str:
        """Why the query ended without a commit; empty: it was committed."""
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[query.query_id] = ended  # before: it may be in the ledger sooner than its confirmation is here
        self._unconfirmed.add(query.query_id)
        await self._publish(query)
        self._unconfirmed.discard(query.query_id)
        self.sent += 1
        return await ended

    async def _publish(self, query: Query) -> None:
        """Publish until acknowledged, as the feed does."""
        payload, headers = wire.encode(query)
        subject, message_id = Queue.QUERIES.subject(query.collection), feed_message_id(query)
        while True:
            try:
                await self.broker.publish(subject, payload, headers, message_id)
                return
            except TransientError as error:
                self.errors.setdefault(error.reason, str(error))
                await asyncio.sleep(_RETRY_S)

    async def _poll(self) -> None:
        try:
            while True:
                await asyncio.sleep(self.poll_s if len(self._waiting) <= MAX_IDS else _PAUSE_S)
                pages = list(chunks(list(self._waiting), MAX_IDS))  # what came in the pause too
                for page in pages:
                    states = await self._states(page, _WAIT_S if len(pages) == 1 else 0.0)
                    dead = {each for each, state in zip(page, states, strict=True) if _ENDS.get(state) == _DEAD}
                    if dead and _DEAD not in self.errors:
                        await self._keep_why(dead)
                    self._ended(page, states)
        except Exception as error:  # whoever waits must not wait for ever
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(error)
            raise

    def _ended(self, query_ids: Sequence[str], states: Sequence[int]) -> None:
        now = time.monotonic()
        for query_id, state in zip(query_ids, states, strict=True):
            if state not in _ENDS:
                continue
            future = self._waiting.pop(query_id)
            if state == sink_pb2.QUERY_STATE_COMMITTED:
                self.commits.append(now)
            else:
                self.dead += 1
            if not future.done():
                future.set_result(_ENDS[state])

    async def _states(self, query_ids: Sequence[str], wait_s: float) -> Sequence[int]:
        """Nothing has ended for a sink that restarts or is slow."""
        request = sink_pb2.GetQueryStatesRequest(collection=self.collection, query_ids=query_ids, wait_seconds=wait_s)
        try:
            answer = await self._stub.GetQueryStates(request, timeout=_RPC_S)
        except grpc.aio.AioRpcError as error:
            ours = from_rpc_error(self.sink, error)
            if not isinstance(ours, TransientError):
                raise ours from error
            self.errors.setdefault(ours.reason, str(ours))
            return [sink_pb2.QUERY_STATE_PENDING] * len(query_ids)
        states: Sequence[int] = answer.states
        return states

    async def _keep_why(self, query_ids: Collection[str]) -> None:
        """Keep what the dead letter of one of these says; the collection may hold older ones of other runs."""
        request = sink_pb2.ListDeadLettersRequest(collection=self.collection)
        try:
            while True:
                answer = await self._stub.ListDeadLetters(request, timeout=_RPC_S)
                for letter in (entry.dead_letter for entry in answer.entries):
                    if letter.query_id in query_ids:
                        self.errors[_DEAD] = f"{letter.stage}: {letter.reason}: {letter.detail}"
                        return
                if not answer.next_page_token:
                    return
                request.page_token = answer.next_page_token
        except grpc.aio.AioRpcError as error:  # the next dead letter's may be had
            ours = from_rpc_error(self.sink, error)
            self.errors.setdefault(ours.reason, str(ours))

    async def _stats(self) -> Ledger:
        request = sink_pb2.GetStatsRequest(collection=self.collection)
        try:
            answer = await self._stub.GetStats(request, timeout=_RPC_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(self.sink, error) from error
        for row in answer.collections:
            return Ledger(row.queries, row.judgments, row.judged_pairs)
        return Ledger()


@dataclass
class JudgeQueueTarget:
    """The judge alone, through its queue: sets are published to `reranked` and answered on `judged`. A Target, for
    an installation in which nothing else reads `judged`."""

    nats_url: str
    source: Source
    name: str = "judge"

    async def __aenter__(self) -> Self:
        """Connects.

        Raises:
            BackendUnavailable: NATS does not answer.
        """
        self._waiting: dict[str, asyncio.Future[None]] = {}
        settings = NatsSettings(url=self.nats_url)
        self._broker = await JetStreamBroker.connect(settings, name="bench", attempts=ATTEMPTS)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end([self._reader])
        await self._broker.close()

    async def send(self, number: int) -> Answer:
        """See load.Target."""
        record = wire.from_proto(self.source.item(number))
        query = record.query
        payload, headers = wire.encode(record)
        judged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[query.query_id] = judged
        try:
            await self._broker.publish(
                Queue.RERANKED.subject(query.collection), payload, headers, f"bench-{feed_message_id(query)}"
            )
            await asyncio.wait_for(judged, _RPC_S)
        except (TransientError, TimeoutError) as error:
            self._waiting.pop(query.query_id, None)
            return Answer(0, {getattr(error, "reason", BackendTimeout.reason): 1})
        return Answer(1)

    async def _read(self) -> None:
        while True:
            messages = await self._broker.fetch(Queue.JUDGED, 64, 1.0)
            for message in messages:
                record: Any = wire.decode(message.payload, message.headers)
                future = self._waiting.pop(record.candidate_set.query.query_id, None)
                if future and not future.done():
                    future.set_result(None)
            with contextlib.suppress(TransientError):
                await asyncio.gather(*(message.ack() for message in messages))
