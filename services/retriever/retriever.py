"""The retriever's core: queries to candidate sets, over every collection that has an index.

It knows neither gRPC nor NATS. Calls may come from several threads; an embedder takes one at a time, and searching
overlaps with it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from qrelay.errors import InputError, InvalidQuery, QrelayError, TransientError, UnknownCollection
from qrelay.index.collections import Collections, Served, SyntheticIndex
from qrelay.index.embedded import FolderVersions
from qrelay.index.embedding import loader
from qrelay.index.engine import Followed, Found, Vectors
from qrelay.index.manifest import collections_in
from qrelay.index.settings import RetrieverSettings
from qrelay.models.catalogue import resolve
from qrelay.models.embedder import HASH_NAME, Embedder, TextKind
from qrelay.models.engines import ENDPOINT_NAME
from qrelay.models.registry import Registry
from qrelay.models.served import Embedders, Load
from qrelay.nearest import did_you_mean, listed
from qrelay.runtime.stage import Info
from qrelay.runtime.trace import opened
from qrelay.services.retriever.follow import Follower
from qrelay.types import CandidateSet, Query

STAGE: Final = "retriever"


@dataclass(frozen=True, slots=True)
class _Group:
    """The queries of one batch for one collection: their places in the batch."""

    served: Served
    places: list[int]


class Retriever:
    """Finds candidates. `follower`: what looks after the registry; None: nobody does."""

    def __init__(
        self, settings: RetrieverSettings, index: Collections | SyntheticIndex, follower: Follower | None = None
    ) -> None:
        self._settings, self._index, self._follower = settings, index, follower

    def retrieve(
        self, queries: Sequence[Query], max_candidates: int | None = None
    ) -> list[CandidateSet | QrelayError]:
        """Candidates for each query, in order, or the error of that query alone.

        max_candidates: at most so many; None or 0: the setting. Every candidate has the score of each
        system, and its rank where it is in that system's own top list.
        """
        self._index.refresh()
        collections = self._index.served
        results: list[CandidateSet | QrelayError | None] = [None] * len(queries)
        groups: dict[str, _Group] = {}
        for place, query in enumerate(queries):
            problem = self._problem(query, collections)
            if problem is not None:
                results[place] = problem
            else:
                group = groups.setdefault(query.collection, _Group(collections[query.collection], []))
                group.places.append(place)
        limit = max_candidates or self._settings.max_candidates
        vectors = self._encode(queries, list(groups.values()))
        for group in groups.values():
            for place, found in self._search(queries, group, vectors, limit):
                results[place] = found
        return [result for result in results if result is not None]

    def _search(
        self, queries: Sequence[Query], group: _Group, vectors: Mapping[int, Vectors | QrelayError], limit: int
    ) -> Iterator[tuple[int, CandidateSet | QrelayError]]:
        """(place, candidates) of every query in the group, found by one engine with one embedder."""
        served, places, own = group.served, group.places, None
        if served.embedder:
            known = [(place, each) for place in places if not isinstance(each := vectors[place], QrelayError)]
            yield from ((place, each) for place in places if isinstance(each := vectors[place], QrelayError))
            if not known:
                return
            places, own = [place for place, _ in known], np.stack([vector for _, vector in known])
        for place, found in zip(
            places, _answers(served, [queries[place].text for place in places], own, limit), strict=True
        ):
            if isinstance(found, QrelayError):
                yield place, found
            else:
                candidates = CandidateSet(queries[place], found, served.engine.version)
                yield place, opened(candidates, STAGE, served.model)

    def _encode(self, queries: Sequence[Query], groups: Sequence[_Group]) -> dict[int, Vectors | QrelayError]:
        """place -> vector [dim] or why there is none; all queries of one embedder at once, whatever their
        collections."""
        places: dict[str, list[int]] = {}
        embedders = {group.served.model: group.served.embedder for group in groups}
        for group in groups:
            places.setdefault(group.served.model, []).extend(group.places)
        vectors: dict[int, Vectors | QrelayError] = {}
        for model, embedder in embedders.items():
            if embedder is not None:
                found = _encoded(embedder, [queries[place].text for place in places[model]])
                vectors.update(zip(places[model], found, strict=True))
        return vectors

    def embed(self, texts: Sequence[str], kind: TextKind, collection: str = "") -> tuple[str, Vectors]:
        """(model@revision, vectors [len(texts), dim]) by the collection's embedder; "": by the only one in service.

        Raises:
            InputError: a text that is none; no such collection; it has no embedder; several are in service.
            TransientError: the embedder is an endpoint that does not answer now.
        """
        self._index.refresh()
        for place, text in enumerate(texts):
            if not text.strip() or not _is_text(text):
                raise InvalidQuery(f"text {place} is empty, or holds a lone surrogate: send words in valid Unicode")
        embedder = self._index.embedder(collection)
        return embedder.fingerprint, embedder.encode(texts, kind)

    def _problem(self, query: Query, served: Mapping[str, Served]) -> QrelayError | None:
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
        if "\0" in query.text or "\0" in query.query_id:
            return InvalidQuery("the query holds a NUL character, which no database stores; remove it")
        if query.collection in served:
            return None
        broken = self._index.problems.get(query.collection)
        return UnknownCollection(
            f"no index of the collection {query.collection!r} is served (there are: {listed(served, 'none yet')}); "
            + (f"its index cannot be loaded: {broken}" if broken else "build it with `qrelay index build`.")
            + did_you_mean(query.collection, served)
        )

    def reload(self) -> None:
        """Take up new index versions now, rather than at the next look."""
        self._index.reload()

    def look(self) -> None:
        """Take up what the registry and the index folder hold by now. May take as long as loading a model."""
        if self._follower is not None:
            self._follower.look()

    def close(self) -> None:
        """End what runs beside."""
        if self._follower is not None:
            self._follower.close()

    @property
    def fingerprint(self) -> str:
        """The embedders in service as model@revision, one unless a swap is under way; "synthetic" for none."""
        return " ".join(self._index.models())

    def info(self) -> Info:
        """The embedder, of each collection its version and counts, and what the registry asks for."""
        details: dict[str, str] = {"engine": self._settings.engine}
        for name, served in sorted(self._index.served.items()):
            details |= {f"collection.{name}.{key}": value for key, value in served.engine.describe().items()}
            if served.embedder:
                details |= {f"embedder: {word}": note for word, note in served.embedder.notes.items()}
        for name, problem in sorted(self._index.problems.items()):
            details[f"collection.{name}.problem"] = str(problem)
        if not self._index.served and self._settings.engine in ("embedded", "milvus"):
            place = "Milvus" if self._settings.engine == "milvus" else self._settings.index_folder
            details["note"] = f"no index in {place} yet; build one with `qrelay index build`"
        return Info({"embedder": self.fingerprint}, details | (self._follower.details() if self._follower else {}))


def _answers(served: Served, texts: Sequence[str], vectors: Vectors | None, limit: int) -> Found:
    """An engine that answers nothing costs its own collection's queries alone."""
    try:
        return served.engine.search(texts, vectors, limit)
    except QrelayError as error:
        return [error] * len(texts)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encoded(embedder: Embedder, texts: list[str]) -> list[Vectors | QrelayError]:
    """The vector of each query, or why it has none: an endpoint may refuse one, or all for a while."""
    try:
        return list(embedder.encode(texts, "query"))
    except InputError as error:
        if len(texts) == 1:
            return [error]
        return [each for text in texts for each in _encoded(embedder, [text])]
    except TransientError as error:
        return [error] * len(texts)


def load_retriever(settings: RetrieverSettings, load: Load | None = None) -> Retriever:
    """A retriever that is ready to serve; without any index it starts and waits for the first. load: its embedders;
    None: as the settings say.

    Raises:
        ModelError: the model of an index, or of the first one to come, is absent or damaged.
        CorpusIndexError: an index is damaged, or was built by another model.
        ConfigError: Milvus's address, library or credentials.
        BackendUnavailable: Milvus does not answer.
    """
    if settings.engine == "synthetic":
        return Retriever(settings, SyntheticIndex(settings.collections, settings.synthetic.service_time_s))
    registry = Registry(settings.registry_folder)
    embedders = Embedders(
        settings.embedder,
        registry,
        load or loader(settings),
        settings.threads,
        settings.embedder_engine,
        settings.embedder_dim,
    )
    if settings.engine == "http":
        from qrelay.index.http.engine import HttpVersions  # and with it the client

        index = Collections(HttpVersions(settings, embedders), settings, embedders)
        index.load("")
        return Retriever(settings, index)
    versions = _versions(settings)
    index = Collections(versions, settings, embedders)
    follower = Follower(settings, versions, index, embedders) if settings.registry_poll_s else None
    index.load(follower.switch_back() if follower else "")
    _spare_the_collector()
    return Retriever(settings, index, follower)


def _versions(settings: RetrieverSettings) -> Followed:
    """Where the engine's collections stand. Raises ConfigError and BackendUnavailable, of Milvus."""
    if settings.engine == "embedded":
        return FolderVersions(settings)
    from qrelay.index.milvus.versions import MilvusVersions

    return MilvusVersions(settings)


def check_retriever(settings: RetrieverSettings) -> None:
    """What would keep `load_retriever` from beginning. Raises ModelError: there is neither an index nor a registry,
    which name the model, and the one for the first index is absent. Raises ConfigError: Milvus's library, or an
    engine's credentials, are."""
    if settings.engine == "http":
        from qrelay.index.http.engine import credential

        credential(settings.http)
    if settings.engine == "milvus":
        from qrelay.index.milvus.client import check

        check(settings.milvus)
    named = settings.registry_folder.exists() or collections_in(settings.index_folder)
    if not settings.embeds or settings.embedder == HASH_NAME:
        return
    if settings.embedder == ENDPOINT_NAME:
        loader(settings)(ENDPOINT_NAME)
    elif not named:
        resolve(settings.embedder)


def _spare_the_collector() -> None:
    """Keep the garbage collector from walking a model's half a million objects, which never die, every few
    hundred candidates: making 100 candidates took 0.7 CPU-ms instead of 2.3."""
    if "torch" in sys.modules:
        gc.collect()
        gc.freeze()
