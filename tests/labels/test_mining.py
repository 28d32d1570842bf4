"""Each mining rule has a test that fails without it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.negatives import OFF
from qrelay.labels.audit.texts import NearTexts
from qrelay.labels.examples import example_of
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery
from qrelay.labels.mining import rules as rules_module
from qrelay.labels.mining.mine import mine
from qrelay.labels.mining.rules import (
    FILTER_REASONS,
    NEGATIVE,
    NEITHER,
    POSITIVE,
    REASONS,
    JudgedPassage,
    MiningRules,
    Verdict,
)
from qrelay.labels.where import parse_where
from qrelay.scales import RELEVANT_GRADE
from qrelay.types import BI_ENCODER, BM25, CROSS_ENCODER, DENSE, Candidate, Passage, Score
from tests.labels.builders import JUDGE

RULES = MiningRules()


def judged(
    document: str,
    grade: int | None = 0,
    *,
    dense: int = 1,
    bm25: int = 1,
    score: float | None = 0.1,
    p: float | None = 0.05,
    text: str | None = None,
    scale: str = "0-3",
    more: tuple[Score, ...] = (),
    number: int = 0,
) -> JudgedPassage:
    """A passage of its own document at these ranks; `score` is dense's."""
    passage = Passage(f"{document}#{number}", document, "", f"text of {document} {number}" if text is None else text)
    scores = (Score(BM25, 1.0, bm25), Score(DENSE, score, dense), *more)
    return JudgedPassage(Candidate(passage, scores, True), grade, None if grade is None else p, scale)


def positive(document: str = "good", **fields: Any) -> JudgedPassage:
    return judged(document, **{"grade": 3, "p": 0.9, "dense": 2, "score": 0.9, **fields})


def verdict_on(document: str, *passages: JudgedPassage, rules: MiningRules = RULES) -> tuple[str, str]:
    (found,) = [v for v in mine(passages, rules) if v.judged.candidate.passage.doc_id == document]
    return found.role, found.reason


@pytest.mark.parametrize(("scale", "relevant"), RELEVANT_GRADE.items())
def test_a_passage_is_positive_from_the_relevant_grade_of_its_scale(scale: str, relevant: int) -> None:
    assert verdict_on("d", judged("d", relevant, scale=scale))[0] == POSITIVE
    assert verdict_on("d", judged("d", relevant - 1, scale=scale))[0] != POSITIVE


@pytest.mark.parametrize(("rank", "reason"), [(10, "relevant"), (11, "hard_relevant"), (0, "hard_relevant")])
def test_a_positive_below_rank_ten_is_hard(rank: int, reason: str) -> None:
    assert verdict_on("good", positive(dense=rank)) == (POSITIVE, reason)


def test_a_passage_without_a_label_is_neither_however_high_it_ranks() -> None:
    assert verdict_on("d", positive(), judged("d", None, dense=1)) == (NEITHER, "missing")


@pytest.mark.parametrize(
    ("dense", "bm25", "expected"),
    [
        (5, 5, (NEGATIVE, "top_rank")),
        (6, 6, (NEITHER, "not_hard")),
        (20, 21, (NEGATIVE, "dense_only")),
        (21, 20, (NEGATIVE, "bm25_only")),
        (0, 20, (NEGATIVE, "bm25_only")),
        (20, 20, (NEITHER, "not_hard")),
        (21, 21, (NEITHER, "not_hard")),
        (0, 0, (NEITHER, "not_hard")),
    ],
)
def test_a_negative_is_in_the_top_five_or_in_the_top_twenty_of_exactly_one(
    dense: int, bm25: int, expected: tuple[str, str]
) -> None:
    assert verdict_on("d", positive(), judged("d", dense=dense, bm25=bm25)) == expected


@pytest.mark.parametrize(("p", "expected"), [(0.39, NEGATIVE), (0.4, NEITHER), (0.7, NEITHER)])
def test_a_negative_is_under_the_threshold_of_relevance(p: float, expected: str) -> None:
    assert verdict_on("d", positive(), judged("d", grade=1, p=p))[0] == expected


def test_the_threshold_is_a_setting() -> None:
    rules = MiningRules(negative_threshold=0.1)
    assert verdict_on("d", positive(), judged("d", p=0.2), rules=rules) == (NEITHER, "uncertain")


def test_a_relevant_passage_is_never_a_negative_even_when_its_probability_is_low() -> None:
    assert verdict_on("d", positive(), judged("d", grade=2, p=0.1))[0] == POSITIVE


@pytest.mark.parametrize(("score", "expected"), [(0.854, "top_rank"), (0.856, "above_guard"), (0.95, "above_guard")])
def test_a_negative_that_scores_above_95_percent_of_the_positive_is_dropped(score: float, expected: str) -> None:
    assert verdict_on("d", positive(score=0.9), judged("d", score=score))[1] == expected


def test_the_best_positive_sets_the_guard() -> None:
    passages = positive("a", score=0.9), positive("b", score=0.3), judged("d", score=0.5)
    assert verdict_on("d", *passages) == (NEGATIVE, "top_rank")


def test_the_guard_holds_for_negative_logits() -> None:
    def logit(value: float) -> tuple[Score, ...]:
        return (Score(CROSS_ENCODER, value, 1),)

    assert verdict_on("d", positive(more=logit(-2.0)), judged("d", more=logit(-2.05)))[1] == "above_guard"
    assert verdict_on("d", positive(more=logit(-2.0)), judged("d", more=logit(-2.2)))[1] == "top_rank"


@pytest.mark.parametrize("text", ["open a file", "Open  a\nFILE!"])
def test_a_near_duplicate_of_a_positive_is_never_a_negative(text: str) -> None:
    assert verdict_on("d", positive(text="open a file"), judged("d", text=text)) == (NEITHER, "duplicate_of_positive")


def test_a_sibling_of_a_positive_is_never_a_negative() -> None:
    sibling = judged("good", number=1)
    roles = {v.judged.candidate.passage.passage_id: v.reason for v in mine([positive(), sibling], RULES)}
    assert roles == {"good#0": "relevant", "good#1": "sibling_of_positive"}


def test_negatives_that_say_the_same_count_once() -> None:
    verdicts = mine([positive(), judged("a", dense=1, text="same"), judged("b", dense=2, text="Same")], RULES)
    assert [v.reason for v in verdicts] == ["relevant", "top_rank", "duplicate_of_negative"]


def test_at_most_ten_negatives_the_highest_ranked_first() -> None:
    many = [judged(f"n{rank:02d}", dense=30 + rank, bm25=rank) for rank in range(1, 15)]
    top = judged("top", dense=4, bm25=4)
    verdicts = mine([positive(), *many, top], RULES)
    chosen = [v.judged.candidate.passage.doc_id for v in verdicts if v.role == NEGATIVE]
    assert chosen == ["top", *(f"n{rank:02d}" for rank in range(1, 10))]
    assert [v.reason for v in verdicts].count("over_limit") == 5


@pytest.mark.parametrize("system", [CROSS_ENCODER, BI_ENCODER])
def test_the_rerankers_rank_is_the_current_models_where_there_is_one(system: str) -> None:
    passages = (
        positive(more=(Score(system, 0.9, 1),)),
        judged("high", dense=15, bm25=15, more=(Score(system, 0.1, 3),)),
        judged("low", dense=3, bm25=3, more=(Score(system, 0.1, 30),)),
    )
    assert verdict_on("high", *passages) == (NEGATIVE, "top_rank")
    assert verdict_on("low", *passages) == (NEGATIVE, "easy")
    assert verdict_on("low", *passages, rules=MiningRules(easy_per_hard=0)) == (NEITHER, "not_hard")


def test_a_passage_that_the_reranker_did_not_see_is_not_ranked_by_another_model() -> None:
    passages = positive(more=(Score(CROSS_ENCODER, 0.9, 1),)), judged("d", dense=3, bm25=3)
    assert verdict_on("d", *passages) == (NEITHER, "not_hard")


def only(**rules: Any) -> MiningRules:
    """The rules with no guard but these, and no easy negatives."""
    return replace(RULES, **{**OFF, "easy_per_hard": 0.0, **rules})


GUARD_CASES: list[tuple[dict[str, Any], str, list[JudgedPassage], JudgedPassage]] = [
    ({"negative_threshold": 0.4}, "uncertain", [positive()], judged("d", grade=1, p=0.4)),
    ({"confident_positive": 0.5}, "no_confident_positive", [positive(p=0.49)], judged("d")),
    ({"confident_positive": 0.5}, "no_confident_positive", [], judged("d")),
    ({"max_share_of_best": 0.5}, "near_best_label", [positive(p=0.5)], judged("d", p=0.26)),
    ({"judge_rank": 1}, "best_by_judge", [positive(grade=2, p=0.3)], judged("d", grade=1, p=0.35)),
    ({"judge_rank": 2}, "best_by_judge", [positive()], judged("d", p=0.2)),
    ({"agreement_rank": 2}, "agreed_top", [positive()], judged("d", dense=2, bm25=1)),
    ({"duplicates": True}, "duplicate_of_positive", [positive(text="a b c d")], judged("d", text="A b, c d!")),
    (
        {"near_duplicate": 0.6},
        "near_duplicate_of_positive",
        [positive(text="a b c d e")],
        judged("d", text="a b c d"),
    ),
    ({"siblings": True}, "sibling_of_positive", [positive("d", number=1)], judged("d")),
    ({"guard_ratio": 0.95}, "above_guard", [positive(score=0.9)], judged("d", score=0.86)),
    ({"guard_margin": 0.05}, "within_margin", [positive(score=0.9)], judged("d", score=0.86)),
]


@pytest.mark.parametrize(("rule", "reason", "positives", "negative"), GUARD_CASES)
def test_each_guard_alone_drops_what_the_others_let_through(
    rule: dict[str, Any], reason: str, positives: list[JudgedPassage], negative: JudgedPassage
) -> None:
    assert verdict_of(negative, positives, only()) == (NEGATIVE, "top_rank")
    assert verdict_of(negative, positives, only(**rule)) == (NEITHER, reason)


def verdict_of(negative: JudgedPassage, positives: Sequence[JudgedPassage], rules: MiningRules) -> tuple[str, str]:
    (found,) = [verdict for verdict in mine([*positives, negative], rules) if verdict.judged is negative]
    return found.role, found.reason


def test_every_guard_has_a_case_above_and_a_number_at_which_it_is_off() -> None:
    assert {reason for _, reason, _, _ in GUARD_CASES} == set(FILTER_REASONS) - {"missing"}
    assert {name for rule, *_ in GUARD_CASES for name in rule} == set(OFF)


def test_agreement_takes_every_system_and_the_judge() -> None:
    rules = only(agreement_rank=2)
    assert verdict_of(judged("d", dense=2, bm25=3), [positive()], rules)[0] == NEGATIVE
    others = [positive(), judged("e", grade=1, p=0.3, dense=9, bm25=9)]
    assert verdict_of(judged("d", dense=2, bm25=2), others, rules)[0] == NEGATIVE


def test_one_system_alone_agrees_with_nobody() -> None:
    alone = [
        JudgedPassage(
            Candidate(each.candidate.passage, each.candidate.scores[1:]), each.grade, each.p_relevant, each.scale
        )
        for each in (positive(), judged("d"))
    ]
    assert verdict_of(alone[1], alone[:1], only(agreement_rank=2))[0] == NEGATIVE


def test_siblings_may_be_negatives_where_the_setting_says_so() -> None:
    sibling = judged("good", number=1)
    assert verdict_of(sibling, [positive()], replace(RULES, siblings=False)) == (NEGATIVE, "top_rank")


def test_a_verdict_names_the_numbers_and_the_passage_behind_it() -> None:
    found = mine([positive(score=0.9), judged("d", score=0.86)], RULES)[-1]
    assert found.because.value == 0.86
    assert found.because.limit == pytest.approx(0.855)
    assert found.because.other == "good#0"


@pytest.mark.parametrize(("share", "taken"), [(0.5, 2), (2.0, 8), (9.0, 9)])
def test_easy_negatives_are_as_many_for_a_hard_one_as_asked_the_surest_first(share: float, taken: int) -> None:
    hard = [judged(f"h{i}", dense=i + 1) for i in range(4)]
    easy = [judged(f"e{i}", dense=30, bm25=30, p=0.01 + i / 100) for i in range(9)]
    verdicts = mine([positive(), *hard, *easy], replace(RULES, easy_per_hard=share))
    assert [v.judged.candidate.passage.doc_id for v in verdicts if v.reason == "easy"] == [
        f"e{i}" for i in range(taken)
    ]
    assert [v.hard for v in verdicts if v.role == NEGATIVE] == [True] * 4 + [False] * taken


def test_two_easy_negatives_come_with_a_hard_one() -> None:
    assert MiningRules().easy_per_hard == 2.0


@pytest.mark.parametrize(("fields", "reason"), [({"p": 0.1}, "not_hard"), ({"grade": None}, "missing")])
def test_an_easy_negative_is_judged_and_surely_not_relevant(fields: dict[str, Any], reason: str) -> None:
    far = judged("far", dense=30, bm25=30, **fields)
    assert verdict_on("far", positive(), judged("h", dense=1), far) == (NEITHER, reason)


def test_without_a_hard_negative_there_is_no_easy_one() -> None:
    assert verdict_on("far", positive(), judged("far", dense=30, bm25=30)) == (NEITHER, "not_hard")


def test_easy_negatives_alone_make_no_example() -> None:
    passages = [positive(), judged("near", dense=1, p=0.06), judged("far", dense=30, bm25=30, p=0.01)]
    labels = [
        Label(each.candidate.passage.passage_id, 1, each.grade, 0, each.p_relevant, None, 0.0, "", 0)
        for each in passages
    ]
    query = LabelledQuery("q1", "a question", tuple(labels), tuple(each.candidate for each in passages))
    judges = {1: JudgeRow(1, "a" * 64, JUDGE)}
    made = example_of(query, judges, RULES)
    assert [each.reason for each in made.negatives] == ["top_rank", "easy"]
    left = example_of(query, judges, RULES, where=parse_where("p_relevant<0.05"))
    assert [each.reason for each in left.verdicts] == ["easy"]
    assert not left.positives and not left.negatives


def test_every_reason_that_mining_gives_is_in_the_table() -> None:
    listed = rules_module.__doc__ or ""
    for reason in (reason for reasons in REASONS.values() for reason in reasons):
        assert reason in listed


@st.composite
def pools(draw: st.DrawFn) -> list[JudgedPassage]:
    size = draw(st.integers(0, 30))
    ranks = st.integers(0, 40)
    return [
        judged(
            draw(st.sampled_from([f"d{i}", "shared"])),
            draw(st.one_of(st.none(), st.integers(0, 3))),
            dense=draw(ranks),
            bm25=draw(ranks),
            score=draw(st.one_of(st.none(), st.floats(-1, 1))),
            p=draw(st.floats(0, 1)),
            text=draw(st.sampled_from([None, "same text", "Same, text"])),
            number=i,
        )
        for i in range(size)
    ]


@given(pools(), st.randoms(use_true_random=False))
def test_mining_is_deterministic_in_any_order_and_says_something_of_every_passage(
    pool: list[JudgedPassage], rng: random.Random
) -> None:
    shuffled = list(pool)
    rng.shuffle(shuffled)
    verdicts = mine(pool, RULES)
    assert mine(shuffled, RULES) == verdicts
    assert sorted(v.passage_id for v in verdicts) == sorted(j.candidate.passage.passage_id for j in pool)
    assert all(v.reason in REASONS[v.role] for v in verdicts)


@given(pools())
def test_whatever_the_pool_no_negative_breaks_a_rule(pool: list[JudgedPassage]) -> None:
    verdicts = mine(pool, RULES)
    positives = [v.judged.candidate.passage for v in verdicts if v.role == POSITIVE]
    negatives: list[Verdict] = [v for v in verdicts if v.role == NEGATIVE]
    hard = [v for v in negatives if v.hard]
    assert len(hard) <= 10
    assert len(negatives) - len(hard) <= RULES.easy_per_hard * len(hard)
    for verdict in negatives:
        assert verdict.judged.grade is not None
        assert verdict.judged.grade < 2
        assert verdict.judged.p_relevant is not None
        assert verdict.judged.p_relevant < RULES.negative_threshold
        assert verdict.judged.candidate.passage.doc_id not in {p.doc_id for p in positives}
        assert verdict.judged.candidate.passage.text not in {p.text for p in positives}


ENGLISH = "Patients with diabetes should control their diet and exercise often to lower their blood sugar level, and"
CHINESE = "糖尿病患者应该控制饮食并经常锻炼以降低血糖水平，并且每天早晨测量血糖值一次。"
THAI = "ผู้ป่วยโรคเบาหวานควรควบคุมอาหารและออกกำลังกายอย่างสม่ำเสมอเพื่อลดระดับน้ำตาลในเลือดทุก"
JAPANESE = "糖尿病の患者は食事を管理し、定期的に運動して血糖値を下げるべきです。毎朝測定してください。"


@pytest.mark.parametrize(
    ("relevant", "copy", "near"),
    [
        (f"{ENGLISH} measure it every morning.", f"{ENGLISH} measure it every evening.", True),
        (CHINESE, CHINESE.replace("早晨", "早上"), True),
        (f"{THAI}เช้า", f"{THAI}เย็น", True),
        (JAPANESE, JAPANESE.replace("毎朝", "毎晩"), True),
        (CHINESE, "高血压患者应该控制盐的摄入并经常锻炼以降低血压水平，并且每天早晨测量血压值一次。", False),
    ],
)
def test_a_near_copy_is_found_in_every_script(relevant: str, copy: str, near: bool) -> None:
    _, reason = verdict_on("copy", positive(text=relevant), judged("copy", text=copy))
    assert (reason == "near_duplicate_of_positive") == near
    seen = NearTexts()
    seen.put("relevant", relevant)
    assert (seen.meet("copy", copy, remember=False) is not None) == near
