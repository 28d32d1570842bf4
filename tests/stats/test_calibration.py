"""Calibration: maps that rise, stay off certainty, survive JSON, and never judge a query that they were fitted on."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.preprocessing import StandardScaler

from qrelay.errors import InputError
from qrelay.stats.calibration import (
    Isotonic,
    Logistic,
    brier,
    ece,
    group_folds,
    reliability_curve,
)

SCORED = st.lists(st.tuples(st.booleans(), st.integers(-6, 6)), min_size=1, max_size=40)
SURE = st.lists(st.tuples(st.booleans(), st.integers(0, 10).map(lambda tenths: tenths / 10)), min_size=1, max_size=60)


# --- how good probabilities are ---------------------------------------------------------------------------------


@given(SURE)
def test_brier_is_scikit_learns(rows: list[tuple[bool, float]]) -> None:
    y, p = map(list, zip(*rows, strict=True))
    assert brier(y, p) == pytest.approx(brier_score_loss(y, p, pos_label=True))


def test_ece_by_hand() -> None:
    """Two bins of two rows: |0.5 - 0.2| and |1 - 0.85|, each half the rows."""
    labels, p = [0, 1, 1, 1], [0.1, 0.3, 0.8, 0.9]
    assert ece(labels, p, bins=2) == pytest.approx((0.3 + 0.15) / 2)
    assert reliability_curve(labels, p, bins=2) == [(pytest.approx(0.2), 0.5, 2), (pytest.approx(0.85), 1.0, 2)]


@given(SURE, st.integers(1, 12), st.randoms(use_true_random=False))
def test_bins_hold_all_rows_and_do_not_depend_on_their_order(
    rows: list[tuple[bool, float]], bins: int, random: object
) -> None:
    y, p = map(list, zip(*rows, strict=True))
    curve = reliability_curve(y, p, bins)
    assert sum(n for *_, n in curve) == len(rows)
    assert len(curve) <= bins
    assert sum(share * n for _, share, n in curve) == pytest.approx(sum(y))
    assert [mean for mean, *_ in curve] == sorted({mean for mean, *_ in curve})
    random.shuffle(rows)  # type: ignore[attr-defined]
    y, p = map(list, zip(*rows, strict=True))
    assert np.allclose(reliability_curve(y, p, bins), curve)


def test_bins_of_different_scores_are_equally_full() -> None:
    curve = reliability_curve([0, 1] * 50, np.linspace(0, 1, 100))
    assert [n for *_, n in curve] == [10] * 10


def test_one_constant_probability_is_one_bin() -> None:
    assert reliability_curve([0, 1, 1, 1], [0.5] * 4) == [(0.5, 0.75, 4)]
    assert ece([0, 1, 1, 1], [0.5] * 4) == 0.25


def test_a_perfect_calibration_has_the_ece_of_chance_and_a_crooked_one_more() -> None:
    generator = np.random.default_rng(0)
    p = generator.beta(1, 4, (50, 1000))
    y = generator.random((50, 1000)) < p
    honest = np.mean([ece(labels, row) for labels, row in zip(y, p, strict=True)])
    crooked = np.mean([ece(labels, row**0.5) for labels, row in zip(y, p, strict=True)])
    assert 0.015 < honest < 0.035
    assert crooked > 0.15


@pytest.mark.parametrize(
    ("labels", "p", "words"),
    [
        ([1, 0], [0.2, 1.2], "outside 0 to 1"),
        ([1, 0], [0.2, math.nan], "row 1 holds no finite"),
        ([2, 0], [0.2, 0.3], "neither 0 nor 1"),
        ([1, 0], [0.2], "columns of 2, 1 rows"),
        ([], [], "at least one row"),
    ],
)
@pytest.mark.parametrize("figure", [brier, ece, reliability_curve])
def test_what_is_no_probability_is_refused(figure: object, labels: object, p: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        figure(labels, p)  # type: ignore[operator]


def test_a_sum_of_probabilities_that_rounding_carried_past_one_is_one() -> None:
    assert brier([1], [sum([0.1] * 3 + [0.7]) + 2e-16]) == 0.0


def test_no_bins_are_refused() -> None:
    with pytest.raises(InputError, match="0 bins"):
        ece([1, 0], [0.2, 0.3], bins=0)


# --- isotonic ---------------------------------------------------------------------------------------------------


@given(SCORED)
def test_an_isotonic_map_rises_is_never_certain_and_survives_json(rows: list[tuple[bool, int]]) -> None:
    y, s = map(list, zip(*rows, strict=True))
    fitted = Isotonic.fit(s, y)
    asked = np.linspace(-10, 10, 201)
    p = fitted.predict(asked)
    assert (np.diff(p) >= -1e-12).all()
    edge = 1 / (len(rows) + 2)
    assert edge - 1e-12 <= p.min() <= p.max() <= 1 - edge + 1e-12
    again = Isotonic(**json.loads(json.dumps(asdict(fitted))))
    assert (again.predict(asked) == p).all()


def test_isotonic_by_hand_pools_what_falls_and_is_linear_between() -> None:
    """Means at scores 1, 2, 3, 4 are 0, 1, 0.5, 1 of two rows each: 2 and 3 are pooled to 0.75."""
    s, y = [1, 1, 2, 2, 3, 3, 4, 4], [0, 0, 1, 1, 1, 0, 1, 1]
    fitted = Isotonic.fit(s, y)
    assert fitted.predict([1, 1.5, 2, 3, 4, 9, -9]) == pytest.approx([0.1, 0.425, 0.75, 0.75, 0.9, 0.9, 0.1])


def test_isotonic_calibrates_on_rows_that_it_has_not_seen() -> None:
    """The scores as they are miss p by 0.25 on average; the map's error falls as n^(-1/3), here to about 0.03."""
    generator = np.random.default_rng(0)
    p = generator.random(4000)
    y = generator.random(4000) < p
    score = 10 * p**3
    fitted = Isotonic.fit(score[:2000], y[:2000])
    assert np.abs(fitted.predict(score[2000:]) - p[2000:]).mean() < 0.05


def test_isotonic_of_one_class_constant_scores_or_one_row_is_a_constant() -> None:
    assert Isotonic.fit([1, 2, 3], [0, 0, 0]).predict([0, 9]) == pytest.approx([0.2, 0.2])
    assert Isotonic.fit([5, 5, 5, 5], [0, 1, 0, 0]).predict([0, 9]) == pytest.approx([0.25, 0.25])
    assert Isotonic.fit([5], [1]).predict([5]) == pytest.approx([2 / 3])


def test_isotonic_refuses_nan_in_fitting_and_in_use() -> None:
    with pytest.raises(InputError, match="no finite number"):
        Isotonic.fit([1, math.nan], [0, 1])
    with pytest.raises(InputError, match="no finite number"):
        Isotonic.fit([1, 2], [0, 1]).predict([math.nan])
    with pytest.raises(InputError, match="at least one row"):
        Isotonic.fit([], [])


# --- logistic ---------------------------------------------------------------------------------------------------


def features(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two inputs far from zero and of different scales, of which the first says more."""
    generator = np.random.default_rng(seed)
    y = generator.random(n) < 0.3
    return np.column_stack([5 + y + generator.normal(size=n), 1000 + 100 * (y + 3 * generator.normal(size=n))]), y


@pytest.mark.parametrize("l2", [0.1, 1.0, 50.0])
def test_logistic_is_scikit_learns_on_standardised_inputs(l2: float) -> None:
    x, y = features()
    scaled = StandardScaler().fit(x)
    reference = LogisticRegression(C=1 / l2).fit(scaled.transform(x), y)
    assert Logistic.fit(x, y, l2).predict(x) == pytest.approx(
        reference.predict_proba(scaled.transform(x))[:, 1], abs=1e-4
    )


def test_logistic_hits_the_base_rate() -> None:
    x, y = features()
    assert Logistic.fit(x, y).predict(x).mean() == pytest.approx(y.mean(), abs=1e-3)


def test_a_missing_input_counts_as_its_mean() -> None:
    x, y = features()
    x[::7, 1] = math.nan
    fitted = Logistic.fit(x, y)
    assert fitted.means[1] == pytest.approx(np.nanmean(x[:, 1]))
    assert fitted.scales[1] == pytest.approx(np.nanstd(x[:, 1]))
    assert fitted.predict([[6.0, math.nan]]) == pytest.approx(fitted.predict([[6.0, fitted.means[1]]]))


def test_an_input_that_is_missing_everywhere_or_constant_says_nothing() -> None:
    x, y = features()
    padded = np.column_stack([x, np.full(len(x), math.nan), np.full(len(x), 0.1)])
    fitted = Logistic.fit(padded, y)
    assert fitted.weights[2:] == pytest.approx((0.0, 0.0))
    assert fitted.predict(padded) == pytest.approx(Logistic.fit(x, y).predict(x), abs=1e-4)
    assert json.loads(json.dumps(asdict(fitted), allow_nan=False))["means"][2] == 0.0


def test_weighing_ranks_as_predicting_does() -> None:
    x, y = features()
    fitted = Logistic.fit(x, y)
    assert (np.argsort(fitted.weigh(x)) == np.argsort(fitted.predict(x))).all()


def test_logistic_survives_json_and_is_never_certain() -> None:
    x, y = features()
    fitted = Logistic.fit(x, y)
    again = Logistic(**json.loads(json.dumps(asdict(fitted))))
    assert again.predict(x) == pytest.approx(fitted.predict(x), abs=0)
    p = fitted.predict([[1e9, 1e9], [-1e9, -1e9]])
    assert 0.0 < p.min() < p.max() < 1.0


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([[1.0], [2.0]], [1, 1], "same label"),
        ([[1.0], [math.inf]], [1, 0], "finite numbers"),
        ([1.0, 2.0], [1, 0], "a column an input"),
        ([[1.0], [2.0]], [1, 0, 1], "columns of 2, 3 rows"),
        (np.zeros((0, 2)), [], "shape"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: object, y: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Logistic.fit(x, y)  # type: ignore[arg-type]


def test_logistic_refuses_no_penalty_and_other_inputs_than_its_own() -> None:
    x, y = features()
    with pytest.raises(InputError, match="l2 0"):
        Logistic.fit(x, y, 0)
    with pytest.raises(InputError, match="1 inputs a row"):
        Logistic.fit(x, y).predict([[1.0]])


# --- folds ------------------------------------------------------------------------------------------------------


def test_folds_keep_queries_whole_and_are_even_in_rows_and_positives() -> None:
    generator = np.random.default_rng(0)
    groups = np.array([f"q{n}" for n in generator.integers(0, 60, 900)])
    labels = generator.random(900) < 0.25
    folds = group_folds(groups, labels, 5, seed=3)
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    assert np.bincount(folds, minlength=5).min() > 140
    assert np.bincount(folds[labels], minlength=5).min() > 0.75 * labels.sum() / 5
    assert (folds == group_folds(groups, labels, 5, seed=3)).all()
    assert (folds != group_folds(groups, labels, 5, seed=4)).any()


def test_fewer_queries_than_folds_or_labels_that_cannot_be_spread_are_refused() -> None:
    with pytest.raises(InputError, match="grade more queries"):
        group_folds(["a", "b"] * 5, [0, 1] * 5, 5)
    with pytest.raises(InputError, match="grade more queries"):
        group_folds(["a", "b", "c", "d", "e", "e"], [0, 0, 0, 1, 1, 1], 5)
    with pytest.raises(InputError, match="1 folds"):
        group_folds(["a", "b"], [0, 1], 1)
