"""Publishes queries, or queries with their candidates, many at once, each until the stream acknowledges it; then
records it.

Killed between acknowledgement and record, the next run publishes the same message id again: the stream
drops it, or the ledger finds it committed. Bounded: at most `window` unacknowledged queries, and a full
stream makes the feed wait. Where nothing else can be published for `_PATIENCE_S`, the feed ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from qrelay import wire
from qrelay.errors import BackendUnavailable, InputError, Overloaded, Oversized, QrelayError, TransientError
from qrelay.feed.fed import Fed, fed_query, subject_of, with_query
from qrelay.feed.journal import Journal
from qrelay.formats.queries import Format, Record, parse_line
from qrelay.identity import feed_message_id, require_collection
from qrelay.runtime import telemetry
from qrelay.runtime.broker import Broker
from qrelay.runtime.dead_letters import REPLAY_HEADER
from qrelay.runtime.stall import Stall
from qrelay.types import CandidateSet

_RETRY_S = (0.05, 0.2, 0.5, 1.0, 2.0)
_PATIENCE_S = 600.0
_FEWER = "; a pool takes less with a lower --depth, and with fewer or shorter passages (--passages, --words)"
Read = Callable[[Any], Fed]
"""What a line or row says. Raises InputError: nothing that can be fed."""


@dataclass(slots=True)
class FeedReport:
    """What became of the lines or rows. `rejected` maps their numbers to reasons; `query_ids` are those
    acknowledged now or before, where the feeder was asked to keep them."""

    accepted: int = 0
    known: int = 0
    rejected: dict[int, str] = field(default_factory=dict)
    query_ids: list[str] = field(default_factory=list, repr=False)
    waiting: str = ""
    failure: QrelayError | None = None
    """What ended the feed before its end. The last queries may be in the queue and not in the journal: feeding again
    adds them to the journal, and to the ledger once."""


class Feeder:
    """See the module."""

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        *,
        collection: str,
        query_round: int = 0,
        read: Format | Read = "auto",
        window: int = 256,
        keep_ids: bool = True,
        on_progress: Callable[[FeedReport], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`query_round`: the round in which the queries are asked, see `types.Query`. A query that was fed in this
        round or a later one is known. `read`: the format of query lines, or what a line or row says. `window`:
        records in memory that are not acknowledged.

        Raises:
            InvalidQuery: no collection can have this name.
        """
        require_collection(collection)
        self._broker = broker
        self._journal = journal
        self._read = partial(parse_line, collection=collection, line_format=read) if isinstance(read, str) else read
        self._round = query_round
        self._window = window
        self._keep_ids = keep_ids
        self._on_progress = on_progress
        self._batch: dict[str, tuple[int, Fed]] = {}
        self._stall = Stall(clock)
        self.report = FeedReport()

    async def feed(self, lines: AsyncIterator[Record | None]) -> FeedReport:
        """Publish what every line or row says; None among them means "nothing for now": publish what waits."""
        number = 0
        async for line in lines:
            if line is None:
                await self._flush()
                continue
            number += 1
            if not isinstance(line, str | bytes) or line.strip():
                await self._take(number, line)
        await self._flush()
        return self.report

    async def _take(self, number: int, line: Record) -> None:
        try:
            record = with_query(self._read(line), round=self._round)
            query_id = fed_query(record).query_id
            if query_id in self._batch:
                await self._flush()  # so that the journal knows its text
            if self._journal.accepted(record):
                self.report.known += 1
                self._keep(query_id)
                return
        except InputError as error:
            self.report.rejected[number] = str(error)
            return
        self._batch[query_id] = number, with_query(record, submitted_at=datetime.now(UTC))
        if len(self._batch) >= self._window:
            await self._flush()

    async def _flush(self) -> None:
        if not self._batch:
            return
        batch = list(self._batch.values())
        outcomes = await asyncio.gather(*(self._publish(record) for _, record in batch), return_exceptions=True)
        for (number, _), refusal in zip(batch, outcomes, strict=True):
            if refusal and isinstance(refusal, str):
                self.report.rejected[number] = refusal
        stored = [record for (_, record), refusal in zip(batch, outcomes, strict=True) if refusal == ""]
        self._journal.record(stored)
        self.report.accepted += len(stored)
        for record in stored:
            self._keep(fed_query(record).query_id)
        self._batch.clear()
        self._on_progress(self.report)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _keep(self, query_id: str) -> None:
        if self._keep_ids:  # a feed that follows for months must not remember every id
            self.report.query_ids.append(query_id)

    def _bear(self, error: TransientError) -> None:
        """Raises BackendUnavailable: it has been so for too long. A full stream is back-pressure, and no fault."""
        if isinstance(error, Overloaded):
            self._stall.ended()
            return
        self._stall.failed("cannot publish", error)
        if why := self._stall.lasts(_PATIENCE_S):
            raise BackendUnavailable(
                f"nothing could be published for {_PATIENCE_S:.0f} s: {why}\nWhat was accepted is safe: the same"
                " command feeds nothing twice and goes on"
            ) from error

    async def _publish(self, record: Fed) -> str:
        """Publish until acknowledged; the reason where the record can never be, else nothing."""
        payload, headers = wire.encode(record)
        with telemetry.span("feed"):
            telemetry.inject_context(headers)
        message_id, subject = feed_message_id(record), subject_of(record)
        if replay := self._journal.replay(fed_query(record)):
            message_id, headers = f"{message_id}-r{replay}", {**headers, REPLAY_HEADER: replay}
        tries = 0
        while True:
            try:
                await self._broker.publish(subject, payload, headers, message_id)
                self.report.waiting = ""
                self._stall.ended()
                return ""
            except Oversized as error:
                return f"{error}{_FEWER if isinstance(record, CandidateSet) else ''}"
            except InputError as error:
                return str(error)
            except TransientError as error:
                self._bear(error)
                self.report.waiting = str(error)
                self._on_progress(self.report)
                await asyncio.sleep(_RETRY_S[min(tries, len(_RETRY_S) - 1)])
                tries += 1
