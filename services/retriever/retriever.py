"""The retriever's core: queries to candidate sets, over every collection that has an index.

It knows neither gRPC nor NATS. Calls may come from several threads; embedding is one at a time, because
tokenizers may not be shared, and searching overlaps with it.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qrelay.errors import CorpusIndexError, InvalidQuery, QrelayError, UnknownCollection
from qrelay.models.embedder import Embedder, load_embedder
from qrelay.runtime.stage import Info
from qrelay.types import Candidate, CandidateSet, Query
from services.retriever.engine import EmbeddedEngine, Engine, Vectors
from services.retriever.manifest import CURRENT, collections_in, current_folder
from services.retriever.ranking import Depths
from services.retriever.settings import RetrieverSettings
from services.retriever.synthetic import SyntheticEngine

_log = logging.getLogger(__name__)
_Mark = tuple[int, int]


class IndexFolder:
    """The engines of an index folder, kept up with its CURRENT files.

    `engines` is replaced whole, never changed: a call in flight keeps the versions that it began with.
    """

    def __init__(self, settings: RetrieverSettings, fingerprint: str) -> None:
        self._settings, self._fingerprint = settings, fingerprint
        self._marks: dict[str, _Mark] = {}
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self.engines: Mapping[str, Engine] = {}
        self.problems: Mapping[str, str] = {}

    def load(self) -> None:
        """The first load. Raises CorpusIndexError where a version is damaged or of another model."""
        self.reload()
        if self.problems:
            raise CorpusIndexError("\n".join(self.problems.values()))

    def refresh(self) -> None:
        """Reload where the last look is `reload_every_s` old; one caller looks, the others go on."""
        if time.monotonic() - self._looked_at >= self._settings.reload_every_s and self._lock.acquire(False):
            try:
                self._reload()
            finally:
                self._lock.release()

    def reload(self) -> None:
        """Take up new versions now. One that cannot be loaded leaves the former in service."""
        with self._lock:
            self._reload()

    def _reload(self) -> None:
        self._looked_at = time.monotonic()
        wanted = self._settings.collections
        homes = {
            name: home
            for name, home in collections_in(self._settings.index_folder).items()
            if not wanted or name in wanted
        }
        marks = {name: _mark(home / CURRENT) for name, home in homes.items()}
        if marks == self._marks:
            return
        engines = {name: engine for name, engine in self.engines.items() if name in homes}
        problems = {name: text for name, text in self.problems.items() if name in homes}
        for name, home in homes.items():
            if marks[name] == self._marks.get(name):
                continue
            problems.pop(name, None)
            try:
                engines[name] = self._open(home)
                _log.info("serving %s version %s", name, engines[name].version)
            except CorpusIndexError as error:
                problems[name] = str(error)
                _log.error("cannot load the index of %s: %s", name, error)
        self.engines, self.problems, self._marks = engines, problems, marks

    def _open(self, home: Path) -> Engine:
        settings = self._settings
        depths = Depths(settings.bm25_top_k, settings.dense_top_k, settings.rrf_k)
        engine = EmbeddedEngine(current_folder(home), depths, settings.verify)
        if engine.embedder != self._fingerprint:
            raise CorpusIndexError(
                f"the index {home / engine.version} was built with the model {engine.embedder}, this service "
                f"runs {self._fingerprint}; build it again, or set retriever.embedder to the index's model"
            )
        return engine


def _mark(path: Path) -> _Mark:
    """Changes whenever the file is replaced."""
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_ino)


class SyntheticIndex:
    """Stands for an index folder: the synthetic engine for the collections named, or for any."""

    problems: Mapping[str, str] = {}

    def __init__(self, collections: Sequence[str]) -> None:
        engine = SyntheticEngine()
        self.engines: Mapping[str, Engine] = dict.fromkeys(collections, engine) if collections else _Anything(engine)

    def refresh(self) -> None:
        """Nothing ever changes."""

    def reload(self) -> None:
        """Nothing ever changes."""


class _Anything(dict[str, Engine]):
    """Answers every key with one engine, and lists none."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def __missing__(self, key: str) -> Engine:
        return self._engine

    def __contains__(self, key: object) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class _Group:
    """The queries of one batch for one collection: their places in the batch."""

    engine: Engine
    places: list[int]


class Retriever:
    """Finds candidates. `embedder` is None only where no engine needs vectors."""

    def __init__(
        self, settings: RetrieverSettings, index: IndexFolder | SyntheticIndex, embedder: Embedder | None
    ) -> None:
        self._settings, self._index, self._embedder = settings, index, embedder
        self._embedding = threading.Lock()

    def retrieve(
        self, queries: Sequence[Query], max_candidates: int | None = None
    ) -> list[CandidateSet | QrelayError]:
        """Candidates for each query, in order, or the error of that query alone.

        max_candidates: at most so many; None or 0: the setting. Every candidate has the score of each
        system, and its rank where it is in that system's own top list.
        """
        self._index.refresh()
        engines = self._index.engines
        results: list[CandidateSet | QrelayError | None] = [None] * len(queries)
        groups: dict[str, _Group] = {}
        for place, query in enumerate(queries):
            problem = self._problem(query, engines)
            if problem is not None:
                results[place] = problem
            else:
                group = groups.setdefault(query.collection, _Group(engines[query.collection], []))
                group.places.append(place)
        limit = max_candidates or self._settings.max_candidates
        for place, candidates, version in self._search(queries, list(groups.values()), limit):
            results[place] = CandidateSet(queries[place], candidates, version)
        return [result for result in results if result is not None]

    def _search(
        self, queries: Sequence[Query], groups: Sequence[_Group], limit: int
    ) -> list[tuple[int, tuple[Candidate, ...], str]]:
        """(place, candidates, index version) of every query in `groups`; all are embedded at once."""
        places = [place for group in groups if group.engine.embedder for place in group.places]
        vectors = self._encode([queries[place].text for place in places])
        row_of = {place: row for row, place in enumerate(places)}
        found = []
        for group in groups:
            texts = [queries[place].text for place in group.places]
            rows = [row_of[place] for place in group.places if place in row_of]
            own = vectors[rows] if vectors is not None and rows else None
            for place, candidates in zip(group.places, group.engine.search(texts, own, limit), strict=True):
                found.append((place, candidates, group.engine.version))
        return found

    def _encode(self, texts: Sequence[str]) -> Vectors | None:
        if self._embedder is None or not texts:
            return None
        with self._embedding:
            return self._embedder.encode(texts)

    def _problem(self, query: Query, engines: Mapping[str, Engine]) -> QrelayError | None:
        limit = self._settings.max_query_chars
        if not query.text.strip():
            return InvalidQuery("the query is empty; send a question of at least one word")
        if len(query.text) > limit:
            return InvalidQuery(
                f"the query has {len(query.text):,} characters, the limit is {limit:,}; shorten it, or raise "
                "retriever.max_query_chars"
            )
        if not query.text.isascii() and not _is_text(query.text):
            return InvalidQuery("the query holds a lone surrogate, which is no text; send valid Unicode")
        if query.collection in engines:
            return None
        broken = self._index.problems.get(query.collection)
        known = ", ".join(sorted(engines)) or "none yet"
        return UnknownCollection(
            f"no index of the collection {query.collection!r} is served (there are: {known}); "
            + (f"its index cannot be loaded: {broken}" if broken else "build it with `qrelay index build`")
        )

    def reload(self) -> None:
        """Take up new index versions now, rather than at the next look."""
        self._index.reload()

    @property
    def fingerprint(self) -> str:
        """The embedder as model@revision; "synthetic" where there is none."""
        return self._embedder.fingerprint if self._embedder is not None else "synthetic"

    def info(self) -> Info:
        """The embedder, and of each collection its version and counts."""
        details: dict[str, str] = {"engine": self._settings.engine}
        for name, engine in sorted(self._index.engines.items()):
            details |= {f"collection.{name}.{key}": value for key, value in engine.describe().items()}
        for name, problem in sorted(self._index.problems.items()):
            details[f"collection.{name}.problem"] = problem
        if not self._index.engines and self._settings.engine == "embedded":
            details["note"] = f"no index in {self._settings.index_folder} yet; build one with `qrelay index build`"
        return Info(models={"embedder": self.fingerprint}, details=details)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def load_retriever(settings: RetrieverSettings, load: Callable[[str], Embedder] = load_embedder) -> Retriever:
    """A retriever that is ready to serve; without any index it starts and waits for the first.

    Raises:
        ModelError: the embedder is absent or damaged.
        CorpusIndexError: an index is damaged, or was built by another model.
    """
    if settings.engine == "synthetic":
        return Retriever(settings, SyntheticIndex(settings.collections), None)
    embedder = load(settings.embedder)
    _limit_threads(settings.threads)
    index = IndexFolder(settings, embedder.fingerprint)
    index.load()
    _spare_the_collector()
    return Retriever(settings, index, embedder)


def _spare_the_collector() -> None:
    """Keep the garbage collector from walking a model's half a million objects, which never die, every few
    hundred candidates: making 100 candidates took 0.7 CPU-ms instead of 2.3."""
    if "torch" in sys.modules:
        gc.collect()
        gc.freeze()


def _limit_threads(threads: int) -> None:
    """Embedding gets `threads`; numpy's BLAS one, because its idle workers spin and take the embedder's cores:
    with one each, 32 queries took 190 ms instead of 260 (2 busy cores, 51,000 passages)."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1, user_api="blas")
    if threads and (torch := sys.modules.get("torch")):
        torch.set_num_threads(threads)
