"""Which scorer serves whom: the promoted cross-encoder of a collection's own slot in the registry, else the default
slot's, else the configured one.

`look` is called now and then beside the requests. Where another version serves by then, it is loaded, its files are
checked against its manifest, it scores one pair, and only then it is handed out; until then, and where any of that
fails, the former keeps serving, `details` says why, and it is tried again `RETRY_LOOKS` looks later.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from qrelay.errors import ModelError, QrelayError
from qrelay.models.registry import CROSS_ENCODER, Registry, ServedVersion, Serving, slot_of
from qrelay.progress import step
from qrelay.services.reranker.scorers import CrossEncoderScorer, Scorer
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.types import Candidate, CandidateSet, Passage, Query

log = logging.getLogger(__name__)

RETRY_LOOKS: Final = 12
_PAIR: Final = CandidateSet(
    Query("warm-up", "what is this?", "warm-up"), (Candidate(Passage("p", "d", "", "a passage"), ()),), ""
)


@dataclass(frozen=True, slots=True)
class Scorers:
    """Those in service at one moment. `own`: by collection, of those that have their own."""

    default: Scorer
    own: Mapping[str, Scorer] = field(default_factory=dict)

    def of(self, collection: str) -> Scorer:
        """Who scores the collection's sets."""
        return self.own.get(collection, self.default)

    def all(self) -> list[Scorer]:
        """Each once."""
        return [self.default, *self.own.values()]


class Promoted:
    """See the module. `configured` makes the scorer that the settings name."""

    def __init__(
        self,
        settings: RerankerSettings,
        configured: Callable[[], Scorer],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._configured, self._clock = settings, configured, clock
        self._registry = Registry(settings.registry_folder)
        self._follows = settings.follows_registry
        self._slots = {"": self._slot("")}
        self._problem = ""

    def first(self) -> Scorers:
        """The scorers to start with.

        Raises:
            ModelError: one cannot be loaded; another model never takes its place unasked.
        """
        serving = self._registry.serving_all(CROSS_ENCODER) if self._follows else Serving(None, {})
        self._keep(serving)
        for collection, slot in self._slots.items():
            slot.begin(serving.of(collection))
        return self._scorers()

    def look(self) -> Scorers | None:
        """The scorers to use from now on; None: it cannot be told. Raises nothing."""
        if not self._follows:
            return None
        try:
            serving = self._registry.serving_all(CROSS_ENCODER)
        except (QrelayError, OSError) as error:
            self._say(f"the registry cannot be read: {error}")
            return None
        self._say("")
        self._keep(serving)
        for collection, slot in self._slots.items():
            slot.follow(serving.of(collection))
        return self._scorers()

    def _keep(self, serving: Serving) -> None:
        """The default slot, and those of collections that have a version of their own."""
        self._slots = {each: self._slots.get(each) or self._slot(each) for each in ("", *serving.own)}

    def _slot(self, collection: str) -> _Slot:
        retry_s = RETRY_LOOKS * self._settings.registry_poll_s
        return _Slot(slot_of(CROSS_ENCODER, collection), self._load, retry_s, self._clock)

    def _scorers(self) -> Scorers:
        found = {each: slot.scorer for each, slot in self._slots.items() if slot.scorer is not None}
        return Scorers(found.pop(""), found)

    def _load(self, served: ServedVersion | None) -> Scorer:
        if served is None:
            return self._configured()
        self._registry.verify(served.version)
        settings = self._settings
        scorer = CrossEncoderScorer(
            f"path:{served.path}",
            max_length=0,  # as the gate measured it
            batch_pairs=settings.batch_pairs,
            threads=settings.threads,
            fingerprint=served.fingerprint,
        )
        if not math.isfinite(scorer.score([_PAIR])[0][0]):
            raise ModelError(f"version {served.version} scores a pair with no number: its weights are damaged")
        return scorer

    def _say(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.error(problem)
        self._problem = problem

    def details(self) -> dict[str, str]:
        """For GetInfo: of the default slot the promoted version in service, the one being loaded, and what is wrong;
        of a collection's own slot the same under its name, and its model."""
        found = {"registry.problem": self._problem} if self._problem else {}
        for collection, slot in sorted(self._slots.items()):
            end = f".{collection}" if collection else ""
            named = {"version": slot.version, "loading": slot.loading, "problem": slot.problem}
            found |= {f"registry.{name}{end}": value for name, value in named.items() if value}
            if collection and slot.scorer is not None:
                found[f"collection.{collection}.{CROSS_ENCODER}"] = slot.scorer.fingerprint
        return found


class _Slot:
    """One slot: its scorer, and what came of the last attempt to replace it."""

    def __init__(
        self,
        name: str,
        load: Callable[[ServedVersion | None], Scorer],
        retry_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._name, self._load, self._retry_s, self._clock = name, load, retry_s, clock
        self.scorer: Scorer | None = None
        self.version = self.loading = self.problem = ""
        self._failed = ""
        self._again_at = 0.0

    def begin(self, served: ServedVersion | None) -> None:
        """Load what serves. Raises ModelError that says how to do without it."""
        try:
            self._take(served)
        except ModelError as error:
            if served is None:
                raise
            raise ModelError(
                f"the promoted cross-encoder cannot be loaded: {error}. Roll back (`qrelay models rollback "
                f"{self._name}`), or set reranker.registry_poll_s to 0 to serve the configured model"
            ) from error

    def follow(self, served: ServedVersion | None) -> None:
        """Load what serves by now, where it is another. Raises nothing."""
        version = served.version if served else ""
        if self.scorer is not None and version == self.version:
            self.problem = self._failed = ""
        elif not self.problem or self._failed != version or self._clock() >= self._again_at:
            self._replace(served, version)

    def _replace(self, served: ServedVersion | None, version: str) -> None:
        former, name = self.version, version or "the configured model"
        try:
            self._take(served)
        except Exception as error:  # whatever a model library raises: the former keeps serving
            self._fail(version, f"{name} cannot be loaded: {error}; {former or 'the former'} serves")
            return
        log.info("serving %s", self.scorer and self.scorer.fingerprint, extra={"instead_of": former})
        self.problem = self._failed = ""

    def _take(self, served: ServedVersion | None) -> None:
        self.loading = served.version if served else "the configured model"
        try:
            with step(f"loading {self.loading}"):
                self.scorer = self._load(served)
        finally:
            self.loading = ""
        self.version = served.version if served else ""

    def _fail(self, version: str, problem: str) -> None:
        if problem != self.problem:
            log.error(problem)
        self.problem, self._failed = problem, version
        self._again_at = self._clock() + self._retry_s
