"""What every framework's reranker needs of the client, without any framework."""

from __future__ import annotations

from typing import Any

from qrelay.client.inputs import candidate_set
from qrelay.integrations.ranking import AT_ONCE, Text, ranked
from qrelay.types import CROSS_ENCODER, Candidate, CandidateSet, Score

QUERY = "what causes tides?"
MANY = [Text(f"Green tea number {n} is steeped in hot water.") for n in range(3 * AT_ONCE)]


class Cutting:
    """A client of a service that reranks the first `most` of a set. The later a document, the better it is."""

    def __init__(self, most: int) -> None:
        self.most = most

    def rerank(self, sets: list[dict[str, Any]], **_: Any) -> list[CandidateSet]:
        return [self._reranked(candidate_set(each, "facts")) for each in sets]

    def _reranked(self, given: CandidateSet) -> CandidateSet:
        kept = [
            Candidate(each.passage, (Score(CROSS_ENCODER, float(each.passage.doc_id), 1),))
            for each in given.candidates[: self.most]
        ]
        return CandidateSet(given.query, tuple(kept), "given")


def test_a_service_that_scores_fewer_than_it_is_sent_is_asked_for_the_rest() -> None:
    found = ranked(Cutting(10), QUERY, MANY, len(MANY), "")  # type: ignore[arg-type]
    assert [place for place, _ in found] == [*reversed(range(len(MANY)))]


def test_what_has_no_score_comes_last_in_its_order_and_the_best_are_chosen_among_all() -> None:
    assert ranked(Cutting(0), QUERY, MANY[:3], 2, "") == [(0, None), (1, None)]  # type: ignore[arg-type]
    best = len(MANY) - 1
    assert ranked(Cutting(10), QUERY, MANY, 1, "") == [(best, float(best))]  # type: ignore[arg-type]
