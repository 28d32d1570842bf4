"""Which scorer serves: the promoted cross-encoder of the registry, else the configured one.

`look` is called now and then beside the requests. Where another version serves by then, it is loaded, its files are
checked against its manifest, it scores one pair, and only then it is handed out; until then, and where any of that
fails, the former keeps serving, `details` says why, and it is tried again `RETRY_LOOKS` looks later.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Final

from qrelay.errors import ModelError, QrelayError
from qrelay.models.registry import CROSS_ENCODER, Registry, ServedVersion
from qrelay.progress import step
from qrelay.services.reranker.scorers import CrossEncoderScorer, Scorer
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.types import Candidate, CandidateSet, Passage, Query

log = logging.getLogger(__name__)

RETRY_LOOKS: Final = 12
_PAIR: Final = CandidateSet(
    Query("warm-up", "what is this?", "warm-up"), (Candidate(Passage("p", "d", "", "a passage"), ()),), ""
)


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
        self._version = self._loading = self._problem = self._failed = ""
        self._again_at = 0.0

    def first(self) -> Scorer:
        """The scorer to start with.

        Raises:
            ModelError: it cannot be loaded; another model never takes its place unasked.
        """
        served = self._registry.serving(CROSS_ENCODER) if self._follows else None
        try:
            with step(f"loading {self._loading}"):
                scorer = self._load(served)
        except ModelError as error:
            if served is None:
                raise
            raise ModelError(
                f"the promoted cross-encoder cannot be loaded: {error}. Roll back (`qrelay models rollback "
                f"{CROSS_ENCODER}`), or set reranker.registry_poll_s to 0 to serve the configured model"
            ) from error
        self._version = served.version if served else ""
        return scorer

    def look(self) -> Scorer | None:
        """The scorer to use from now on; None: keep the present one. Raises nothing."""
        if not self._follows:
            return None
        try:
            served = self._registry.serving(CROSS_ENCODER)
        except (QrelayError, OSError) as error:
            self._fail("", f"the registry cannot be read: {error}")
            return None
        version = served.version if served else ""
        if version == self._version:
            self._problem = self._failed = ""
            return None
        if self._problem and self._failed == version and self._clock() < self._again_at:
            return None
        return self._replace(served, version)

    def _replace(self, served: ServedVersion | None, version: str) -> Scorer | None:
        self._loading = version or "the configured model"
        try:
            with step(f"loading {self._loading}"):
                scorer = self._load(served)
        except Exception as error:  # whatever a model library raises: the former keeps serving
            self._fail(version, f"{self._loading} cannot be loaded: {error}; {self._version or 'the former'} serves")
            return None
        finally:
            self._loading = ""
        log.info("serving %s", scorer.fingerprint, extra={"instead_of": self._version})
        self._version, self._problem, self._failed = version, "", ""
        return scorer

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

    def _fail(self, version: str, problem: str) -> None:
        if problem != self._problem:
            log.error(problem)
        self._problem, self._failed = problem, version
        self._again_at = self._clock() + RETRY_LOOKS * self._settings.registry_poll_s

    def details(self) -> dict[str, str]:
        """For GetInfo: the promoted version in service, the one being loaded, and what is wrong."""
        named = {"version": self._version, "loading": self._loading, "problem": self._problem}
        return {f"registry.{name}": value for name, value in named.items() if value}
