"""The sink's endpoints on one core: two stages (judged sets, dead letters) and the gRPC servicer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from qrelay import wire
from qrelay.errors import InputError, QrelayError, SetupError, StoreUnavailable, TransientError
from qrelay.jobs.dispatcher import Dispatcher
from qrelay.labels.exports.request import Options
from qrelay.labels.ledger.columns import Columns
from qrelay.labels.ledger.dead_letters import DeadLetterEntry
from qrelay.labels.ledger.ledger import MAX_PAGE_SIZE, CommitStatus
from qrelay.labels.settings import SinkSettings
from qrelay.runtime import telemetry
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.dead_letters import REPLAY_HEADER, portable, replays, require_own_queue
from qrelay.runtime.gathering import computed
from qrelay.runtime.intake import MAX_IDS
from qrelay.runtime.servicer import answer_items, streamed
from qrelay.runtime.stage import ServiceDef, Work
from qrelay.runtime.topology import Queue
from qrelay.services.sink.models import ModelsServicer
from qrelay.services.sink.reading import columns_of
from qrelay.services.sink.sink import Sink, load_sink
from qrelay.types import DeadLetter, JudgedSet
from qrelay.v1 import sink_pb2 as pb
from qrelay.v1 import sink_pb2_grpc as pb_grpc

log = logging.getLogger(__name__)

T = TypeVar("T")
Context = ServiceContext[SinkSettings, Sink]

_OUTAGE_POLL_S = 1.0
"""Seconds between tries while the database does not answer; held messages are no attempts."""
_WAIT_S = 1.0
"""Seconds at most that a call waits for news: so late may what another sink committed be seen."""
_PAGE = 100
"""Dead letters that are replayed in one transaction."""
_STATUS = {
    CommitStatus.COMMITTED: pb.INGEST_STATUS_COMMITTED,
    CommitStatus.DUPLICATE: pb.INGEST_STATUS_DUPLICATE,
    CommitStatus.FORGOTTEN: pb.INGEST_STATUS_FORGOTTEN,
}
_LETTER_STATES = {
    "open": pb.DEAD_LETTER_STATE_OPEN,
    "replaying": pb.DEAD_LETTER_STATE_OPEN,
    "replayed": pb.DEAD_LETTER_STATE_REPLAYED,
    "resolved": pb.DEAD_LETTER_STATE_RESOLVED,
}
_QUERY_STATES = {
    "committed": pb.QUERY_STATE_COMMITTED,
    "dead": pb.QUERY_STATE_DEAD,
    "forgotten": pb.QUERY_STATE_FORGOTTEN,
}
_FORMATS = {
    pb.EXPORT_FORMAT_QRELS: "qrels",
    pb.EXPORT_FORMAT_TRIPLES: "triples",
    pb.EXPORT_FORMAT_RUN: "run",
    pb.EXPORT_FORMAT_MSMARCO: "msmarco",
    pb.EXPORT_FORMAT_MSMARCO_IDS: "msmarco-ids",
    pb.EXPORT_FORMAT_TEVATRON: "tevatron",
}


def commit(
    core: Sink, sets: Sequence[JudgedSet | Columns], audited: bool = False
) -> list[CommitStatus | QrelayError]:
    """Commit and count. audited: somebody's act."""
    outcomes = core.ledger.commit(sets, audited=audited)
    for outcome, count in Counter(o for o in outcomes if isinstance(o, CommitStatus)).items():
        telemetry.COMMITS.labels(outcome.name.lower()).inc(count)
    return outcomes


def rejudge(core: Sink, sets: Sequence[JudgedSet | Columns]) -> list[int | QrelayError]:
    """Add re-judgments and count the sets that had any."""
    outcomes = core.ledger.rejudge(sets)
    added = Counter("rejudged" if o else "duplicate" for o in outcomes if isinstance(o, int))
    for outcome, count in added.items():
        telemetry.COMMITS.labels(outcome).inc(count)
    return outcomes


class IngestStage:
    """judged -> ledger. Acked after the commit; a set that is there already is acked too."""

    name = "sink"
    source = Queue.JUDGED
    target = None
    read = staticmethod(columns_of)

    def __init__(self, core: Sink) -> None:
        self._core = core

    def cost(self, record: JudgedSet | Columns) -> int:
        """Judgments to write."""
        return len(record.judgments)

    async def handle(self, works: Sequence[Work]) -> Sequence[QrelayError | None]:
        """One durable transaction for the batch."""
        outcomes = await asyncio.to_thread(commit, self._core, [work.record for work in works])
        self._core.news.tell()
        for outcome in outcomes:
            if isinstance(outcome, TransientError | SetupError):  # the database's, never a set's
                raise StoreUnavailable(str(outcome), retry_after_s=_OUTAGE_POLL_S) from outcome
        return [outcome if isinstance(outcome, QrelayError) else None for outcome in outcomes]


class DeadLetterStage:
    """dlq -> ledger, so that dead letters can be listed, counted and replayed beside what was committed."""

    name = "sink-dead-letters"
    source = Queue.DLQ
    target = None
    read = staticmethod(wire.from_proto)

    def __init__(self, core: Sink) -> None:
        self._core = core

    def cost(self, record: DeadLetter) -> int:
        """One row."""
        return 1

    async def handle(self, works: Sequence[Work]) -> Sequence[QrelayError | None]:
        """Record the batch; dead letters that are there already stay as they are."""
        try:
            await asyncio.to_thread(self._core.ledger.record_dead_letters, [work.record for work in works])
        except (TransientError, SetupError) as error:
            raise StoreUnavailable(str(error), retry_after_s=_OUTAGE_POLL_S) from error
        self._core.news.tell()
        return [None] * len(works)


class SinkServicer(ModelsServicer):
    """The gRPC servicer; training and models are in `models.py`."""

    async def Ingest(self, request: pb.IngestRequest, context: Any) -> pb.IngestResponse:
        """Each set committed, or its re-judgments added, in order; answers when that is on disk."""
        write: Any = rejudge if request.rejudgment else partial(commit, audited=True)
        results = await answer_items(
            self._context,
            request.judged_sets,
            lambda sets: computed("sink", sets, asyncio.to_thread(write, self._context.core, sets)),
            _added if request.rejudgment else lambda status: pb.IngestResult(status=_STATUS[status]),
            lambda error: pb.IngestResult(error=error),
            columns_of,
        )
        self._context.core.news.tell()
        return pb.IngestResponse(results=results)

    def StreamIngest(
        self, requests: AsyncIterator[pb.StreamIngestRequest], context: Any
    ) -> AsyncIterator[pb.StreamIngestResponse]:
        """Ingest, request after request."""
        return streamed(requests, self.Ingest, pb.StreamIngestResponse, context)

    async def ListJudgedSets(
        self, request: pb.ListJudgedSetsRequest, context: Any
    ) -> AsyncIterator[pb.ListJudgedSetsResponse]:
        """The sets to judge again. The client may take hours between two: nothing is held open meanwhile."""
        sets = self._context.core.select(request.collection, request.where, request.after_query_id)
        while (record := await asyncio.to_thread(_next, sets)) is not None:
            yield pb.ListJudgedSetsResponse(judged_set=wire.to_proto(record))

    async def Export(self, request: pb.ExportRequest, context: Any) -> AsyncIterator[pb.ExportResponse]:
        """The export in chunks, then its manifest."""
        if request.format not in _FORMATS:
            raise InputError(f"set format to one of {', '.join(map(pb.ExportFormat.Name, _FORMATS))}")
        export = self._context.core.export(
            request.collection,
            _FORMATS[request.format],
            request.judge or None,
            unqualified=request.unqualified,
            unmeasured=request.unmeasured,
            where=request.where,
            overrides=request.overrides,
            options=Options(system=request.system),
        )
        chunks, sha = iter(export.chunks()), hashlib.sha256()
        while (chunk := await asyncio.to_thread(_next, chunks)) is not None:
            sha.update(chunk)
            yield pb.ExportResponse(chunk=chunk)
        manifest = pb.ExportManifest(
            collection=request.collection,
            format=request.format,
            rows=export.tally.rows,
            queries=export.tally.queries,
            missing_judgments=export.tally.missing.total(),
            sha256=sha.hexdigest(),
            qualification=export.tally.usage.verdict,
            manifest_json=json.dumps(export.manifest(), ensure_ascii=False),
        )
        for warning in export.tally.usage.warnings:
            log.warning("exported %s of %s: %s", export.request.kind, request.collection, warning)
        yield pb.ExportResponse(manifest=manifest)

    async def GetStats(self, request: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        """Counts of a collection, or of each."""
        stats = await asyncio.to_thread(self._context.core.ledger.stats, request.collection or None)
        names = pb.CollectionStats.DESCRIPTOR.fields_by_name
        rows = [pb.CollectionStats(**{name: getattr(row, name) for name in names}) for row in stats]
        return pb.GetStatsResponse(collections=rows)

    async def GetQueryStates(self, request: pb.GetQueryStatesRequest, context: Any) -> pb.GetQueryStatesResponse:
        """Where each query has ended; waits for news where none has, if it is asked to."""
        _check_ids(request.query_ids)
        coming = self._context.core.news.coming  # before the look: what is told meanwhile is heard
        states = await self._query_states(request)
        if request.wait_seconds > 0 and set(states) <= {pb.QUERY_STATE_PENDING}:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(request.wait_seconds, _WAIT_S)):
                    await coming.wait()
            states = await self._query_states(request)
        return pb.GetQueryStatesResponse(states=states)

    async def _query_states(self, request: pb.GetQueryStatesRequest) -> list[pb.QueryState]:
        found = await asyncio.to_thread(
            self._context.core.ledger.query_states, request.collection, list(request.query_ids), request.round
        )
        return [_QUERY_STATES.get(found.get(each, ""), pb.QUERY_STATE_PENDING) for each in request.query_ids]

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Any) -> pb.ListDeadLettersResponse:
        """A page of dead letters, oldest first; shorter than asked where they are large."""
        page = await asyncio.to_thread(
            self._context.core.ledger.list_dead_letters,
            request.collection or None,
            request.include_closed,
            min(request.page_size, MAX_PAGE_SIZE),
            request.page_token,
            self._context.settings.grpc.max_message_bytes // 2,
        )
        entries = [_entry(entry) for entry in page.entries]
        return pb.ListDeadLettersResponse(entries=entries, next_page_token=page.next_page_token)

    async def ReplayDeadLetters(
        self, request: pb.ReplayDeadLettersRequest, context: Any
    ) -> pb.ReplayDeadLettersResponse:
        """Publish the originals again. Marked before and after, so that a crash in between is repaired by
        replaying again: the same message id is stored once, and a committed query cannot commit twice."""
        ids = list(request.dead_letter_ids)
        if bool(ids) == request.all:
            raise InputError("give dead_letter_ids, or all, and not both")
        _check_ids(ids)
        ids = ids or await asyncio.to_thread(self._context.core.ledger.waiting_dead_letters)
        replayed: set[str] = set()
        for start in range(0, len(ids), _PAGE):
            replayed |= await self._replay_page(ids[start : start + _PAGE])
        return pb.ReplayDeadLettersResponse(replayed=len(replayed), skipped_ids=sorted(set(ids) - replayed))

    async def _replay_page(self, ids: list[str]) -> set[str]:
        """Publish these dead letters' originals; the ids of those that were."""
        ledger = self._context.core.ledger
        published: set[str] = set()
        letters = await asyncio.to_thread(ledger.begin_replay, ids)
        try:
            for letter in letters:
                if await self._replay(letter):
                    published.add(letter.dead_letter_id)
        finally:
            await asyncio.to_thread(ledger.finish_replay, sorted(published))
        return published

    async def _replay(self, letter: DeadLetter) -> bool:
        """Whether the original could be published again; why not is logged."""
        number = str(int(replays(letter.headers) or "0") + 1)
        headers = {**portable(letter.headers), REPLAY_HEADER: number}
        try:
            if not letter.payload:
                raise InputError("its original is not kept")
            require_own_queue(letter)
            await self._context.broker.publish(
                letter.subject, letter.payload, headers, f"{letter.dead_letter_id}-r{number}"
            )
        except InputError as error:
            log.warning("not replayed", extra={"dead_letter_id": letter.dead_letter_id, "error": str(error)})
            return False
        return True


def _check_ids(ids: Sequence[str]) -> None:
    if len(ids) > MAX_IDS:
        raise InputError(f"{len(ids)} ids in one call; at most {MAX_IDS} are allowed: ask in pages")


def _next(items: Iterator[T]) -> T | None:
    return next(items, None)


def _added(judgments: int) -> pb.IngestResult:
    status = pb.INGEST_STATUS_COMMITTED if judgments else pb.INGEST_STATUS_DUPLICATE
    return pb.IngestResult(status=status, judgments_added=judgments)


def _entry(entry: DeadLetterEntry) -> pb.DeadLetterEntry:
    closed_at = None
    if entry.closed_at is not None:
        closed_at = Timestamp()
        closed_at.FromDatetime(entry.closed_at)
    return pb.DeadLetterEntry(
        dead_letter=wire.to_proto(entry.letter), state=_LETTER_STATES[entry.state], closed_at=closed_at
    )


async def work_beside(context: Context, stopping: asyncio.Event) -> None:
    """Until `stopping`: launches and follows training jobs, where there is a policy or a command; publishes, where a
    repository is named."""
    works = []
    if context.settings.training.active:
        works.append(Dispatcher(context.core.ledger, context.settings).run(stopping))
    if context.core.publisher:
        works.append(context.core.publisher.run(stopping))
    await asyncio.gather(*works)


SERVICE: ServiceDef[SinkSettings, Sink] = ServiceDef(
    name="sink",
    grpc_name="qrelay.v1.SinkService",
    settings=SinkSettings,
    load=load_sink,
    stages=lambda context: [IngestStage(context.core), DeadLetterStage(context.core)],
    add_servicer=lambda server, context: pb_grpc.add_SinkServiceServicer_to_server(SinkServicer(context), server),
    info=lambda core: core.info(),
    close=lambda core: core.close(),
    background=work_beside,
)
