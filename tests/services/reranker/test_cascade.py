"""A first scorer drops the lower half, and what it dropped stays honest: its own score alone, below all others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrelay import wire
from qrelay.errors import BackendUnavailable
from qrelay.labels.audit.breakdown import retrieved_by
from qrelay.ranks import current_model, rank_of
from qrelay.runtime import telemetry
from qrelay.runtime.trace import closed
from qrelay.services.reranker.reranker import Reranker, load_reranker
from qrelay.services.reranker.scorers import BiEncoderScorer, CrossEncoderScorer, FakeScorer
from qrelay.services.reranker.service import needed_models
from qrelay.services.reranker.settings import CascadeSettings, RerankerSettings
from qrelay.types import (
    BI_ENCODER,
    BM25,
    CROSS_ENCODER,
    DENSE,
    SMALL_CROSS_ENCODER,
    Candidate,
    CandidateSet,
    Score,
    TraceStep,
    without_text,
)
from tests import samples, tiny


class Given(FakeScorer):
    """Scores by document number, and what it was asked about."""

    def __init__(self, system: str, scores: Sequence[float]) -> None:
        super().__init__()
        self.system, self.fingerprint, self.given = system, f"{system}@1", scores
        self.asked: list[list[int]] = []

    def score(self, sets: Sequence[CandidateSet]) -> list[list[float]]:
        self.asked += [[number(candidate) for candidate in each.candidates] for each in sets]
        return [[self.given[number(candidate)] for candidate in each.candidates] for each in sets]


def number(candidate: Candidate) -> int:
    return int(candidate.passage.doc_id[1:])


def cascade(
    first: Sequence[float], large: Sequence[float], drop: float = 0.5, keep: int = 40
) -> tuple[Reranker, Given, Given]:
    small, expensive = Given(SMALL_CROSS_ENCODER, first), Given(CROSS_ENCODER, large)
    settings = RerankerSettings(scorer="fake", keep=keep, sample=min(25, keep), sample_head=min(10, keep),
                                cascade=CascadeSettings(first="path:small", drop=drop))  # fmt: skip
    return Reranker(expensive, settings, first=small), small, expensive


def reranked(core: Reranker, record: CandidateSet, keep: int = 0) -> CandidateSet:
    (found,) = core.rerank([record], keep)
    assert isinstance(found, CandidateSet)
    return found


def system(candidate: Candidate, name: str) -> tuple[float | None, int] | None:
    found = candidate.score(name)
    return found and (found.score, found.rank)


def test_the_upper_half_has_both_scores_and_the_lower_the_firsts_alone_below_it() -> None:
    core, small, large = cascade(first=[0.1, 0.9, 0.2, 0.8, 0.7, 0.3], large=[9.0, 2.0, 8.0, 3.0, 1.0, 7.0])
    found = reranked(core, samples.candidate_set(0, 6))
    assert small.asked == [[0, 1, 2, 3, 4, 5]]
    assert large.asked == [[1, 3, 4]], "in the set's order"
    assert [number(each) for each in found.candidates] == [3, 1, 4, 5, 2, 0]
    assert [system(each, CROSS_ENCODER) for each in found.candidates] == [(3.0, 1), (2.0, 2), (1.0, 3)] + [None] * 3
    assert [system(each, SMALL_CROSS_ENCODER) for each in found.candidates] == [
        (0.8, 2), (0.9, 1), (0.7, 3), (0.3, 4), (0.2, 5), (0.1, 6),
    ]  # fmt: skip
    assert all(each.score(BM25) and each.score(DENSE) for each in found.candidates)
    assert [s.system for s in found.candidates[0].scores] == [BM25, DENSE, SMALL_CROSS_ENCODER, CROSS_ENCODER]


def test_an_earlier_passs_score_of_the_large_model_does_not_outlive_the_drop() -> None:
    core, _, _ = cascade([0.9, 0.1], [0.5, 0.6])
    record = samples.candidate_set(0, 2)
    stale = [replace(each, scores=(*each.scores, Score(CROSS_ENCODER, 0.99, 1))) for each in record.candidates]
    found = reranked(core, replace(record, candidates=tuple(stale)))
    assert [system(each, CROSS_ENCODER) for each in found.candidates] == [(0.5, 1), None]


def test_mining_takes_what_was_dropped_as_ranked_below_everything() -> None:
    core, _, _ = cascade([0.9, 0.1], [0.5, 0.6])
    kept, dropped = reranked(core, samples.candidate_set(0, 2)).candidates
    assert current_model([kept, dropped]) == CROSS_ENCODER
    assert (rank_of(kept, CROSS_ENCODER), rank_of(dropped, CROSS_ENCODER)) == (1, math.inf)
    assert retrieved_by(dropped) == "bm25+dense"


@given(
    scores=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30),
    drop=st.floats(0.01, 0.99),
    keep=st.sampled_from([0, 1, 7, 30]),
)
def test_a_share_is_dropped_and_never_a_better_one_by_the_first(
    scores: list[tuple[int, int]], drop: float, keep: int
) -> None:
    core, _, large = cascade([float(a) for a, _ in scores], [float(b) for _, b in scores], drop)
    found = reranked(core, samples.candidate_set(0, len(scores)), keep)
    stay = set(large.asked[0])
    dropped = set(range(len(scores))) - stay
    assert len(stay) == min(len(scores), max(keep, len(scores) - math.floor(drop * len(scores))))
    assert min(scores[n][0] for n in stay) >= max((scores[n][0] for n in dropped), default=-1)
    ranks = [each.score(CROSS_ENCODER).rank for each in found.candidates if number(each) in stay]  # type: ignore[union-attr]
    assert ranks == list(range(1, len(ranks) + 1))
    if keep:
        assert len(found.candidates) == min(keep, len(scores)) == len(ranks), "of one model all"


def test_a_batch_equals_its_sets_one_by_one_and_is_scored_in_one_call_a_scorer() -> None:
    core, _, _ = cascade([(7 * n % 31) / 31 for n in range(40)], [(11 * n % 37) / 37 for n in range(40)], keep=30)
    sets = [samples.candidate_set(n, 20 + n) for n in range(5)]
    pairs = counted(SMALL_CROSS_ENCODER), counted(CROSS_ENCODER)
    together = core.rerank(sets)
    assert (counted(SMALL_CROSS_ENCODER) - pairs[0], counted(CROSS_ENCODER) - pairs[1]) == (110, 56)
    assert together == [core.rerank([each])[0] for each in sets]


def counted(name: str) -> float:
    return telemetry.RERANKER_PAIRS.labels(name)._value.get()


def test_the_judges_sample_may_hold_what_was_dropped_with_its_text() -> None:
    core, _, _ = cascade([n / 100 for n in range(60)], [n / 100 for n in range(60)], drop=0.75, keep=40)
    found = reranked(core, samples.candidate_set(0, 60))
    assert len([each for each in found.candidates if each.sampled]) == 25
    assert all(each.sampled for each in found.candidates[:10])
    dropped = [each for each in found.candidates if each.score(CROSS_ENCODER) is None]
    assert len(dropped) == 25 and any(each.sampled for each in dropped)
    assert all(bool(each.passage.text) == each.sampled for each in found.candidates)


def test_what_the_first_gives_no_score_goes_on_and_what_has_no_text_does_not() -> None:
    core, _, large = cascade([math.nan, 0.1, 0.9, 0.8, 0.7], [0.5, 0.6, 0.7, 0.8, 0.9])
    record = samples.candidate_set(0, 5)
    lost = replace(record, candidates=(*record.candidates[:4], without_text(record.candidates[4])))
    found = reranked(core, lost)
    assert large.asked == [[0, 2]]
    assert [number(each) for each in found.candidates] == [2, 0, 3, 1, 4]
    assert system(found.candidates[1], CROSS_ENCODER) == (0.5, 2)
    last = found.candidates[-1]
    assert (last.scores[-1], last.sampled) == (Score(SMALL_CROSS_ENCODER, None, 0), False)


def test_a_survivor_without_a_finite_score_stands_among_the_dropped() -> None:
    core, _, _ = cascade([0.4, 0.9, 0.8, 0.1], [0.0, math.nan, 0.2, 0.0])
    found = reranked(core, samples.candidate_set(0, 4))
    assert [number(each) for each in found.candidates] == [2, 1, 0, 3]
    assert Score(CROSS_ENCODER, None, 0) in found.candidates[1].scores


def test_a_damaged_first_model_is_named_and_the_large_one_is_not_asked() -> None:
    core, _, large = cascade([math.nan] * 4, [0.1] * 4)
    (failed,) = core.rerank([samples.candidate_set(0, 4)])
    assert isinstance(failed, BackendUnavailable) and "small_cross_encoder@1 gave 4 of 4" in str(failed)
    assert large.asked == []


def test_the_trace_names_both_models_and_travels() -> None:
    core, _, _ = cascade([0.1, 0.2], [0.1, 0.2])
    found = reranked(core, samples.candidate_set(0, 2))
    whole = closed(found, TraceStep("reranker", "r1", "", 0.5, 1.5))
    assert whole.trace == (
        TraceStep("reranker", "r1", "small_cross_encoder@1", 0.0, 0.0),
        TraceStep("reranker", "r1", "cross_encoder@1", 0.5, 1.5),
    )
    assert wire.from_proto(wire.to_proto(whole)) == whole
    info = core.info()
    assert info.models == {CROSS_ENCODER: "cross_encoder@1", SMALL_CROSS_ENCODER: "small_cross_encoder@1"}
    assert info.details["cascade"] == "small_cross_encoder drops 0.5 of each set"


def test_the_retrievers_scores_may_be_the_first_and_alone_they_are_no_cascade() -> None:
    def never() -> object:
        raise AssertionError("the sets carry their dense scores")

    dense, large = BiEncoderScorer(never), Given(CROSS_ENCODER, [n / 10 for n in range(10)])  # type: ignore[arg-type]
    settings = RerankerSettings(cascade=CascadeSettings(first=BI_ENCODER, drop=0.3))
    found = reranked(Reranker(large, settings, first=dense), samples.candidate_set(0, 10))
    assert large.asked == [[0, 1, 2, 3, 4, 5, 6]]
    assert [number(each) for each in found.candidates] == [6, 5, 4, 3, 2, 1, 0, 7, 8, 9]
    assert system(found.candidates[-1], BI_ENCODER) == (0.81, 10)
    fallback = load_reranker(settings)
    alone = reranked(fallback, samples.candidate_set(0, 10))
    assert [system(each, BI_ENCODER) for each in alone.candidates][::9] == [(0.9, 1), (0.81, 10)]
    assert len(alone.trace) == 1 and "cascade" not in fallback.info().details


def test_two_real_models_score_as_each_of_them_alone(tmp_path: Path) -> None:
    words = ["how", "to", "do", "thing", "title", "text", *map(str, range(60))]
    small, large = (f"path:{tiny.cross_encoder(tmp_path / f'c{seed}', words, seed, 48)}" for seed in (1, 2))
    settings = RerankerSettings(cross_encoder=large, cascade=CascadeSettings(first=small))
    assert needed_models(settings) == [large, small]
    record = samples.candidate_set(0, 12)
    found = reranked(load_reranker(settings), record)
    for name, model, count in ((SMALL_CROSS_ENCODER, small, 12), (CROSS_ENCODER, large, 6)):
        alone = CrossEncoderScorer(model, max_length=384, batch_pairs=8).score([record])[0]
        scored = [each for each in found.candidates if each.score(name)]
        assert len(scored) == count
        for each in scored:
            assert each.score(name).score == pytest.approx(alone[number(each)], abs=1e-4)  # type: ignore[union-attr]


def test_settings_that_make_no_cascade_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bi_encoder: it has nothing to spare; cascade.first is the cross_encoder"):
        RerankerSettings(scorer="bi_encoder", cross_encoder="path:x", cascade=CascadeSettings(first="path:x"))
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="drop"):
            CascadeSettings(first="bi_encoder", drop=share)
    assert needed_models(RerankerSettings(cascade=CascadeSettings(first=BI_ENCODER))) == []
