"""`AsyncClient`: the services of an installation, from a program that has an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, Self, overload

from qrelay.client import feeding, inputs, ledger, methods
from qrelay.client.flow import Flow
from qrelay.client.inputs import AskedFeed, AskedQuery, AskedSet
from qrelay.client.ledger import Exported, Kind
from qrelay.client.local import Corpus, Installation, Settings
from qrelay.client.patience import ATTEMPTS, TIMEOUT_S, Patience
from qrelay.client.places import SERVICES, Places
from qrelay.client.results import AsyncResults, raising
from qrelay.client.waiting import Ended, waiting
from qrelay.config import Transport
from qrelay.errors import QrelayError
from qrelay.feed.feeder import FeedReport
from qrelay.settings.sources import default_data_dir
from qrelay.types import CandidateSet, JudgedSet, Query

log = logging.getLogger(__name__)

OnError = Literal["raise", "return"]
Queries = Iterable[AskedQuery | QrelayError] | AsyncIterable[AskedQuery | QrelayError]
Sets = Iterable[AskedSet | QrelayError] | AsyncIterable[AskedSet | QrelayError]
JudgedSets = Iterable[JudgedSet | QrelayError] | AsyncIterable[JudgedSet | QrelayError]
_AGAIN = "or give sink=… the right address, and wait again"


class AsyncClient:
    """The services of one installation. An async context manager; use it from one event loop.

        async with AsyncClient(collection="docs") as client:
            async for judged in client.judge(client.rerank(client.retrieve(["how do I parse JSON?"]))):
                print(judged)

    A call with one item answers with one record. A call with many gives an iterator: items go through one stream, a
    bounded number of them in flight, and records come in their order as they are ready. Calls are repeated where a
    service does not answer; all of them may be, because what they ask for or store has an identity.
    """

    def __init__(
        self,
        data_dir: str | Path | None = None,
        *,
        collection: str = "",
        retriever: str | None = None,
        reranker: str | None = None,
        judge: str | None = None,
        sink: str | None = None,
        nats: str | None = None,
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS,
        transport: Transport | None = None,
    ) -> None:
        """data_dir: of the `qrelay up` whose services are called; None: as every command finds it; where addresses
        are given, it is looked for only when a call needs another one, or the feed's journal. collection: of calls
        that name none. retriever, reranker, judge, sink: host:port or dns:///name:port of those that run
        elsewhere; nats: their queues' URL. timeout_s: seconds without any answer, after which a call fails.
        attempts: tries in a row of a service that does not answer. transport: certificates to show and believe; None:
        those of the installation's settings (all.tls), else plain text on this machine.

        Raises:
            ConfigError: no address is given, and the settings file, which names the data folder, does not hold.
        """
        all_given = zip(SERVICES, (retriever, reranker, judge, sink), strict=True)
        given = {name: address for name, address in all_given if address}
        folder = Path(data_dir) if data_dir is not None else None if given else default_data_dir()
        self._places = Places(folder, given, transport=transport)
        self._patience = Patience(self._places, timeout_s, attempts)
        self._collection, self._nats = collection, nats

    @classmethod
    @asynccontextmanager
    async def local(
        cls,
        corpus: Corpus | None = None,
        *,
        collection: str = "",
        settings: Settings | None = None,
        data_dir: str | Path | None = None,
        reuse: bool = False,
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS,
    ) -> AsyncIterator[Self]:
        """A client of services that run as long as the block: `qrelay up` on the data folder, which keeps what was
        labelled. corpus: what the collection's index is built of, unless it is; settings: as in qrelay.yaml; reuse:
        use services that run from the folder already, and leave them running.

        Raises:
            ConfigError: services run from the folder already; settings that do not hold.
            SetupError: the services, or the index, ended with an error; its text is in it.
        """
        client = cls(data_dir, collection=collection, timeout_s=timeout_s, attempts=attempts)
        installation = Installation(client.data_dir, settings, reuse=reuse)
        if corpus is not None:
            await asyncio.to_thread(installation.index, corpus, collection)
        try:
            await asyncio.to_thread(installation.start)
            async with client:
                yield client
        finally:
            await asyncio.to_thread(installation.stop)

    @property
    def data_dir(self) -> Path:
        """Of the installation. Raises ConfigError: the settings file, which names it, does not hold."""
        return self._places.data_dir

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Calls that still run fail."""
        await self._places.close()

    def __repr__(self) -> str:
        given = self._places.given
        where = [f"{name}={address!r}" for name, address in given.items()] or [repr(str(self.data_dir))]
        return f"{type(self).__name__}({', '.join(where)}, collection={self._collection!r})"

    # -- the services

    @overload
    def retrieve(  # type: ignore[overload-overlap]  # a text is an iterable of texts, and means one
        self, queries: AskedQuery, *, collection: str = "", max_candidates: int = 0
    ) -> Coroutine[Any, Any, CandidateSet]: ...
    @overload
    def retrieve(
        self, queries: Queries, *, collection: str = "", max_candidates: int = 0, on_error: Literal["raise"] = "raise"
    ) -> AsyncResults[CandidateSet]: ...
    @overload
    def retrieve(
        self, queries: Queries, *, collection: str = "", max_candidates: int = 0, on_error: OnError
    ) -> AsyncResults[CandidateSet | QrelayError]: ...
    def retrieve(
        self, queries: Any, *, collection: str = "", max_candidates: int = 0, on_error: OnError = "raise"
    ) -> Any:
        """The candidates of each query: BM25 and dense, with every system's score and rank, best first.

        queries: one (a text, a dict as a line of queries.jsonl, a `Query`), answered by its set; or many, answered by
        an iterator with a set a query, in their order. collection: of texts and dicts; "": the client's.
        max_candidates: passages a query at most; 0: as the service is set. on_error: of many, raise the first error,
        or give each in its query's place.

        Raises:
            InputError: what is no query, or (UnknownCollection) is asked of no index that is served.
            TransientError: after the attempts the service still does not answer or has no room; BackendTimeout: it
                answered nothing for `timeout_s` seconds.
        """
        return self._asked(methods.retrieve(max_candidates), queries, inputs.query, collection, on_error)

    @overload
    def rerank(
        self, sets: AskedSet, *, collection: str = "", max_candidates: int = 0
    ) -> Coroutine[Any, Any, CandidateSet]: ...
    @overload
    def rerank(
        self, sets: Sets, *, collection: str = "", max_candidates: int = 0, on_error: Literal["raise"] = "raise"
    ) -> AsyncResults[CandidateSet]: ...
    @overload
    def rerank(
        self, sets: Sets, *, collection: str = "", max_candidates: int = 0, on_error: OnError
    ) -> AsyncResults[CandidateSet | QrelayError]: ...
    def rerank(self, sets: Any, *, collection: str = "", max_candidates: int = 0, on_error: OnError = "raise") -> Any:
        """Each set scored, cut to the best, with the judge's sample marked (only it keeps its text).

        sets: one or many, as `retrieve` has them: `CandidateSet`s, or dicts as `qrelay feed --format candidates`
        reads them. max_candidates: kept of a set at most; 0: as the service is set. collection (of dicts) and
        on_error: as `retrieve` has them.

        Raises:
            InputError: what is no set, or whose query has no text.
            TransientError: as `retrieve` has it.
        """
        return self._asked(methods.rerank(max_candidates), sets, inputs.candidate_set, collection, on_error)

    @overload
    def judge(self, sets: AskedSet, *, collection: str = "") -> Coroutine[Any, Any, JudgedSet]: ...
    @overload
    def judge(
        self, sets: Sets, *, collection: str = "", on_error: Literal["raise"] = "raise"
    ) -> AsyncResults[JudgedSet]: ...
    @overload
    def judge(
        self, sets: Sets, *, collection: str = "", on_error: OnError
    ) -> AsyncResults[JudgedSet | QrelayError]: ...
    def judge(self, sets: Any, *, collection: str = "", on_error: OnError = "raise") -> Any:
        """The sampled candidates of each set judged; all of a set without a sample. A judgment for each judge and
        passage: a grade from 0 on with probabilities, or why it is missing. Nothing is kept: see `ingest`, or `feed`
        instead.

        sets: one or many, as `rerank` has them. collection (of dicts) and on_error: as `retrieve` has them.

        Raises:
            InputError: what is no set.
            TransientError: as `retrieve` has it; OnHold: no set can be judged for now, such as BudgetExhausted.
        """
        return self._asked(methods.JUDGE, sets, inputs.candidate_set, collection, on_error)

    @overload
    def ingest(self, sets: JudgedSet, *, rejudgment: bool = False) -> Coroutine[Any, Any, int]: ...
    @overload
    def ingest(
        self, sets: JudgedSets, *, rejudgment: bool = False, on_error: Literal["raise"] = "raise"
    ) -> AsyncResults[int]: ...
    @overload
    def ingest(
        self, sets: JudgedSets, *, rejudgment: bool = False, on_error: OnError
    ) -> AsyncResults[int | QrelayError]: ...
    def ingest(self, sets: Any, *, rejudgment: bool = False, on_error: OnError = "raise") -> Any:
        """Each set committed to the ledger: 1, or 0 where its query is there already.

        sets: one `JudgedSet`, answered by a number; or many, answered by an iterator of numbers in their order.
        rejudgment: the judgments join those that are there, as the next generation; answers how many were new.
        on_error: as `retrieve` has it.

        Raises:
            InputError: what is no judged set, or (QueryConflict) has another text than this query in the ledger.
            TransientError: as `retrieve` has it.
        """
        return self._asked(methods.ingest(rejudgment), sets, inputs.judged_set, "", on_error)

    def _asked(
        self,
        method: methods.Method[Any],
        items: Any,
        convert: Callable[[Any, str], Any],
        collection: str,
        on_error: str,
    ) -> Any:
        one = isinstance(items, inputs.ONE)
        records = inputs.records([items] if one else items, method.items, convert, collection or self._collection)
        batches = Flow(method, self._patience, records).batches()
        results = AsyncResults[Any](raising(batches) if one or on_error == "raise" else batches)
        return _only(results) if one else results

    def _of(self, collection: str) -> str:
        """The collection that a call is about. Raises InvalidQuery: neither it nor the client names one."""
        return inputs.named(collection or self._collection)

    # -- the pipeline

    async def feed(
        self, queries: AskedFeed | Iterable[AskedFeed] | AsyncIterable[AskedFeed], *, collection: str = "",
        query_round: int = 0,
    ) -> FeedReport:  # fmt: skip
        """Queries, or sets for the judge, onto the queue; each is acknowledged and recorded in the feed's journal, so
        that feeding it again adds nothing. What is refused is in the report, by its place.

        queries: one or many, as `retrieve` and `judge` take them. collection: "": the client's. query_round: from 0;
        a higher one asks anew what was fed before.

        Raises:
            QrelayError: the feed ended before its end (no queue answers, say); feeding the same again adds what is
                missing.
        """
        items = [queries] if isinstance(queries, inputs.ONE) else queries
        return await feeding.feed(self._nats, self.data_dir, items, self._of(collection), query_round)

    async def wait(
        self, queries: FeedReport | Iterable[Query | str], *, collection: str = "", query_round: int = 0
    ) -> Ended:
        """Return when every query is in the ledger or a dead letter, however long that takes while something is on
        its way: how many are, and the ids of dead letters.

        queries: what `feed` reported, or records or ids. collection, query_round: as they were fed.

        Raises:
            BackendUnavailable: the sink does not answer, or nothing is on its way any more.
        """
        nats = await asyncio.to_thread(feeding.nats_settings, self._nats, self.data_dir)
        asked = queries.query_ids if isinstance(queries, FeedReport) else queries
        ids = [each.query_id if isinstance(each, Query) else each for each in asked]
        asking = waiting(self._patience, nats, self._of(collection), query_round, log.info, _AGAIN)
        return await asking.until_ended(ids)

    # -- the ledger

    def labels(self, where: str = "", *, collection: str = "", after: str = "") -> AsyncResults[JudgedSet]:
        """The ledger's labels, a set a query, by query_id.

        where: which, such as "grade>=2 and p_relevant<0.6" (the sink's README); "": all. The passages that it selects
        are marked as sampled. collection: "": the client's. after: only queries whose id is above this one.

        Raises:
            InputError: a condition that does not parse; UnknownCollection.
            TransientError: as `retrieve` has it; a stream that breaks goes on where it was.
        """
        return AsyncResults(ledger.labels(self._patience, self._of(collection), where, after))

    @overload
    def export(
        self, kind: Kind, to: str | Path, *, collection: str = "", judge: str = "", where: str = "",
        system: str = "", overrides: bool = False, unqualified: bool = False, unmeasured: bool = False,
    ) -> Coroutine[Any, Any, Exported]: ...  # fmt: skip
    @overload
    def export(
        self, kind: Kind, to: None = None, *, collection: str = "", judge: str = "", where: str = "",
        system: str = "", overrides: bool = False, unqualified: bool = False, unmeasured: bool = False,
    ) -> AsyncResults[bytes]: ...  # fmt: skip
    def export(self, kind: Kind, to: str | Path | None = None, *, collection: str = "", **options: Any) -> Any:
        """An export of the ledger: a file, whole or not at all, with its manifest beside it; or, without `to`, its
        bytes as they come.

        kind: "qrels", "triples", "run", "msmarco", "msmarco-ids" or "tevatron". collection: "": the client's. judge:
        the beginning of one's hash, or a strategy that one judge has. where: as `labels` has it. system: of a run.
        overrides: people's decisions win. unqualified, unmeasured: training data even of judges that fell short, or
        that nobody measured.

        Raises:
            InputError: no such kind, judge, collection or condition.
            NotQualified: the labels may not become training data; the text says whose, and what to do.
            TransientError: as `retrieve` has it, or the bytes broke off: export again.
        """
        request = ledger.export_request(kind, self._of(collection), **options)
        if to is None:
            return AsyncResults(ledger.exported(self._patience, request))
        return ledger.export_file(self._patience, request, Path(to))


async def _only(results: AsyncResults[Any]) -> Any:
    """The one record."""
    (record,) = await results.list()
    return record
