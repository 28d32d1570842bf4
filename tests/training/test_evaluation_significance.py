"""Paired tests against scipy, the shared bootstrap and hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from qrelay.errors import InputError
from qrelay.formats.beir import Collection
from qrelay.stats.intervals import paired_bootstrap, percentile_interval
from qrelay.stats.paired import (
    bootstrap_means,
    compare,
    holm,
    randomisation_test,
)
from qrelay.training.evaluation.evaluate import Evaluation, compared, comparison_json, from_json
from tests.training.beir import QRELS


def pair(n: int, gain: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    old = random.random(n)
    return old, old + random.normal(gain, 0.2, n)


def test_the_randomisation_test_is_scipys_exactly_where_all_assignments_are_tried() -> None:
    old, new = pair(10)
    theirs = stats.permutation_test(
        (new - old,), np.sum, permutation_type="samples", n_resamples=2**10, alternative="two-sided"
    )
    assert randomisation_test(new - old) == pytest.approx(theirs.pvalue)
    assert randomisation_test(np.array([1.0, 2, 3, 4, 5, 6])) == 2 / 64


def test_the_randomisation_test_is_scipys_nearly_where_they_are_drawn() -> None:
    old, new = pair(60)
    theirs = stats.permutation_test(
        (new - old,), np.sum, permutation_type="samples", n_resamples=10_000, rng=np.random.default_rng(1)
    )
    assert randomisation_test(new - old) == pytest.approx(theirs.pvalue, abs=0.02)


def test_without_differences_nothing_is_significant() -> None:
    for n in (5, 100):
        assert randomisation_test(np.zeros(n)) == 1.0
        found = compare({"RR@5": np.ones(n)}, {"RR@5": np.ones(n)})[0]
        assert (found.p_bootstrap, found.p_fisher, found.p_fisher_holm) == (1.0, 1.0, 1.0)
        assert (found.low, found.high) == (0.0, 0.0)


def test_the_bootstrap_is_the_projects_own_and_its_interval_is_scipys_nearly() -> None:
    old, new = pair(50)
    shared = paired_bootstrap(
        lambda rows: float(new[rows].mean()), lambda rows: float(old[rows].mean()), np.arange(50), n=2000, seed=5
    )
    found = compare({"x": old}, {"x": new}, n=2000, seed=5)[0]
    assert (found.low, found.high, found.p_bootstrap) == pytest.approx((shared.low, shared.high, shared.p_value))
    theirs = stats.bootstrap((new - old,), np.mean, method="percentile", rng=np.random.default_rng(0))
    low, high = percentile_interval(bootstrap_means((new - old)[None])[0])
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.005)


def test_of_one_query_nothing_is_known() -> None:
    found = compare({"x": np.array([0.0])}, {"x": np.array([1.0])})[0]
    assert np.isnan(found.low)
    assert np.isnan(found.relative)
    assert found.p_bootstrap == found.p_fisher == 1.0


def test_holm_is_the_step_down_of_a_worked_example() -> None:
    """0.01*4; 0.02*3; 0.03*2, not below the one before; 0.04*1, not below either; at most 1."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


def test_a_comparison_says_who_won_how_often_and_by_how_much() -> None:
    old, new = np.array([0.5, 0.5, 0.2, 0.4]), np.array([1.0, 0.5, 0.1, 0.9])
    found = compare({"RR@5": old, "AP": old}, {"RR@5": new, "P@5": new})
    assert [each.measure for each in found] == ["RR@5"]
    assert (found[0].wins, found[0].losses, found[0].ties) == (2, 1, 1)
    assert found[0].difference == pytest.approx(0.225)
    assert found[0].relative == pytest.approx(0.225 / 0.4)
    assert found[0].low <= found[0].difference <= found[0].high


def test_what_cannot_be_compared_is_refused() -> None:
    one = np.ones(3)
    with pytest.raises(InputError, match="no measure is in both"):
        compare({"AP": one}, {"P@5": one})
    with pytest.raises(InputError, match="different numbers of queries"):
        compare({"AP": one}, {"AP": np.ones(4)})
    old = Evaluation("a", ("q1",), {"AP": np.ones(1)}, collection="x")
    for new in (
        Evaluation("b", ("q2",), {"AP": np.ones(1)}),
        Evaluation("b", ("q1",), {"AP": np.ones(1)}, collection="other qrels"),
    ):
        with pytest.raises(InputError, match="on one collection"):
            compared(old, new)


def test_all_measures_of_a_comparison_are_corrected_together() -> None:
    old, new = pair(80, gain=0.08)
    alone = compare({"a": old}, {"a": new})[0]
    two = compare({"a": old, "b": old}, {"a": new, "b": old})
    assert alone.p_fisher_holm == alone.p_fisher
    assert two[0].p_fisher_holm == pytest.approx(2 * alone.p_fisher)


def evaluations() -> tuple[Evaluation, Evaluation]:
    ids = ("q1", "q2", "q3")
    old = Evaluation("old", ids, {"RR@5": np.array([1.0, 0.0, 0.5])}, {"q1": "d2", "q2": "d3", "q3": ""})
    new = Evaluation("new", ids, {"RR@5": np.array([0.5, 1.0, 0.5])}, {"q1": "d1", "q2": "d1", "q3": "d4"})
    return old, new


def test_every_query_is_told_with_its_text_and_what_both_put_first() -> None:
    texts = {"d1": "cats", "d2": "dogs", "d3": "x" * 500, "d4": "mice"}
    collection = Collection(list(texts), list(texts.values()), {"q1": "one", "q2": "two", "q3": "three"}, QRELS)
    queries = comparison_json(*evaluations(), collection)["queries"]
    assert [row["query_id"] for row in queries["wins"]] == ["q2"]
    assert [row["query_id"] for row in queries["losses"]] == ["q1"]
    assert [row["query_id"] for row in queries["ties"]] == ["q3"]
    assert queries["wins"][0] == {
        "query_id": "q2", "old": 0.0, "new": 1.0, "text": "two", "old_first": "d3", "old_first_text": "x" * 160,
        "old_first_grade": 1, "new_first": "d1", "new_first_text": "cats", "new_first_grade": 2,
    }  # fmt: skip


def test_an_evaluation_comes_back_from_json_and_other_data_is_refused() -> None:
    old, _ = evaluations()
    back = from_json(old.as_json())
    assert (back.system, back.query_ids, back.first, back.means) == (old.system, old.query_ids, old.first, old.means)
    for bad in ({}, {"systems": []}, {**old.as_json(), "query_ids": ["q1"]}):
        with pytest.raises(InputError, match="qrelay eval --json-file"):
            from_json(bad)
