"""A candidate set while scorers give it their scores, one after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from qrelay.errors import QrelayError
from qrelay.types import Candidate, CandidateSet, Score

_DECIMALS: Final = 5
"""Scores are rounded and ties broken by passage_id, so that batching cannot reorder near-equals."""
_Scores = Mapping[int, float | None]
"""By place in the set, of what a scorer was asked about. None: it has no text to score, or no finite score."""


class Scored:
    """See the module."""

    def __init__(self, record: CandidateSet) -> None:
        self.record = record
        self.readable = [bool(each.passage.text or each.passage.title) for each in record.candidates]
        """Of each candidate whether it has a text; some lose it to a message's limit."""
        self.left = list(range(len(record.candidates)))
        """Places of those that the next scorer is asked about, ascending."""
        self.models: list[str] = []
        """The fingerprints of those who have scored it."""
        self.problem: QrelayError | None = None
        self._scores: dict[str, _Scores] = {}

    def left_set(self) -> CandidateSet:
        """The set of what is left."""
        candidates = self.record.candidates
        if len(self.left) == len(candidates):
            return self.record
        return replace(self.record, candidates=tuple(candidates[place] for place in self.left))

    def take(self, system: str, model: str, scores: Sequence[float]) -> int:
        """The scores of what is left, in its order; answers how many candidates with a text have none."""
        found = {
            place: round(score, _DECIMALS) if self.readable[place] and math.isfinite(score) else None
            for place, score in zip(self.left, scores, strict=True)
        }
        self.models.append(model)
        self._scores[system] = found
        if None not in found.values():
            return 0
        return sum(score is None and self.readable[place] for place, score in found.items())

    def drop(self, system: str, share: float, at_least: int) -> None:
        """Leave all but this share of the candidates with a text, rounded down, the best by this system; what it gave
        no score stays, as nothing speaks against it."""
        scores = self._scores.get(system, {})
        readable = [place for place in self._by_id() if self.readable[place]]
        readable.sort(key=lambda place: -math.inf if (score := scores.get(place)) is None else -score)
        stay = max(at_least, len(readable) - math.floor(share * len(readable)))
        self.left = sorted(readable[:stay])

    def best(self, count: int) -> list[Candidate]:
        """The first `count`, by the last scorer and, where that gave no score or the same, by the one before it; each
        with the score and rank that every scorer gave it. Without a score there is no rank."""
        places, order, ranks = range(len(self.readable)), self._by_id(), dict[str, Mapping[int, int]]()
        for system, scores in self._scores.items():
            order.sort(
                key=[math.inf if (score := scores.get(place)) is None else -score for place in places].__getitem__
            )
            ranks[system] = {place: rank for rank, place in enumerate(order, 1)}
        return [self._with_scores(place, ranks) for place in order[:count]]

    def _with_scores(self, place: int, ranks: Mapping[str, Mapping[int, int]]) -> Candidate:
        candidate, scores = self.record.candidates[place], list[Score]()
        for system, found in self._scores.items():
            if place in found:
                score = found[place]
                scores.append(Score(system, score, 0 if score is None else ranks[system][place]))
        others = (each for each in candidate.scores if each.system not in self._scores)
        return Candidate(candidate.passage, (*others, *scores))

    def _by_id(self) -> list[int]:
        """All places by passage id."""
        ids = [each.passage.passage_id for each in self.record.candidates]
        return sorted(range(len(ids)), key=ids.__getitem__)
