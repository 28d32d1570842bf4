"""The reranker's core: score, keep the best, mark the sample. Knows neither gRPC nor NATS.

In a cascade a first scorer, which costs little, drops a share of each set before the cross-encoder scores the rest.
Every candidate keeps each scorer's score and rank of it; a dropped one has the first's alone and stands below all
that have both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

from qrelay.errors import BackendUnavailable, InvalidQuery, QrelayError
from qrelay.models.embedder import load_embedder
from qrelay.models.engines import EncoderEngine
from qrelay.runtime import telemetry
from qrelay.runtime.following import free_when_unused
from qrelay.runtime.stage import Info
from qrelay.runtime.trace import opened
from qrelay.services.reranker.promoted import Promoted, Scorers
from qrelay.services.reranker.sampling import sample_indices
from qrelay.services.reranker.scored import Scored
from qrelay.services.reranker.scorers import BiEncoderScorer, CrossEncoderScorer, FakeScorer, Scorer
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.types import BI_ENCODER, CROSS_ENCODER, SMALL_CROSS_ENCODER, Candidate, CandidateSet, Passage

log = logging.getLogger(__name__)

STAGE = "reranker"


class Reranker:
    """See the module."""

    def __init__(
        self,
        scorers: Scorer | Scorers,
        settings: RerankerSettings,
        promoted: Promoted | None = None,
        first: Scorer | None = None,
    ) -> None:
        """`promoted`: where scorers that replace these come from. `first`: the cascade's; None: no cascade."""
        self._scorers = scorers if isinstance(scorers, Scorers) else Scorers(scorers)
        self._settings = settings
        self._promoted, self._first = promoted, first
        self._complained: set[str] = set()

    def rerank(self, sets: Sequence[CandidateSet], keep: int = 0) -> list[CandidateSet | QrelayError]:
        """Each set with one more score a candidate, best first, cut to `keep` (0: the setting), its sample marked.

        A set without candidates keeps none: nothing was found, and that is an answer. All of a collection are scored
        by the scorer that serves it when the call begins, and the trace names it.
        """
        scorers = self._scorers
        places: dict[Scorer, list[int]] = {}
        for place, each in enumerate(sets):
            if each.query.text.strip():
                places.setdefault(scorers.of(each.query.collection), []).append(place)
        found: dict[int, CandidateSet | QrelayError] = {}
        for scorer, own in places.items():
            usable = [self._cut(sets[place]) for place in own]
            found.update(zip(own, self._reranked(usable, scorer, keep), strict=True))
        return [
            found[place] if place in found else InvalidQuery(f"query {each.query.query_id!r} has no text")
            for place, each in enumerate(sets)
        ]

    def _cut(self, each: CandidateSet) -> CandidateSet:
        limit = self._settings.max_candidates
        return each if len(each.candidates) <= limit else replace(each, candidates=each.candidates[:limit])

    def look(self) -> None:
        """Take up what the registry serves by now; calls in flight finish on the scorer that they began with."""
        found = self._promoted.look() if self._promoted else None
        if found is not None:
            for gone in set(self._scorers.all()).difference(found.all()):
                free_when_unused(gone)
            self._scorers = found

    def _reranked(
        self, sets: Sequence[CandidateSet], scorer: Scorer, keep: int
    ) -> Iterator[CandidateSet | QrelayError]:
        """A cascade's first scorer leaves as many as the call wants to keep, so that a caller who names a number gets
        as many scores of one model."""
        found = [Scored(each) for each in sets]
        if first := self._before(scorer):
            self._score(first, found)
            for each in found:
                each.drop(first.system, self._settings.cascade.drop, at_least=keep)
        self._score(scorer, found)
        for each in found:
            yield each.problem or self._sampled(each, keep or self._settings.keep)

    def _before(self, scorer: Scorer) -> Scorer | None:
        """The cascade's first scorer; None: there is none, or the bi-encoder serves, which costs nothing itself."""
        return self._first if scorer.system == CROSS_ENCODER else None

    def _score(self, scorer: Scorer, found: Sequence[Scored]) -> None:
        """One more score for what is left of each set; a set in which nothing has one is an error: its order would
        mean nothing."""
        going = [each for each in found if not each.problem]
        asked = [each.left_set() for each in going]
        telemetry.RERANKER_PAIRS.labels(scorer.system).inc(sum(len(each.candidates) for each in asked))
        for each, scores in zip(going, scorer.score(asked), strict=True):
            if unscored := each.take(scorer.system, scorer.fingerprint, scores):
                self._complain(each, scorer.fingerprint, unscored)

    def _complain(self, each: Scored, model: str, unscored: int) -> None:
        telemetry.UNSCORED.inc(unscored)
        problem = (
            f"{model} gave {unscored} of {len(each.left)} candidates of query {each.record.query.query_id} no"
            " finite score: its weights are damaged, or overflow in half precision"
        )
        if unscored == sum(each.readable[place] for place in each.left):
            each.problem = BackendUnavailable(f"{problem}; replace the model, then replay the query")
        elif model not in self._complained:
            self._complained.add(model)
            log.error("%s; such candidates come last, and are counted from now on", problem)

    def _sampled(self, each: Scored, keep: int) -> CandidateSet:
        """The best, with the judge's sample marked."""
        settings, best, record = self._settings, each.best(keep), each.record
        chosen = sample_indices(
            record.query,
            best,
            size=settings.sample,
            head=settings.sample_head,
            max_per_document=settings.max_per_document,
        )
        marked = tuple(_mark(candidate, i in chosen) for i, candidate in enumerate(best))
        for model in each.models:
            record = opened(record, STAGE, model)
        return replace(record, candidates=marked)

    def info(self) -> Info:
        """The default slot's model, whether it is the fallback, and which collections have another."""
        scorer = self._scorers.default
        details = {"system": scorer.system, **(self._promoted.details() if self._promoted else {})}
        models = {scorer.system: scorer.fingerprint}
        if first := self._before(scorer):
            models |= {first.system: first.fingerprint}
            details["cascade"] = f"{first.system} drops {self._settings.cascade.drop:g} of each set"
        if isinstance(scorer, BiEncoderScorer):
            details["fallback"] = (
                "no cross-encoder is configured or promoted: these are the bi-encoder's scores; set "
                "reranker.cross_encoder, or train and promote one"
            )
        return Info(models=models, details=details)


def _mark(candidate: Candidate, sampled: bool) -> Candidate:
    """Text travels on only with the sample: nobody downstream reads the others', ids and scores suffice."""
    passage = candidate.passage
    if not sampled:
        passage = Passage(passage.passage_id, passage.doc_id, passage.title, "")
    return Candidate(passage, candidate.scores, sampled)


def load_reranker(settings: RerankerSettings) -> Reranker:
    """The core with its model: the promoted one, else the configured one; and with the cascade's first.

    Raises:
        ModelError: such a model is absent or altered.
    """
    promoted = Promoted(settings, lambda: _load_scorer(settings))
    return Reranker(promoted.first(), settings, promoted, _load_first(settings))


def _load_scorer(settings: RerankerSettings) -> Scorer:
    if settings.scorer == "fake":
        return FakeScorer(settings.fake.service_time_s)
    if settings.cross_encoder and settings.scorer != "bi_encoder":
        return _cross_encoder(settings, settings.cross_encoder, settings.engine, CROSS_ENCODER)
    return _bi_encoder(settings)


def _load_first(settings: RerankerSettings) -> Scorer | None:
    first = settings.cascade.first
    if not first:
        return None
    if first == BI_ENCODER:
        return _bi_encoder(settings)
    return _cross_encoder(settings, first, settings.cascade.engine, SMALL_CROSS_ENCODER)


def _cross_encoder(settings: RerankerSettings, name: str, engine: EncoderEngine, system: str) -> Scorer:
    return CrossEncoderScorer(
        name,
        max_length=settings.max_length,
        batch_pairs=settings.batch_pairs,
        engine=engine,
        threads=settings.threads,
        system=system,
    )


def _bi_encoder(settings: RerankerSettings) -> Scorer:
    return BiEncoderScorer(lambda: load_embedder(settings.bi_encoder))
