"""What a judge may be used for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qrelay.identity import judge_digest
from qrelay.judging.qualification.fitting import fit_map
from qrelay.judging.qualification.systems import Evaluation, System, evaluate
from qrelay.judging.qualification.verdicts import (
    CALIBRATED_ONLY,
    GATE_AUC,
    NEGATIVE_BELOW,
    NOT_QUALIFIED,
    QUALIFIED,
    UNKNOWN,
    USES,
    _safe,
    unknown,
    verdicts,
)
from qrelay.types import Missing
from tests.judging.qualification.tables import P, made


def words(found: dict[str, Any]) -> list[str]:
    return [found[use]["verdict"] for use in USES]


def with_metrics(evaluation: Evaluation, name: str, **metrics: float) -> Evaluation:
    """The evaluation with other figures of one system."""
    system: System = evaluation.systems[name]
    changed = replace(system, metrics={**system.metrics, **metrics})
    return replace(evaluation, systems={**evaluation.systems, name: changed})


def test_a_judge_that_is_right_is_qualified_for_everything(judged_well: Evaluation) -> None:
    found = verdicts(judged_well)["sharp"]
    assert words(found) == [QUALIFIED] * 3
    assert found["judge"] == judged_well.table.judges["sharp"]
    assert found["positives"]["numbers"]["kappa_raw"] == 1.0
    assert found["negatives"]["numbers"]["raw"]["rate"] == 0.0


def test_a_judge_right_in_order_but_not_in_probability_needs_a_map(judged_well: Evaluation) -> None:
    found = verdicts(judged_well)["shy"]
    assert words(found) == [CALIBRATED_ONLY, CALIBRATED_ONLY, QUALIFIED]
    assert found["positives"]["numbers"]["kappa_raw"] == 0.0
    assert found["positives"]["numbers"]["kappa_calibrated"] > 0.9
    numbers = found["negatives"]["numbers"]
    assert numbers["raw"]["below"] < NEGATIVE_BELOW, "below 0.4 lie its relevant passages too"
    assert (numbers["calibrated"]["below"], numbers["calibrated"]["rate"]) == (NEGATIVE_BELOW, 0.0)
    assert "sink.negative_threshold" not in found["negatives"]["reason"]


def with_p(evaluation: Evaluation, change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Evaluation:
    """The evaluation with other calibrated P(relevant) of "fused"."""
    fused = evaluation.systems["fused"]
    assert fused.predictions is not None
    predictions = replace(fused.predictions, p=change(fused.predictions.p))
    return replace(evaluation, systems={**evaluation.systems, "fused": replace(fused, predictions=predictions)})


def test_a_map_whose_negatives_hold_only_lower_down_says_which_threshold_to_set(judged_well: Evaluation) -> None:
    found = verdicts(with_p(judged_well, lambda p: 0.37 * p))["fused"]["negatives"]
    below = found["numbers"]["calibrated"]["below"]
    assert found["verdict"] == CALIBRATED_ONLY
    assert below < NEGATIVE_BELOW
    assert found["reason"].endswith(f"set sink.negative_threshold to {below}")


def test_negatives_that_hold_nowhere_are_not_qualified(judged_well: Evaluation) -> None:
    assert verdicts(with_p(judged_well, lambda p: 1 - p))["fused"]["negatives"]["verdict"] == NOT_QUALIFIED


def test_a_fused_label_is_good_only_through_its_map(judged_well: Evaluation) -> None:
    found = verdicts(judged_well)["fused"]
    assert words(found) == [CALIBRATED_ONLY] * 3
    assert found["judge"] is None, "a map of cross-validation labels nothing"


def test_a_label_that_leans_on_stage_scores_never_qualifies_for_a_gate(judged_well: Evaluation) -> None:
    assert judged_well.systems["fused+stages"].metrics["auc"] > GATE_AUC
    found = verdicts(judged_well)["fused+stages"]
    assert found["gate"]["verdict"] == NOT_QUALIFIED
    assert "lean on the scores" in found["gate"]["reason"]
    assert found["positives"]["verdict"] == CALIBRATED_ONLY


def test_a_judge_with_a_fitted_map_is_known_by_both_its_hashes(judged_well: Evaluation) -> None:
    table = replace(judged_well.table, stages={})
    fitted = fit_map(table, ["shy"], table.graded)
    evaluation = evaluate(table, {}, {"shy": fitted})
    assert evaluation.in_sample == ("shy",), "the map was fitted on these pairs, and the figures must say so"
    found = verdicts(evaluation)
    assert found["shy"]["judge"] == table.judges["shy"]
    assert found["shy, calibrated"]["judge"] == judge_digest(fitted.identity)
    assert words(found["shy, calibrated"]) == [CALIBRATED_ONLY] * 3


def test_a_map_that_spoils_a_good_judge_is_judged_by_its_own_labels(judged_well: Evaluation) -> None:
    table = replace(judged_well.table, stages={})
    evaluation = evaluate(table, {}, {"sharp": fit_map(table, ["sharp"], table.graded)})
    spoiled = evaluation.systems["sharp"]
    assert spoiled.predictions is not None
    predictions = replace(spoiled.predictions, p=1.0 - spoiled.predictions.p)
    metrics = {**spoiled.metrics, "kappa_binary": 0.0}
    systems = {**evaluation.systems, "sharp": replace(spoiled, predictions=predictions, metrics=metrics)}
    found = verdicts(replace(evaluation, systems=systems))
    assert words(found["sharp"])[:2] == [QUALIFIED] * 2
    assert words(found["sharp, calibrated"])[:2] == [NOT_QUALIFIED] * 2


def test_a_missing_label_is_no_decision(judged_well: Evaluation) -> None:
    table = judged_well.table
    gone = np.flatnonzero(table.relevant)[:4]
    labels = [
        replace(each, outcome=Missing("timeout")) if row in gone else each
        for row, each in enumerate(table.labels["sharp"])
    ]
    holes = replace(table, labels={**table.labels, "sharp": tuple(labels)})
    found = verdicts(replace(judged_well, table=holes))["sharp"]
    assert found["positives"]["numbers"]["kappa_raw"] == 1.0


def test_retrieval_scores_get_no_verdict(judged_well: Evaluation) -> None:
    assert list(verdicts(judged_well)) == ["sharp", "shy", "fused", "fused+stages"]


def test_a_judge_worse_than_its_pupil_is_not_qualified_and_the_numbers_say_so() -> None:
    rng = np.random.default_rng(0)
    grades = [[1, 1, 0, 0, 0]] * 10
    guessing: list[list[P]] = rng.random((10, 5)).tolist()
    evaluation = evaluate(made(grades, {"guesses": guessing}, {"dense": grades}), {}, maps={})
    found = verdicts(evaluation)["guesses"]
    assert words(found) == [NOT_QUALIFIED] * 3
    own = evaluation.systems["guesses"].metrics["auc"]
    for use in ("positives", "negatives"):
        assert f"AUC {own:.3f}, dense 1.000" in found[use]["reason"]
        assert found[use]["numbers"]["auc"] == own
        assert found[use]["numbers"]["auc dense"] == 1.0
        assert found[use]["numbers"]["difference_low"] < -0.02
    assert found["gate"]["numbers"] == {"auc": own, "auc_needed": GATE_AUC}


def test_knowing_less_within_queries_is_not_qualified_even_when_better_overall(judged_well: Evaluation) -> None:
    changed = with_metrics(judged_well, "sharp", auc_within_query=0.6)
    found = verdicts(with_metrics(changed, "dense", auc_within_query=0.7))["sharp"]
    assert words(found)[:2] == [NOT_QUALIFIED] * 2
    assert "within a query it knows less than its student: AUC 0.600, dense 0.700" in found["positives"]["reason"]


def test_a_difference_that_nobody_can_bound_is_no_proof(judged_well: Evaluation) -> None:
    unsure = [{**each, "ci": [float("nan")] * 2} for each in judged_well.comparisons]
    assert words(verdicts(replace(judged_well, comparisons=unsure))["sharp"])[:2] == [NOT_QUALIFIED] * 2


@pytest.mark.parametrize("auc", [GATE_AUC - 1e-6, float("nan")])
def test_a_gate_needs_an_auc(judged_well: Evaluation, auc: float) -> None:
    found = verdicts(with_metrics(judged_well, "sharp", auc=auc))["sharp"]
    assert found["gate"]["verdict"] == NOT_QUALIFIED
    assert "AUC" in found["gate"]["reason"]


def test_without_a_pupil_a_judge_is_measured_by_people_alone(judged_well: Evaluation) -> None:
    assert words(verdicts(replace(judged_well, comparisons=[], best_stage=""))["sharp"]) == [QUALIFIED] * 3


def test_negatives_are_safe_below_the_highest_threshold_whose_clopper_pearson_bound_holds() -> None:
    relevant = np.array([True] * 4 + [False] * 16 + [True])
    p = np.array([0.1] * 20 + [np.nan])
    found = _safe(relevant, p, most=0.44)
    assert found is not None
    assert (found["below"], found["n"], found["rate"]) == (0.4, 20, 0.2)
    assert found["high"] == pytest.approx(0.4366, abs=1e-4)  # Clopper and Pearson (1934), 4 of 20
    assert _safe(relevant, p, most=0.43) is None
    assert _safe(relevant, np.full(21, 0.9), most=0.9) is None
    lower = np.where(np.arange(21) < 4, 0.3, 0.01)
    assert (_safe(relevant, np.append(lower[:20], np.nan), most=0.25) or {})["below"] == 0.3


def test_without_graded_pairs_the_verdict_is_unknown() -> None:
    found = unknown()
    assert found["verdict"] == UNKNOWN
    assert "no annotated pairs" in found["reason"]
