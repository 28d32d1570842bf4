"""What is served: of every collection an engine together with the embedder that its vectors were made by.

The two change as one, so that a query's vector is never compared with vectors of another model.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from qrelay.errors import (
    CorpusIndexError,
    InputError,
    ModelError,
    QrelayError,
    SetupError,
    TransientError,
    UnknownCollection,
)
from qrelay.index.engine import Engine, Versions
from qrelay.index.settings import RetrieverSettings
from qrelay.index.synthetic import SyntheticEngine
from qrelay.models.embedder import Embedder
from qrelay.models.engines import EncoderEngine
from qrelay.models.served import Embedders, registered
from qrelay.nearest import listed
from qrelay.runtime.following import free_when_unused

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """One version of one collection. `embedder` is None only where the engine needs no vectors."""

    engine: Engine
    embedder: Embedder | None

    @property
    def model(self) -> str:
        """The embedder as model@revision; the engine's name where there is none."""
        return self.embedder.fingerprint if self.embedder else self.engine.name


class Collections:
    """The collections of an engine, kept up with their current versions.

    `served` is replaced whole, never changed: a call in flight keeps the versions that it began with.
    """

    def __init__(self, versions: Versions, settings: RetrieverSettings, embedders: Embedders) -> None:
        self._versions, self._settings, self._embedders = versions, settings, embedders
        self._marks: dict[str, Hashable] = {}
        self._lock = threading.Lock()
        self._loading: threading.Thread | None = None
        self._standby: Embedder | None = None
        self._looked_at = time.monotonic()
        self.served: Mapping[str, Served] = {}
        self.problems: Mapping[str, SetupError] = {}

    def load(self, standby: str) -> None:
        """The first load. standby: fingerprint of the model to load where there is no index yet.

        Raises:
            CorpusIndexError: a version is damaged or of another model.
            ModelError: a version's model is absent or damaged.
        """
        self._reload(may_load=True)
        if self.problems:
            first = next(iter(self.problems.values()))
            raise type(first)("\n".join(map(str, self.problems.values())))
        if not self.served:
            self._standby = self._embedders.of(standby)
        self._embedders.let_go()

    def models(self) -> list[str]:
        """Fingerprints of the embedders in memory."""
        found = {served.model for served in self.served.values()}
        return sorted(found) or ([self._standby.fingerprint] if self._standby else [])

    def embedder(self, collection: str) -> Embedder:
        """The collection's; "": the only one in service. Raises InputError: there is none, or there are several."""
        found = {served.model: served.embedder for name, served in self.served.items() if collection in ("", name)}
        if not found and not collection and self._standby:
            return self._standby
        if collection and not found:
            raise UnknownCollection(
                f"no index of the collection {collection!r} is served (there are: {listed(self.served, 'none yet')})"
            )
        if len(found) != 1:
            raise InputError(
                f"{len(found)} models are in service: name a collection of {listed(self.served, 'none')}"
            )
        [(model, embedder)] = found.items()
        if embedder is None:
            raise InputError(f"the engine {model} embeds nothing: set retriever.engine to one that does")
        return embedder

    def refresh(self) -> None:
        """Reload where the last look is `reload_every_s` old; one caller looks, the others go on. A version whose
        model is not in memory is loaded aside: calls go on with the former until it is there."""
        if time.monotonic() - self._looked_at < self._settings.reload_every_s or not self._lock.acquire(False):
            return
        try:
            aside = self._reload(may_load=False)
        finally:
            self._lock.release()
        if aside:
            self._reload_aside()

    def reload(self, *, again: bool = False) -> None:
        """Take up new versions now. One that cannot be loaded leaves the former in service, and is tried anew when
        CURRENT changes, or with `again`."""
        with self._lock:
            if again:
                self._marks = {name: mark for name, mark in self._marks.items() if name not in self.problems}
            self._reload(may_load=True)
            self._embedders.let_go()

    def _reload_aside(self) -> None:
        if self._loading is None or not self._loading.is_alive():
            self._loading = threading.Thread(target=self.reload, name="load-index", daemon=True)
            self._loading.start()

    def _reload(self, *, may_load: bool) -> bool:
        """Whether a version was left for later, because its model must be loaded first."""
        self._looked_at = time.monotonic()
        try:
            marks = self._versions.marks()
        except QrelayError as error:
            if not self.served:
                raise  # nothing goes on being served, and no collection would be known
            _log.error("cannot look for new versions: %s", error)
            return False
        if marks == self._marks:
            return False
        found = {name: served for name, served in self.served.items() if name in marks}
        problems = {name: error for name, error in self.problems.items() if name in marks}
        later, unanswered = [], []
        for name in [name for name in marks if marks[name] != self._marks.get(name)]:
            try:
                served = self._open(name, may_load=may_load)
            except (CorpusIndexError, ModelError) as error:
                problems[name] = error
                _log.error("cannot load the index of %s: %s", name, error)
                continue
            except TransientError as error:
                if not self.served:
                    raise  # nothing goes on being served
                _log.error("cannot load the index of %s now: %s", name, error)
                unanswered.append(name)
                continue
            if served is None:
                later.append(name)
                continue
            problems.pop(name, None)
            found[name] = served
            _log.info("serving %s version %s with %s", name, served.engine.version, served.model)
        former, self.served = self.served, found
        self._let_go(former)
        self._marks = {name: mark for name, mark in marks.items() if name not in (*later, *unanswered)}
        self.problems = problems
        return bool(later)

    def _open(self, name: str, *, may_load: bool) -> Served | None:
        """None: its model is not in memory, and must not be loaded now."""
        engine = self._versions.open(name)
        if not engine.embedder:
            return Served(engine, None)
        if not may_load and not self._embedders.has(engine.embedder):
            return None
        embedder = self._embedder(name, engine.embedder)
        if engine.embedder != embedder.fingerprint:
            raise CorpusIndexError(
                f"the index {name}, version {engine.version}, was built with the model {engine.embedder}, this "
                f"service runs {embedder.fingerprint}; embed it again: "
                f"`{self._reembed(name, embedder.fingerprint, self._settings.embedder_engine)}`, or set "
                "retriever.embedder to the index's model"
            )
        return Served(engine, embedder)

    def _embedder(self, name: str, fingerprint: str) -> Embedder:
        """The index's model in the engine that it names. Raises ModelError that says how to do without it."""
        try:
            return self._embedders.of(fingerprint)
        except ModelError as error:
            if "+openvino-" not in fingerprint:
                raise
            raise ModelError(
                f"{error}. The index of {name} was embedded by {fingerprint}; to embed it again by torch: "
                f"`{self._reembed(name, fingerprint, 'torch')}`"
            ) from error

    def _reembed(self, name: str, fingerprint: str, engine: EncoderEngine) -> str:
        model = "registry" if registered(fingerprint) else f"{self._settings.embedder} --engine {engine}"
        return self._versions.reembed_command(name, model)

    def _let_go(self, former: Mapping[str, Served]) -> None:
        """Free the models that no collection uses any more, once the last call with them has ended."""
        if self.served:
            self._standby = None
        kept = {id(served.embedder) for served in self.served.values()}
        gone = {id(served.embedder): served.embedder for served in former.values() if served.embedder}
        for key, embedder in gone.items():
            if key not in kept:
                free_when_unused(embedder)


class SyntheticIndex:
    """Stands for an index folder: the synthetic engine for the collections named, or for any."""

    problems: Mapping[str, SetupError] = {}

    def __init__(self, collections: Sequence[str], service_time_s: float = 0.0) -> None:
        served = Served(SyntheticEngine(service_time_s), None)
        self.served: Mapping[str, Served] = dict.fromkeys(collections, served) if collections else _Anything(served)

    def models(self) -> list[str]:
        """There are none."""
        return ["synthetic"]

    def embedder(self, _: str) -> Embedder:
        """There is none. Raises InputError."""
        raise InputError("the engine synthetic embeds nothing: set retriever.engine to one that does")

    def refresh(self) -> None:
        """Nothing ever changes."""

    def reload(self) -> None:
        """Nothing ever changes."""


class _Anything(dict[str, Served]):
    """Answers every key with one engine, and lists none."""

    def __init__(self, served: Served) -> None:
        super().__init__()
        self._served = served

    def __missing__(self, key: str) -> Served:
        return self._served

    def __contains__(self, key: object) -> bool:
        return True
