"""The reranker's core: score, keep the best, mark the sample. Knows neither gRPC nor NATS."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from qrelay.errors import BackendUnavailable, InvalidQuery, QrelayError
from qrelay.models.embedder import load_embedder
from qrelay.runtime import telemetry
from qrelay.runtime.following import free_when_unused
from qrelay.runtime.stage import Info
from qrelay.runtime.trace import opened
from qrelay.services.reranker.promoted import Promoted, Scorers
from qrelay.services.reranker.sampling import sample_indices
from qrelay.services.reranker.scorers import BiEncoderScorer, CrossEncoderScorer, FakeScorer, Scorer
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.types import Candidate, CandidateSet, Passage, Score

log = logging.getLogger(__name__)

STAGE = "reranker"
_DECIMALS = 5
"""Scores are rounded and ties broken by passage_id, so that batching cannot reorder near-equals."""


class Reranker:
    """See the module."""

    def __init__(
        self, scorers: Scorer | Scorers, settings: RerankerSettings, promoted: Promoted | None = None
    ) -> None:
        """`promoted`: where scorers that replace these come from."""
        self._scorers = scorers if isinstance(scorers, Scorers) else Scorers(scorers)
        self._settings = settings
        self._promoted = promoted
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
            for place, each, scores in zip(own, usable, scorer.score(usable), strict=True):
                found[place] = self._ranked(each, scores, scorer, keep or self._settings.keep)
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

    def _ranked(
        self, each: CandidateSet, scores: Sequence[float], scorer: Scorer, keep: int
    ) -> CandidateSet | QrelayError:
        """The set in order. Candidates without a finite score, or without a text to score, come last and have no
        rank; a set in which none has one is an error: its order would mean nothing."""
        readable = [bool(candidate.passage.text or candidate.passage.title) for candidate in each.candidates]
        known = [
            round(score, _DECIMALS) if there and math.isfinite(score) else None
            for score, there in zip(scores, readable, strict=True)
        ]
        if unscored := sum(readable) - sum(score is not None for score in known):
            telemetry.UNSCORED.inc(unscored)
            problem = (
                f"{scorer.fingerprint} gave {unscored} of {len(known)} candidates of query {each.query.query_id} no"
                " finite score: its weights are damaged, or overflow in half precision"
            )
            if unscored == sum(readable):
                return BackendUnavailable(f"{problem}; replace the model, then replay the query")
            if scorer.fingerprint not in self._complained:
                self._complained.add(scorer.fingerprint)
                log.error("%s; such candidates come last, and are counted from now on", problem)
        return opened(self._rank(each, known, scorer.system, keep), STAGE, scorer.fingerprint)

    def _rank(self, each: CandidateSet, scores: Sequence[float | None], system: str, keep: int) -> CandidateSet:
        settings, candidates = self._settings, each.candidates
        order = sorted(range(len(scores)), key=lambda i: (_last(scores[i]), candidates[i].passage.passage_id))
        best = [
            _scored(candidates[i], Score(system, scores[i], 0 if scores[i] is None else rank))
            for rank, i in enumerate(order[:keep], 1)
        ]
        chosen = sample_indices(
            each.query,
            best,
            size=settings.sample,
            head=settings.sample_head,
            max_per_document=settings.max_per_document,
        )
        return replace(each, candidates=tuple(_mark(candidate, i in chosen) for i, candidate in enumerate(best)))

    def info(self) -> Info:
        """The default slot's model, whether it is the fallback, and which collections have another."""
        scorer = self._scorers.default
        details = {"system": scorer.system, **(self._promoted.details() if self._promoted else {})}
        if isinstance(scorer, BiEncoderScorer):
            details["fallback"] = (
                "no cross-encoder is configured or promoted: these are the bi-encoder's scores; set "
                "reranker.cross_encoder, or train and promote one"
            )
        return Info(models={scorer.system: scorer.fingerprint}, details=details)


def _last(score: float | None) -> tuple[bool, float]:
    """Sorts the highest first, and after all of them what has none."""
    return (True, 0.0) if score is None else (False, -score)


def _scored(candidate: Candidate, own: Score) -> Candidate:
    others = tuple(s for s in candidate.scores if s.system != own.system)
    return Candidate(candidate.passage, (*others, own))


def _mark(candidate: Candidate, sampled: bool) -> Candidate:
    """Text travels on only with the sample: nobody downstream reads the others', ids and scores suffice."""
    passage = candidate.passage
    if not sampled:
        passage = Passage(passage.passage_id, passage.doc_id, passage.title, "")
    return Candidate(passage, candidate.scores, sampled)


def load_reranker(settings: RerankerSettings) -> Reranker:
    """The core with its model: the promoted one, else the configured one.

    Raises:
        ModelError: that model is absent or altered.
    """
    promoted = Promoted(settings, lambda: _load_scorer(settings))
    return Reranker(promoted.first(), settings, promoted)


def _load_scorer(settings: RerankerSettings) -> Scorer:
    if settings.scorer == "fake":
        return FakeScorer(settings.fake.service_time_s)
    if settings.cross_encoder and settings.scorer != "bi_encoder":
        return CrossEncoderScorer(
            settings.cross_encoder,
            max_length=settings.max_length,
            batch_pairs=settings.batch_pairs,
            engine=settings.engine,
            threads=settings.threads,
        )
    return BiEncoderScorer(lambda: load_embedder(settings.bi_encoder))
