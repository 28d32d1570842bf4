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
        self.left = list(range(len(record.candidates)))
        """Places of those that the next scorer is asked about, ascending."""
        self.models: list[str] = []
        """The fingerprints of those who have scored it."""
        self.problem: QrelayError | None = None
        self._scores: dict[str, _Scores] = {}

    def readable(self, place: int) -> bool:
        """Whether the candidate has a text; some lose it to a message's limit."""
        passage = self.record.candidates[place].passage
        return bool(passage.text or passage.title)

    def left_set(self) -> CandidateSet:
        """The set of what is left."""
        candidates = self.record.candidates
        if len(self.left) == len(candidates):
            return self.record
        return replace(self.record, candidates=tuple(candidates[place] for place in self.left))

    def take(self, system: str, model: str, scores: Sequence[float]) -> int:
        """The scores of what is left, in its order; answers how many candidates with a text have none."""
        found = {
            place: round(score, _DECIMALS) if math.isfinite(score) and self.readable(place) else None
            for place, score in zip(self.left, scores, strict=True)
        }
        self.models.append(model)
        self._scores[system] = found
        return sum(score is None and self.readable(place) for place, score in found.items())

    def drop(self, system: str, share: float, at_least: int) -> None:
        """Leave all but this share of the candidates with a text, rounded down, the best by this system; what it gave
        no score stays, as nothing speaks against it."""
        scores = self._scores.get(system, {})
        readable = sorted(filter(self.readable, self._by_id()), key=lambda place: _unknown_first(scores.get(place)))
        stay = max(at_least, len(readable) - math.floor(share * len(readable)))
        self.left = sorted(readable[:stay])

    def ranked(self) -> list[Candidate]:
        """Best first, by the last scorer and, where that gave no score or the same, by the one before it; each with
        the score and rank that every scorer gave it. Without a score there is no rank."""
        order, own = self._by_id(), [list[Score]() for _ in self.record.candidates]
        for system, scores in self._scores.items():
            order.sort(key=lambda place: _unknown_last(scores.get(place)))
            for rank, place in enumerate(order, 1):
                if place in scores:
                    own[place].append(Score(system, scores[place], 0 if scores[place] is None else rank))
        return [self._with(place, own[place]) for place in order]

    def _by_id(self) -> list[int]:
        """All places by passage id."""
        candidates = self.record.candidates
        return sorted(range(len(candidates)), key=lambda place: candidates[place].passage.passage_id)

    def _with(self, place: int, own: Sequence[Score]) -> Candidate:
        candidate = self.record.candidates[place]
        systems = [each.system for each in own]
        others = tuple(each for each in candidate.scores if each.system not in systems)
        return Candidate(candidate.passage, (*others, *own))


def _unknown_last(score: float | None) -> tuple[bool, float]:
    return score is None, -(score or 0.0)


def _unknown_first(score: float | None) -> tuple[bool, float]:
    return score is not None, -(score or 0.0)
