"""Waiting until every query is in the ledger or a dead letter.

A sink that does not answer is asked again a bounded number of times; one that prepares itself is waited for. While
nothing ends, it is said what waits where; when nothing is on its way either, the wait ends.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qrelay.chunks import chunks
from qrelay.client.ledger import SINK
from qrelay.client.patience import Patience
from qrelay.config import NatsSettings, Transport
from qrelay.errors import BackendUnavailable, QrelayError, TransientError
from qrelay.progress import Progress, step, tell
from qrelay.rundir import Endpoint, endpoints
from qrelay.runtime.intake import MAX_IDS
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.lookout import is_ready
from qrelay.runtime.topology import Queue, QueueStats
from qrelay.v1 import sink_pb2

ATTEMPTS: Final = 10
"""Times in a row that a sink which does not answer is asked."""
_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 10.0)
_POLL_S: Final = 0.5
_FEW: Final = 100
"""Up to so many pending queries the sink is asked again at each of its commits, after a pause of _PAUSE_S."""
_PAUSE_S: Final = 0.05
_QUIET_S: Final = 10.0
"""Seconds without an end after which it is said what waits where, and again after each so many."""
_EMPTY_LOOKS: Final = 3
"""After so many looks in a row that find nothing in flight, waiting ends."""
_SAFE: Final = "What was fed is safe, in the streams and in the feed's journal"
_SERVICE_OF: Final = {Queue.QUERIES: "retriever", Queue.RETRIEVED: "reranker", Queue.RERANKED: "judge",
                      Queue.JUDGED: "sink", Queue.DLQ: "sink"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ended:
    """How queries ended: how many in the ledger, and which as dead letters; the others were forgotten meanwhile."""

    committed: int
    dead: tuple[str, ...]


async def states(
    patience: Patience, collection: str, query_ids: Sequence[str], query_round: int, wait_s: float = 0.0
) -> list[str]:
    """How each query has ended: committed, dead, forgotten, or pending; asked once. wait_s: where none has, the sink
    answers at its next commit, or after so many seconds (a call).

    Raises:
        TransientError: no sink answers.
    """
    found: list[str] = []
    for page in chunks(query_ids, MAX_IDS):
        request = sink_pb2.GetQueryStatesRequest(
            collection=collection, query_ids=page, round=query_round, wait_seconds=wait_s
        )
        found += _names((await patience.ask(SINK, "GetQueryStates", request)).states)
    return found


def _names(states: Iterable[sink_pb2.QueryState]) -> list[str]:
    return [sink_pb2.QueryState.Name(state).removeprefix("QUERY_STATE_").lower() for state in states]


@dataclass(frozen=True, slots=True)
class QueuesStatus:
    """What is on its way. messages: in all streams; None: not known."""

    messages: int | None
    text: str


async def queues_status(nats: NatsSettings, data_dir: Path) -> QueuesStatus:
    """What waits where, and for whom."""
    try:
        async with await JetStreamBroker.connect(nats, name="wait", attempts=1) as broker:
            queues = await broker.stats()
    except QrelayError as error:
        return QueuesStatus(None, f"the queues cannot be read: {error}")
    return await asyncio.to_thread(_status, queues, data_dir, nats.transport)


def _status(queues: Sequence[QueueStats], data_dir: Path, transport: Transport) -> QueuesStatus:
    here = {name: end for name, end in endpoints(data_dir).items() if name != "nats"}
    waiting = [
        f"{queue.lag} for the {_SERVICE_OF[queue.queue]}{_state(here, _SERVICE_OF[queue.queue], transport)}"
        for queue in queues
        if queue.lag
    ]
    return QueuesStatus(sum(queue.lag for queue in queues), f"in flight: {', '.join(waiting) or 'none'}")


def _state(here: Mapping[str, Endpoint], service: str, transport: Transport) -> str:
    """Why a service may take nothing: only where some run from the data folder is that known."""
    if not here:
        return ""
    if service not in here:
        return " (not running)"
    return "" if is_ready(here[service], transport) else " (not ready)"


def waiting(
    patience: Patience, nats: NatsSettings, collection: str, query_round: int, say: Callable[[str], None], again: str
) -> Waiting:
    """The wait for queries of a collection and round, by the sink and the queues. say, again: see `Waiting`."""

    async def ask(query_ids: Sequence[str]) -> Sequence[str]:
        wait_s = _POLL_S if len(query_ids) <= _FEW else 0.0
        return await states(patience, collection, query_ids, query_round, wait_s)

    async def preparing() -> Progress | None:
        found = await patience.places.preparing(SINK)
        return found and found[0]

    async def look() -> QueuesStatus:
        return await queues_status(nats, patience.places.data_dir)

    return Waiting(ask, preparing, look, say, again)


@dataclass
class Waiting:
    """One wait. ask: the state of each of these queries, raises TransientError; preparing: what the sink prepares, if
    it does; look: what is in flight; say: prints a line; again: what to do where the sink does not answer."""

    ask: Callable[[Sequence[str]], Awaitable[Sequence[str]]]
    preparing: Callable[[], Awaitable[Progress | None]]
    look: Callable[[], Awaitable[QueuesStatus]]
    say: Callable[[str], None]
    again: str
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    counts: Counter[str] = field(default_factory=Counter)
    dead: list[str] = field(default_factory=list)

    async def until_ended(self, query_ids: Sequence[str]) -> Ended:
        """Ask until every query has ended, and say how.

        Raises:
            BackendUnavailable: the sink did not answer in ATTEMPTS attempts, or nothing is on its way any more.
        """
        pending = list(dict.fromkeys(query_ids))
        quiet_since, empty = self.clock(), 0
        with step("labelling", total=len(pending), unit="queries") as labelling:
            while pending:
                left = await self._ask(pending)
                labelling.at(sum(self.counts.values()))
                if len(left) < len(pending):
                    pending, quiet_since, empty = left, self.clock(), 0
                elif self.clock() - quiet_since >= _QUIET_S:
                    quiet_since, empty = self.clock(), await self._tell(len(pending), empty)
                if pending:
                    await self.sleep(_POLL_S if len(pending) > _FEW else _PAUSE_S)
        return Ended(self.counts["committed"], tuple(self.dead))

    async def _ask(self, pending: Sequence[str]) -> list[str]:
        """Those that have not ended; the others are counted."""
        states = await self._states(pending)
        self.counts.update(state for state in states if state != "pending")
        self.dead += [query_id for query_id, state in zip(pending, states, strict=True) if state == "dead"]
        return [query_id for query_id, state in zip(pending, states, strict=True) if state == "pending"]

    async def _states(self, pending: Sequence[str]) -> Sequence[str]:
        attempt = 0
        while True:
            try:
                return await self.ask(pending)
            except TransientError as error:
                if doing := await self.preparing():
                    tell(doing)
                    await self.sleep(_POLL_S)
                    continue
                attempt += 1
                await self._pause(attempt, error)

    async def _pause(self, attempt: int, error: TransientError) -> None:
        if attempt == ATTEMPTS:
            raise BackendUnavailable(
                f"the sink did not answer in {ATTEMPTS} attempts: {error}\n{_SAFE}: start the services, {self.again}"
            ) from error
        pause = _PAUSES_S[min(attempt, len(_PAUSES_S)) - 1]
        self.say(f"the sink does not answer (attempt {attempt} of {ATTEMPTS}): {error}; again in {pause:g} s")
        await self.sleep(pause)

    async def _tell(self, pending: int, empty: int) -> int:
        """Say what is in flight; how many looks in a row found nothing."""
        found = await self.look()
        self.say(f"queries that have not ended: {pending}; {found.text}")
        empty = empty + 1 if found.messages == 0 else 0
        if empty == _EMPTY_LOOKS:
            raise BackendUnavailable(
                f"nothing is in flight, and the sink does not know how {pending} of the queries ended: is it the"
                f" sink of this NATS? {_SAFE}: `qrelay reconcile` says where each is"
            )
        return empty
