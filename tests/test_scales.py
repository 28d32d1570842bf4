"""Which grades mean relevant: one answer for judges, people, mining and files; and what a judge's labels lean on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qrelay.errors import InputError
from qrelay.formats.annotated_pairs import relevant_from
from qrelay.judging.strategies import make_strategy
from qrelay.scales import RELEVANT_GRADE, Scale, bounds, known, peoples_bounds
from qrelay.types import JudgeIdentity, retrieval_scores

JUDGE = JudgeIdentity("m", "r", "q", "p", "graded", "0-3", "n=1")


@pytest.mark.parametrize(("name", "grade"), [("0-1", 1), ("0-2", 2), ("0-3", 2), ("1-4", 3), ("0-4", 3)])
def test_the_upper_half_is_relevant_where_nobody_says_otherwise(name: str, grade: int) -> None:
    scale, (low, high) = Scale.halved(name), bounds(name)
    assert [each for each in range(low, high + 1) if scale.relevant(each)] == list(range(grade, high + 1))
    assert relevant_from(range(low, high + 1)) == grade
    assert RELEVANT_GRADE.get(name, grade) == grade
    assert not scale.relevant(None), "a missing label is never relevant"


@pytest.mark.parametrize(("strategy", "name"), [("binary", "0-1"), ("graded", "0-3"), ("graded", "1-4")])
def test_a_strategy_takes_relevance_from_its_scale_and_has_a_reply_for_each_grade(strategy: str, name: str) -> None:
    scale = make_strategy(strategy, name).spec.scale
    assert scale == replace(Scale.named(name), variants=scale.variants)
    assert scale.min_grade + len(scale.variants) - 1 == scale.max_grade


def test_a_named_grade_wins_and_a_scale_may_be_more_than_numbers() -> None:
    grades = {"0-3": 3, "stars": 4}
    assert [Scale.halved("0-3", grades).relevant(each) for each in (2, 3)] == [False, True]
    assert [Scale.named("stars", grades).relevant(each) for each in (3, 4)] == [False, True]


def test_a_scale_that_nobody_names_is_refused_where_guessing_would_train() -> None:
    with pytest.raises(InputError, match=r"'stars'.*sink.relevant_grades, which knows 0-1, 0-3, 1-4"):
        Scale.named("stars")
    with pytest.raises(InputError, match="its least and its highest grade"):
        Scale.halved("stars")


@pytest.mark.parametrize(
    ("low", "high", "relevant", "name"),
    [(0, 3, 2, "0-3"), (0, 3, 3, "0-3:3"), (0, 4, 3, "0-4:3"), (1, 5, 4, "1-5:4")],
)
def test_a_scale_of_ones_own_says_in_its_name_what_is_relevant(low: int, high: int, relevant: int, name: str) -> None:
    scale = Scale.of(low, high, relevant)
    assert (scale.name, scale.min_grade, scale.max_grade, known(name)) == (name, low, high, True)
    assert Scale.named(name) == Scale.halved(name) == scale
    assert Scale.named(name, {**RELEVANT_GRADE, name: high}).relevant_grade == high, "the sink's setting wins"


@pytest.mark.parametrize("name", ["0-3:0", "0-3:4", "0-3:", "3-0:2", "0-3:x", "0-3:2:2"])
def test_a_name_that_says_a_grade_off_its_scale_is_none(name: str) -> None:
    assert not known(name)
    with pytest.raises(InputError):
        bounds(name)
    with pytest.raises(InputError, match=r"sink\.relevant_grades"):
        Scale.named(name)


def test_people_grade_on_plain_scales() -> None:
    assert peoples_bounds("0-4") == (0, 4)
    with pytest.raises(InputError, match=r"people grade on 0-4, and sink\.relevant_grades"):
        peoples_bounds("0-4:2")


@pytest.mark.parametrize(
    ("strategy", "decoding", "uses"),
    [
        ("graded", "n=1", False),
        ("fused", f"inputs=a,dense;{retrieval_scores(True)}", True),
        ("fused", f"inputs=a,b;{retrieval_scores(False)}", False),
        ("cascade", f"small=a;large=b;{retrieval_scores(True)}", True),
        ("fused", "of=a,b,bm25 stage-scores=yes", True),
        ("cascade", "small=a;large=b", True),
        ("graded", "n=1;model=no-stage-scores=yes", False),
    ],
)
def test_a_judge_says_whether_its_labels_lean_on_retrieval_scores(strategy: str, decoding: str, uses: bool) -> None:
    assert replace(JUDGE, strategy=strategy, decoding=decoding).uses_retrieval_scores is uses
