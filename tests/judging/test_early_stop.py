"""Early stopping: what is left out could not change an export, is marked so, and is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qrelay.errors import ConfigError, InvalidQuery
from qrelay.judging.early_stop import EarlyStop
from qrelay.judging.failures import transient_missing
from qrelay.judging.load import load_core
from qrelay.judging.settings import EarlyStopSettings, JudgeSettings, MemberSettings
from qrelay.llm.fake import FakeBackend
from qrelay.runtime import telemetry
from qrelay.types import BM25, CROSS_ENCODER, DENSE, Candidate, CandidateSet, Graded, JudgedSet, Missing, Query, Score
from tests.judging.samples import COOKING, COPYTREE, QUERY, make_judge, passage, reasons

RELEVANT, IRRELEVANT = "How do I copy a directory tree? copy directory tree", COOKING


def ranked(*texts: str, disagreeing: tuple[int, ...] = (), reverse: bool = False) -> CandidateSet:
    """Candidates with cross-encoder ranks 1, 2, … in this order (or the other way round); BM25 and dense both rank
    them low, except that BM25 alone ranks those `disagreeing` first."""
    candidates = []
    for n, text in enumerate(texts):
        rank = len(texts) - n if reverse else n + 1
        scores = (Score(CROSS_ENCODER, 1.0 / rank, rank), Score(BM25, 1.0, 1 if n in disagreeing else 99),
                  Score(DENSE, 0.5, 99))  # fmt: skip
        candidates.append(Candidate(passage(f"{text} {n}", n), scores, sampled=True))
    return CandidateSet(Query("q1", QUERY, "docs"), tuple(candidates), "v1")


async def judged(asked: CandidateSet, **options: object) -> tuple[JudgedSet, int]:
    """The set judged, and how many pairs were asked."""
    backend = FakeBackend()
    core = EarlyStop(make_judge(backend), EarlyStopSettings.model_validate({"enabled": True, **options}))
    (answer,) = await core.judge([asked])
    assert isinstance(answer, JudgedSet)
    return answer, backend.asked


async def test_it_stops_when_there_are_enough_positives_and_negatives() -> None:
    before = telemetry.SKIPPED_PAIRS._value.get()
    asked = ranked(RELEVANT, *[IRRELEVANT] * 9)
    answer, calls = await judged(asked, chunk=2, negatives=3)
    assert calls == 4
    assert reasons(answer) == ["graded"] * 4 + ["skipped"] * 6
    assert answer.candidate_set == asked
    assert {each.passage_id for each in answer.judgments} == {c.passage.passage_id for c in asked.candidates}
    assert len({each.judgment_key for each in answer.judgments}) == 10
    assert telemetry.SKIPPED_PAIRS._value.get() == before + 6
    assert not transient_missing(answer), "the queue must not ask again"
    (why,) = {each.outcome.detail for each in answer.judgments if isinstance(each.outcome, Missing)}
    assert "1 relevant passages and 3 hard negatives" in why


async def test_it_goes_by_the_current_models_rank_not_by_the_order_of_the_set() -> None:
    answer, calls = await judged(ranked(*[IRRELEVANT] * 9, RELEVANT, reverse=True), chunk=1, negatives=2)
    assert calls == 3
    assert [each.passage_id for each in answer.judgments[:3]] == ["d#9", "d#8", "d#7"]


async def test_it_stops_where_no_rank_is_left_that_mining_uses() -> None:
    _, calls = await judged(ranked(RELEVANT, *[IRRELEVANT] * 9), chunk=1, negatives=10)
    assert calls == 5, "ranks 6 to 10 can be no hard negatives"
    _, calls = await judged(ranked(RELEVANT, *[IRRELEVANT] * 9, disagreeing=(7,)), chunk=1, negatives=10)
    assert calls == 8, "rank 8 is one: BM25 and dense disagree on it"


async def test_without_a_positive_all_are_judged() -> None:
    answer, calls = await judged(ranked(*[IRRELEVANT] * 12), chunk=5, negatives=1)
    assert calls == 12
    assert reasons(answer) == ["graded"] * 12


async def test_what_is_judged_gets_the_label_that_it_gets_without_stopping() -> None:
    asked = ranked(RELEVANT, COPYTREE, *[IRRELEVANT] * 8)
    (whole,) = await make_judge().judge([asked])
    answer, _ = await judged(asked, chunk=3, negatives=2)
    assert isinstance(whole, JudgedSet)
    labels = {each.passage_id: each for each in whole.judgments}
    for each in answer.judgments:
        if isinstance(each.outcome, Graded):
            assert each == labels[each.passage_id]


async def test_sets_stop_each_on_its_own_and_one_error_stays_one_sets() -> None:
    core = EarlyStop(make_judge(), EarlyStopSettings(enabled=True, chunk=1, negatives=1))
    empty = CandidateSet(Query("bad", "  ", "docs"), ranked(RELEVANT).candidates, "v1")
    short, wrong, long = await core.judge([ranked(RELEVANT, *[IRRELEVANT] * 5), empty, ranked(*[IRRELEVANT] * 6)])
    assert isinstance(wrong, InvalidQuery)
    assert isinstance(short, JudgedSet)
    assert isinstance(long, JudgedSet)
    assert reasons(short).count("skipped") == 4
    assert reasons(long).count("skipped") == 0


@settings(max_examples=50, deadline=None)
@given(kinds=st.lists(st.booleans(), min_size=1, max_size=15), chunk=st.integers(1, 6), need=st.integers(1, 4))
async def test_enough_is_never_too_few(kinds: list[bool], chunk: int, need: int) -> None:
    asked = ranked(*[RELEVANT if kind else IRRELEVANT for kind in kinds])
    answer, calls = await judged(asked, chunk=chunk, positives=1, negatives=need)
    left = [each for each in answer.judgments if isinstance(each.outcome, Missing)]
    assert len(left) + calls == len(kinds)
    seen = kinds[:calls]
    hard = sum(not kind for kind in seen[:5])
    assert not left or (any(seen) and (hard >= need or calls >= 5))


def test_the_settings_switch_it_on_and_refuse_what_it_cannot_serve(tmp_path: Path) -> None:
    on = EarlyStopSettings(enabled=True)
    core = load_core(JudgeSettings(backend="fake", data_dir=tmp_path, early_stop=on))
    assert isinstance(core, EarlyStop)
    assert "early stop" in core.info().details
    core.close()
    with pytest.raises(ConfigError, match="whole list"):
        load_core(JudgeSettings(backend="fake", data_dir=tmp_path, strategy="utility", early_stop=on))
    several = {"a": MemberSettings(strategy="binary"), "b": MemberSettings(strategy="graded")}
    with pytest.raises(ConfigError, match=r"judge\.calibration"):
        load_core(JudgeSettings(backend="fake", data_dir=tmp_path, judges=several, early_stop=on))
