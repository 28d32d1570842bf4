"""Agreement: against scikit-learn, against values computed by hand, and at the edges."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, confusion_matrix, roc_auc_score

from qrelay.errors import InputError
from qrelay.stats.agreement import auc, auc_within, best_kappa_threshold, confusion, fleiss_kappa, kappa
from qrelay.stats.alpha import alpha_of, krippendorff_alpha

ROWS = st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=1, max_size=40)
GRADES = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=40)


# --- AUC --------------------------------------------------------------------------------------------------------


@given(ROWS)
def test_auc_is_scikit_learns_and_nan_with_one_class(rows: list[tuple[bool, int]]) -> None:
    y, s = map(list, zip(*rows, strict=True))
    if len(set(y)) == 1:
        assert math.isnan(auc(y, s))
    else:
        assert auc(y, s) == pytest.approx(roc_auc_score(y, s))


def test_auc_by_hand_counts_ties_half() -> None:
    assert auc([1, 1, 0, 0], [3.0, 1.0, 1.0, 0.0]) == pytest.approx((2 + 1.5) / 4)
    assert auc([1, 0, 1], [2, 2, 2]) == 0.5


@given(ROWS)
def test_auc_of_turned_scores_is_what_is_left_to_one(rows: list[tuple[bool, int]]) -> None:
    y, s = map(np.array, zip(*rows, strict=True))
    assert auc(y, -s) == pytest.approx(1 - auc(y, s), nan_ok=True)


def test_auc_within_is_the_mean_of_the_groups_that_have_both_classes() -> None:
    labels = [1, 0, 1, 0, 0, 1, 1]
    scores = [2.0, 1.0, 5.0, 6.0, 5.0, 9.0, 8.0]
    groups = ["a", "a", "b", "b", "b", "c", "c"]
    assert auc_within(labels, scores, groups) == (pytest.approx((1.0 + 0.25) / 2), 2)


def test_auc_within_does_not_depend_on_scores_between_groups_nor_on_row_order() -> None:
    generator = np.random.default_rng(1)
    y, s, g = generator.random(90) < 0.4, generator.normal(size=90), generator.integers(0, 9, 90)
    shuffled = generator.permutation(90)
    assert auc_within(y, s + 100.0 * g, g) == pytest.approx(auc_within(y, s, g))
    assert auc_within(y[shuffled], s[shuffled], g[shuffled]) == pytest.approx(auc_within(y, s, g))


def test_auc_within_without_a_mixed_group_is_nan_and_none() -> None:
    value, groups = auc_within([1, 0], [1.0, 2.0], ["a", "b"])
    assert (math.isnan(value), groups) == (True, 0)


# --- kappa, alpha, confusion -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, "quadratic"])
@given(rows=GRADES)
def test_kappa_is_scikit_learns(rows: list[tuple[int, int]], weights: str | None) -> None:
    a, b = map(list, zip(*rows, strict=True))
    if len({*a, *b}) == 1:
        assert kappa(a, b, weights) == 0.0
    else:
        assert kappa(a, b, weights) == pytest.approx(cohen_kappa_score(a, b, labels=[1, 2, 3, 4], weights=weights))


def test_kappa_by_hand() -> None:
    assert kappa([1, 1, 0, 0], [1, 0, 0, 0]) == pytest.approx((0.75 - 0.5) / 0.5)


def test_quadratic_kappa_knows_the_distance_of_a_grade_that_nobody_gave() -> None:
    """By hand: one row of four is off by 2, cost 4; by chance 36 (0, 3), 2 (1, 0), 8 (1, 3), 18 (3, 0) over 16."""
    observed, by_chance = 4 / 4, (36 + 2 + 8 + 18) / 16
    assert kappa([0, 0, 1, 3], [0, 0, 3, 3], "quadratic") == pytest.approx(1 - observed / by_chance)


@given(GRADES)
def test_kappa_does_not_care_who_is_first_nor_where_the_scale_starts(rows: list[tuple[int, int]]) -> None:
    a, b = map(np.array, zip(*rows, strict=True))
    assert kappa(a, b, "quadratic") == pytest.approx(kappa(b - 7, a - 7, "quadratic"))


def test_alpha_by_hand_on_nominal_data() -> None:
    """Krippendorff's "Computing Krippendorff's Alpha-Reliability" (2011), section A: alpha = 0.095."""
    one = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    other = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha(one, other, "nominal") == pytest.approx(0.095, abs=5e-4)


def test_alpha_of_equal_gradings_is_one_and_of_constants_nan() -> None:
    assert krippendorff_alpha([1, 2, 3, 4], [1, 2, 3, 4]) == pytest.approx(1.0)
    assert math.isnan(krippendorff_alpha([2, 2], [2, 2]))


def test_ordinal_alpha_forgives_a_near_miss_more_than_a_far_one() -> None:
    people = [1, 1, 2, 2, 3, 3, 4, 4]
    near, far = [2, 1, 2, 2, 3, 3, 4, 4], [4, 1, 2, 2, 3, 3, 4, 4]
    assert krippendorff_alpha(people, near) > krippendorff_alpha(people, far)


@given(GRADES)
def test_confusion_is_scikit_learns(rows: list[tuple[int, int]]) -> None:
    a, b = map(list, zip(*rows, strict=True))
    assert confusion(a, b, [1, 2, 3, 4]).tolist() == confusion_matrix(a, b, labels=[1, 2, 3, 4]).tolist()


def test_confusion_refuses_a_grade_off_the_scale_rather_than_dropping_it() -> None:
    with pytest.raises(InputError, match=r"grades \[4\] are not on the scale"):
        confusion([0, 4], [0, 0], [0, 1, 2, 3])


# --- thresholds -------------------------------------------------------------------------------------------------


@given(ROWS)
def test_no_threshold_has_a_higher_kappa_than_the_best(rows: list[tuple[bool, int]]) -> None:
    y, s = map(np.array, zip(*rows, strict=True))
    best = kappa(y, s >= best_kappa_threshold(y, s))
    values = np.unique(s)
    others = [kappa(y, s >= cut) for cut in (values[:-1] + values[1:]) / 2]
    assert best >= max(others, default=0.0) - 1e-12


def test_the_threshold_lies_between_two_scores_and_is_the_highest_of_equals() -> None:
    assert best_kappa_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)
    assert best_kappa_threshold([0, 0, 0], [1.0, 2.0, 3.0]) == 2.5
    assert best_kappa_threshold([0, 1], [0.3, 0.3]) == 0.3


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "scores", "words"),
    [
        ([1, 0], [1.0, math.nan], "row 1 holds no finite number"),
        ([1, 0], [math.inf, math.nan], "2 rows"),
        ([1, 0], [1.0, None], "no finite number"),
        ([1, 0, 1], [1.0, 2.0], "columns of 3, 2 rows"),
        ([], [], "at least one row"),
        ([[1], [0]], [[1.0], [2.0]], "one column"),
        ([0, 3], [1.0, 2.0], "neither 0 nor 1"),
        ([math.nan, 1], [1.0, 2.0], "neither 0 nor 1"),
        ([1, 0], ["high", "low"], "are no numbers"),
    ],
)
@pytest.mark.parametrize("figure", [auc, best_kappa_threshold])
def test_bad_columns_are_refused_with_words(figure: object, labels: object, scores: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        figure(labels, scores)  # type: ignore[operator]


@pytest.mark.parametrize("figure", [kappa, krippendorff_alpha])
def test_gradings_with_nan_or_of_other_lengths_are_refused(figure: object) -> None:
    for a, b in [([1, math.nan], [1, 2]), ([1], [1, 2]), ([], [])]:
        with pytest.raises(InputError):
            figure(a, b)  # type: ignore[operator]


def test_kappa_refuses_scores_unknown_weights_and_things_that_are_no_grades() -> None:
    with pytest.raises(InputError, match="cut scores into grades"):
        kappa([0.2, 1], [1, 0])
    with pytest.raises(InputError, match="weights 'linear'"):
        kappa([0, 1], [1, 0], "linear")
    with pytest.raises(InputError, match="256 are the most"):
        kappa([0, 10**6], [1, 0])
    with pytest.raises(InputError, match="nominal, ordinal"):
        krippendorff_alpha([0, 1], [1, 0], "quadratic")


def test_a_single_row_gives_no_figure_but_no_error() -> None:
    assert math.isnan(auc([1], [0.5]))
    assert kappa([1], [1]) == 0.0
    assert math.isnan(krippendorff_alpha([1], [1]))


def test_a_thousand_rows_are_ranked_fast_enough_for_a_bootstrap() -> None:
    """2,000 resamples of 1,041 rows shall take under 5 s: 2.5 ms each; here the best of 20."""
    generator = np.random.default_rng(0)
    y, s = generator.random(1041) < 0.2, generator.normal(size=1041)
    taken = []
    for _ in range(20):
        start = time.perf_counter()
        auc(y, s)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 2.5e-3


# --- several people ----------------------------------------------------------------------------------------------


def test_fleiss_kappa_is_that_of_his_example() -> None:
    """Ten subjects, fourteen raters, five categories: Fleiss (1971) as Wikipedia and statsmodels give it, 0.210."""
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_counts_rows_by_their_own_numbers_and_leaves_single_grades_out() -> None:
    assert fleiss_kappa([[2, 0], [0, 3], [1, 0]]) == pytest.approx(1.0)
    assert math.isnan(fleiss_kappa([[1, 0], [0, 1]]))
    assert math.isnan(fleiss_kappa([[3, 0], [2, 0]]))


def test_alpha_of_several_people_with_gaps_is_that_of_the_textbook() -> None:
    """Krippendorff's four observers (Content Analysis, chapter 11; wikipedia: nominal 0.743, ordinal 0.815)."""
    gap = float("nan")
    data = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
        [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap],
    ]
    assert alpha_of(data, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert alpha_of(data, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert math.isnan(alpha_of([[1.0, gap], [1.0, 2.0]]))
