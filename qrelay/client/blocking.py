"""`Client`: the services of an installation, from a program or notebook without an event loop of its own.

It runs an `AsyncClient` on a loop in a thread, and adds nothing but the way there and back.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar, overload

from qrelay.client import inputs
from qrelay.client.asynchronous import AsyncClient, OnError
from qrelay.client.inputs import AskedFeed, AskedQuery, AskedSet
from qrelay.client.ledger import Exported, Kind
from qrelay.client.local import Corpus, Installation, Settings
from qrelay.client.patience import ATTEMPTS, TIMEOUT_S
from qrelay.client.results import AsyncResults, Results
from qrelay.client.waiting import Ended
from qrelay.config import Transport
from qrelay.errors import QrelayError
from qrelay.feed.feeder import FeedReport
from qrelay.http.blocking import Blocking
from qrelay.types import CandidateSet, JudgedSet, Query

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Queries = Iterable[AskedQuery | QrelayError]
Sets = Iterable[AskedSet | QrelayError]
JudgedSets = Iterable[JudgedSet | QrelayError]
_PULLED: Final = 16
_PULL_S: Final = 0.005
"""Items that are taken from the caller's iterator at once, and seconds that those which came wait for more."""


def _as(original: Callable[..., Any]) -> Callable[[F], F]:
    """Gives a method what AsyncClient's says of it, and its parameters."""

    def told(method: F) -> F:
        answer = signature(method).return_annotation
        method.__doc__ = original.__doc__
        method.__signature__ = signature(original).replace(return_annotation=answer)  # type: ignore[attr-defined]
        return method

    return told


class Client:
    """The services of one installation; see `AsyncClient`, which has the same calls. Several threads may use it.

        from qrelay import Client

        client = Client(collection="docs")
        judged = client.judge(client.rerank(client.retrieve("how do I parse JSON?")))

    Iterators among the items are read in a thread of their own.
    """

    @_as(AsyncClient.__init__)
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
        self._client = AsyncClient(
            data_dir, collection=collection, retriever=retriever, reranker=reranker, judge=judge, sink=sink,
            nats=nats, timeout_s=timeout_s, attempts=attempts, transport=transport,
        )  # fmt: skip
        self._loop = Blocking("qrelay client")
        self._closed = False

    @classmethod
    @contextmanager
    @_as(vars(AsyncClient)["local"].__func__)
    def local(
        cls,
        corpus: Corpus | None = None,
        *,
        collection: str = "",
        settings: Settings | None = None,
        data_dir: str | Path | None = None,
        reuse: bool = False,
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS,
    ) -> Iterator[Self]:
        client = cls(data_dir, collection=collection, timeout_s=timeout_s, attempts=attempts)
        installation = Installation(client.data_dir, settings, reuse=reuse)
        with client:
            if corpus is not None:
                installation.index(corpus, collection)
            try:
                installation.start()
                yield client
            finally:
                installation.stop()

    @property
    def data_dir(self) -> Path:
        """Of the installation. Raises ConfigError: the settings file, which names it, does not hold."""
        return self._client.data_dir

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and end the thread; calls that still run are cancelled."""
        if not self._closed:
            self._closed = True
            self._loop.run(self._end())
            self._loop.close()

    async def _end(self) -> None:
        await self._client.aclose()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def __repr__(self) -> str:
        return repr(self._client).removeprefix("Async")

    # -- the services

    @overload
    def retrieve(  # type: ignore[overload-overlap]  # a text is an iterable of texts, and means one
        self, queries: AskedQuery, *, collection: str = "", max_candidates: int = 0
    ) -> CandidateSet: ...
    @overload
    def retrieve(
        self, queries: Queries, *, collection: str = "", max_candidates: int = 0, on_error: Literal["raise"] = "raise"
    ) -> Results[CandidateSet]: ...
    @overload
    def retrieve(
        self, queries: Queries, *, collection: str = "", max_candidates: int = 0, on_error: OnError
    ) -> Results[CandidateSet | QrelayError]: ...
    @_as(AsyncClient.retrieve)
    def retrieve(self, queries: Any, **options: Any) -> Any:
        return self._done(self._client.retrieve(_unblocked(queries), **options))

    @overload
    def rerank(self, sets: AskedSet, *, collection: str = "", max_candidates: int = 0) -> CandidateSet: ...
    @overload
    def rerank(
        self, sets: Sets, *, collection: str = "", max_candidates: int = 0, on_error: Literal["raise"] = "raise"
    ) -> Results[CandidateSet]: ...
    @overload
    def rerank(
        self, sets: Sets, *, collection: str = "", max_candidates: int = 0, on_error: OnError
    ) -> Results[CandidateSet | QrelayError]: ...
    @_as(AsyncClient.rerank)
    def rerank(self, sets: Any, **options: Any) -> Any:
        return self._done(self._client.rerank(_unblocked(sets), **options))

    @overload
    def judge(self, sets: AskedSet, *, collection: str = "") -> JudgedSet: ...
    @overload
    def judge(
        self, sets: Sets, *, collection: str = "", on_error: Literal["raise"] = "raise"
    ) -> Results[JudgedSet]: ...
    @overload
    def judge(self, sets: Sets, *, collection: str = "", on_error: OnError) -> Results[JudgedSet | QrelayError]: ...
    @_as(AsyncClient.judge)
    def judge(self, sets: Any, **options: Any) -> Any:
        return self._done(self._client.judge(_unblocked(sets), **options))

    @overload
    def ingest(self, sets: JudgedSet, *, rejudgment: bool = False) -> int: ...
    @overload
    def ingest(
        self, sets: JudgedSets, *, rejudgment: bool = False, on_error: Literal["raise"] = "raise"
    ) -> Results[int]: ...
    @overload
    def ingest(
        self, sets: JudgedSets, *, rejudgment: bool = False, on_error: OnError
    ) -> Results[int | QrelayError]: ...
    @_as(AsyncClient.ingest)
    def ingest(self, sets: Any, **options: Any) -> Any:
        return self._done(self._client.ingest(_unblocked(sets), **options))

    # -- the pipeline and the ledger

    @_as(AsyncClient.feed)
    def feed(
        self, queries: AskedFeed | Iterable[AskedFeed], *, collection: str = "", query_round: int = 0
    ) -> FeedReport:
        return self._loop.run(self._client.feed(_unblocked(queries), collection=collection, query_round=query_round))

    @_as(AsyncClient.wait)
    def wait(
        self, queries: FeedReport | Iterable[Query | str], *, collection: str = "", query_round: int = 0
    ) -> Ended:
        asked = queries if isinstance(queries, FeedReport) else list(queries)
        return self._loop.run(self._client.wait(asked, collection=collection, query_round=query_round))

    @_as(AsyncClient.labels)
    def labels(self, where: str = "", *, collection: str = "", after: str = "") -> Results[JudgedSet]:
        return Results(self._loop.run, self._client.labels(where, collection=collection, after=after))

    @overload
    def export(
        self, kind: Kind, to: str | Path, *, collection: str = "", judge: str = "", where: str = "",
        system: str = "", overrides: bool = False, unqualified: bool = False, unmeasured: bool = False,
    ) -> Exported: ...  # fmt: skip
    @overload
    def export(
        self, kind: Kind, to: None = None, *, collection: str = "", judge: str = "", where: str = "",
        system: str = "", overrides: bool = False, unqualified: bool = False, unmeasured: bool = False,
    ) -> Results[bytes]: ...  # fmt: skip
    @_as(AsyncClient.export)
    def export(self, kind: Kind, to: str | Path | None = None, **options: Any) -> Any:
        asked: Any = self._client.export
        return self._done(asked(kind, to, **options))

    def _done(self, answer: Any) -> Any:
        return Results(self._loop.run, answer) if isinstance(answer, AsyncResults) else self._loop.run(answer)


def _unblocked(items: Any) -> Any:
    """The items for the loop, which must not wait for the caller's code: it may call this client."""
    if isinstance(items, Results):
        return items.unblocked
    items = inputs.rows(items)
    if isinstance(items, (*inputs.ONE, list, tuple)):
        return items
    return AsyncResults(_pulled(items))


async def _pulled(items: Iterable[T]) -> Any:
    puller = _Puller(iter(items))
    while batch := await _in_thread(puller.some):
        yield batch


class _Puller:
    """Takes items from an iterator, several at a time where they come quickly."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._error: BaseException | None = None

    def some(self) -> Sequence[Any]:
        """The next items; none at the end. Raises what the iterator does, after the items before it."""
        if self._error:
            raise self._error
        batch, until = [], 0.0
        try:
            for item in self._items:
                batch.append(item)
                until = until or time.monotonic() + _PULL_S
                if len(batch) >= _PULLED or time.monotonic() > until:
                    break
        except Exception as error:
            if not batch:
                raise
            self._error = error
        return batch


async def _in_thread(work: Callable[[], T]) -> T:
    """What `work` answers, from a thread that keeps no program from ending."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[T] = loop.create_future()

    def settle(answer: T | None, error: BaseException | None) -> None:
        if answered.done():
            return
        if error is not None:
            answered.set_exception(error)
        else:
            answered.set_result(answer)  # type: ignore[arg-type]

    def run() -> None:
        answer, error = None, None
        try:
            answer = work()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):  # the client was closed meanwhile
            loop.call_soon_threadsafe(settle, answer, error)

    threading.Thread(target=run, name="qrelay client's items", daemon=True).start()
    return await answered
