"""The gate's decision from values alone: known p-values, thresholds, guards, and that it never says yes to both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qrelay.training.gate.decide import Decision, Pair, Row, better, decide, decision_of, no_worse, randomisation_p

RULES = {"alpha": 0.05, "minimum_effect": 0.0, "min_queries": 3}


def pair(baseline: list[float], candidate: list[float]) -> Pair:
    return Pair("dev", "nDCG@10", np.array(baseline, float), np.array(candidate, float))


def test_the_p_value_of_few_queries_is_the_exact_share_of_swaps() -> None:
    # five queries that all gain: of 2**5 swaps only the one without a swap has a sum as large
    assert randomisation_p(np.full(5, 0.1)) == 1 / 32
    # 0.3 and -0.1: of the sums 0.2, 0.4, -0.4, -0.2 two are at least 0.2
    assert randomisation_p(np.array([0.3, -0.1])) == 2 / 4
    assert randomisation_p(np.zeros(4)) == 1.0


def test_the_sampled_p_value_is_near_the_binomial_one() -> None:
    # 20 gains and 10 losses of one size: P(at least 20 heads of 30) = 0.04937
    differences = np.array([0.1] * 20 + [-0.1] * 10)
    assert randomisation_p(differences) == pytest.approx(0.0494, abs=0.008)


def test_a_clear_gain_is_better_and_its_row_says_so() -> None:
    row = better(pair([0.5] * 40, [0.6] * 40), **RULES)
    assert row.passed
    assert (row.baseline, row.candidate, row.queries) == (pytest.approx(0.5), pytest.approx(0.6), 40)
    assert row.interval == (pytest.approx(0.1), pytest.approx(0.1))
    assert row.p is not None and row.p < 0.001


def test_a_gain_by_chance_is_not_better() -> None:
    row = better(pair([0.5, 0.5, 0.5, 0.5], [0.9, 0.4, 0.6, 0.4]), **RULES)
    assert (row.difference or 0) > 0
    assert not row.passed


def test_a_gain_below_the_minimum_effect_is_not_better() -> None:
    gain = pair([0.5] * 40, [0.52] * 40)
    assert better(gain, **RULES).passed
    assert not better(gain, **{**RULES, "minimum_effect": 0.03}).passed


def test_a_set_with_too_few_queries_passes_nothing() -> None:
    for row in (
        better(pair([0.1] * 29, [0.9] * 29), alpha=0.05, minimum_effect=0.0, min_queries=30),
        no_worse(pair([0.1] * 29, [0.9] * 29), alpha=0.05, max_drop=0.01, min_queries=30),
    ):
        assert not row.passed
        assert "29 queries and the rules demand 30" in row.why


def test_a_guard_bears_a_fall_within_its_bound_and_no_other() -> None:
    fell = pair([0.5] * 40, [0.495] * 40)
    assert no_worse(fell, alpha=0.05, max_drop=0.01, min_queries=3).passed
    assert not no_worse(fell, alpha=0.05, max_drop=0.004, min_queries=3).passed


def test_a_guard_that_cannot_exclude_a_fall_fails_though_its_mean_rose() -> None:
    uncertain = pair([0.5] * 10, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.2])
    row = no_worse(uncertain, alpha=0.05, max_drop=0.01, min_queries=3)
    assert (row.difference or 0) > 0
    assert not row.passed


def test_one_failed_rule_rejects_and_is_the_reason() -> None:
    good = better(pair([0.5] * 40, [0.6] * 40), **RULES)
    decision = decide("v1", "bi_encoder", "", "base", [good, Row("no worse", False, "it fell on the guard")])
    assert not decision.passed
    assert decision.why == "it fell on the guard"


def test_nothing_passes_without_a_rule_that_says_better() -> None:
    assert not decide("v1", "bi_encoder", "", "base", []).passed
    held = no_worse(pair([0.5] * 40, [0.6] * 40), alpha=0.05, max_drop=0.01, min_queries=3)
    assert not decide("v1", "bi_encoder", "", "base", [held]).passed


def test_a_decision_is_read_back_as_it_was_written() -> None:
    rows = [better(pair([0.5] * 40, [0.6] * 40), **RULES), Row("other judges", True, "gold labels", "dev")]
    decision = decide("v1", "bi_encoder", "v0", "base", rows)
    read = decision_of(decision.as_json())
    assert isinstance(read, Decision)
    assert read == decision


columns = st.integers(2, 20).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.float64, n, elements=st.floats(0, 1, width=32))] * 2)
)


@settings(max_examples=60, deadline=None)
@given(columns)
def test_of_two_models_at_most_one_passes_against_the_other(values: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = values
    rules = {"alpha": 0.4, "minimum_effect": 0.0, "min_queries": 2}
    forth = better(Pair("dev", "m", one, other), **rules)
    back = better(Pair("dev", "m", other, one), **rules)
    assert not (forth.passed and back.passed)
