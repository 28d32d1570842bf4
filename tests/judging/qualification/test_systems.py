"""The figures of a table's systems."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qrelay.errors import InputError
from qrelay.identity import judge_digest
from qrelay.judging.qualification.cascades import cascade_figures
from qrelay.judging.qualification.fitting import apply_map, fit_map
from qrelay.judging.qualification.systems import Evaluation, evaluate, recipes
from qrelay.stats.calibration import Logistic
from tests.judging.qualification.tables import P, made, noisy

GRADES: list[list[int | None]] = [[1, 0, 0], [1, 1, 0], [0, 0, None]]
PS: list[list[P]] = [[0.9, 0.6, 0.2], [0.4, 0.7, 0.3], [0.55, None, 0.99]]


def test_figures_are_those_computed_by_hand() -> None:
    """Graded with a label: relevant .9 .4 .7, others .6 .2 .3 .55. AUC: .9 and .7 beat all 4, .4 beats .2 and .3:
    10 of 12. Within: query 0 2 of 2, query 1 2 of 2. Said relevant (from .5): .9 .6 .7 .55, of which 2 are; agreed
    4 of 7, by chance (4*3 + 3*4)/49: kappa = (28 - 24)/(49 - 24) = 4/25."""
    metrics = evaluate(made(GRADES, {"a": PS}), {}, maps={}).systems["a"].metrics
    assert metrics["auc"] == pytest.approx(10 / 12)
    assert (metrics["auc_within_query"], metrics["auc_within_query_n"]) == (1.0, 2)
    assert metrics["kappa_binary"] == pytest.approx(4 / 25)
    squared = [(p - g) ** 2 for p, g in [(0.9, 1), (0.6, 0), (0.2, 0), (0.4, 1), (0.7, 1), (0.3, 0), (0.55, 0)]]
    assert metrics["brier_before"] == pytest.approx(sum(squared) / 7)
    assert (metrics["brier_after"], metrics["kappa_graded"]) == (None, None)
    assert (metrics["missing"], metrics["tokens"]) == (1, 90)
    low, high = metrics["auc_ci"]
    assert low <= metrics["auc"] <= high


def test_calibrated_grades_are_compared_on_the_whole_scale() -> None:
    table = noisy(top=3, relevant_from=2)
    fitted = fit_map(table, ["a"], table.graded)
    metrics = (
        evaluate(replace(table, labels={"a": table.labels["a"]}, stages={}), {}, {"a": fitted}).systems["a"].metrics
    )
    counts = np.array(metrics["confusion"]["counts"])
    assert metrics["confusion"]["grades"] == [0, 1, 2, 3]
    assert counts.sum(1).tolist() == np.bincount(table.grades, minlength=4).tolist()
    said = apply_map(fitted, table)
    assert counts.sum(0).tolist() == np.bincount(said.grade, minlength=4).tolist()
    agreed, n = np.trace(counts) / 72, 72
    chance = float(counts.sum(1) @ counts.sum(0)) / n**2
    assert metrics["kappa_four_point"] == pytest.approx((agreed - chance) / (1 - chance))
    assert 0 < metrics["kappa_graded"] <= 1


def test_every_judge_every_score_and_their_fusions_are_systems(judged_well: Evaluation) -> None:
    assert list(judged_well.systems) == ["sharp", "shy", "dense", "fused", "fused+stages"]
    leaning = [name for name, each in judged_well.systems.items() if each.uses_stage_scores]
    assert leaning == ["dense", "fused+stages"]
    assert judged_well.systems["fused+stages"].inputs == ("sharp", "shy", "sharp/best", "shy/best", "dense")
    assert judged_well.best_stage == "dense"
    sharp, shy = judged_well.table.judges["sharp"], judged_well.table.judges["shy"]
    assert [each.judge_hashes for each in judged_well.systems.values()] == [(sharp,), (shy,), (), (), ()]


def test_judges_are_compared_with_the_best_score_paired_over_queries(judged_well: Evaluation) -> None:
    assert [(each["a"], each["b"]) for each in judged_well.comparisons] == [
        (name, "dense") for name in ("sharp", "shy", "fused", "fused+stages")
    ]
    sharp = judged_well.comparisons[0]
    dense = judged_well.systems["dense"].metrics["auc"]
    assert sharp["difference"] == pytest.approx(1.0 - dense)
    assert 0 < sharp["ci"][0] <= sharp["difference"] <= sharp["ci"][1]
    assert sharp["p"] < 0.01


def test_the_best_judge_is_no_score_and_of_equals_the_first(judged_well: Evaluation) -> None:
    assert judged_well.systems["shy"].metrics["auc"] == judged_well.systems["sharp"].metrics["auc"] == 1.0
    assert judged_well.best_judge == "sharp"


def test_a_fusion_is_ranked_by_what_no_folds_base_rate_is_in(judged_well: Evaluation) -> None:
    fused = judged_well.systems["fused"]
    assert fused.predictions is not None
    assert fused.score.tolist() == fused.predictions.ranking.tolist() != fused.predictions.p.tolist()


def test_bm25_is_a_system_but_in_no_fusion_that_is_not_asked_for() -> None:
    table = noisy()
    both = replace(table, stages={"bm25": table.stages["dense"], "dense": table.stages["dense"]})
    found = recipes(both, {"mine": ["bm25", "a/best"]})
    assert found["bm25"] == ("bm25",)
    assert found["fused"] == ("a", "b")
    assert "bm25" not in found["fused+stages"]
    assert found["mine"] == ("bm25", "a/best")


def test_one_judge_alone_is_not_fused_with_itself() -> None:
    table = made(GRADES, {"a": PS})
    assert recipes(table, {}) == {"a": ("a",)}


@pytest.mark.parametrize(
    ("fusions", "said"),
    [
        ({"mine": ["a", "colour"]}, "the fusion mine names colour: there are a, b, dense"),
        ({"mine": ["dense/best/best"]}, "names dense/best/best"),
        ({"dense": ["a", "b"]}, "dense: a judge or a score has this name already"),
        ({"a": ["a", "dense"]}, "a: a judge or a score has this name already"),
    ],
)
def test_a_fusion_that_does_not_hold_is_refused(fusions: dict[str, list[str]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        recipes(noisy(), fusions)


def test_a_judge_with_the_name_of_a_score_is_refused() -> None:
    with pytest.raises(InputError, match="dense: a judge or a score has this name already"):
        recipes(made(GRADES, {"dense": PS}, {"dense": [[1.0, 2, 3]] * 3}), {})


def test_nothing_graded_is_said_in_plain_words() -> None:
    with pytest.raises(InputError, match="no annotated pair has a grade: fill in the column grade"):
        evaluate(made([[None, None]], {"a": [[0.1, 0.2]]}), {})


# --- maps -------------------------------------------------------------------------------------------------------


def test_given_maps_are_applied_and_none_is_fitted() -> None:
    table = replace(noisy(), stages={})
    fitted = fit_map(table, ["a", "b"], table.graded)
    against = replace(fitted, model=Logistic((0.0, 0.0), (1.0, 1.0), (-1.0, 0.0), 0.0), threshold=0.5)
    systems = evaluate(table, {}, {"fused": against}).systems
    assert list(systems) == ["a", "b", "fused"]
    assert systems["fused"].metrics["auc"] == pytest.approx(1 - systems["a"].metrics["auc"])
    assert systems["fused"].predictions is not None
    assert systems["fused"].predictions.p == pytest.approx(1 - table.p_relevant("a"))
    assert systems["fused"].judge_hashes == (judge_digest(against.identity),)
    assert systems["a"].predictions is None, "no map, no calibrated label"
    assert systems["a"].metrics["kappa_graded"] is None


def test_a_map_of_another_judge_or_of_none_is_refused_naming_both() -> None:
    table = noisy()
    fitted = fit_map(table, ["a", "b"], table.graded)
    other = replace(table, judges={**table.judges, "b": "f" * 64})
    with pytest.raises(InputError) as raised:
        evaluate(other, {}, {"fused": fitted})
    assert f"b ({table.judges['b'][:12]})" in str(raised.value)
    assert "b (ffffffffffff)" in str(raised.value)
    leaning = fit_map(table, ["a", "dense"], table.graded)
    with pytest.raises(InputError, match=r"was fitted on dense; here are a \("):
        evaluate(replace(table, stages={}), {}, {"fused": leaning})


# --- cascades ---------------------------------------------------------------------------------------------------


def test_a_cascade_that_sends_nothing_up_is_the_small_side(judged_well: Evaluation) -> None:
    rows = cascade_figures(judged_well, "dense", "sharp", audit=0.0, max_errors=(0.0, 1.0))
    strict, lax = rows
    assert (strict["share_escalated"], strict["kappa"]) == (1.0, strict["kappa_large"])
    assert (lax["share_escalated"], lax["kappa"]) == (0.0, lax["kappa_small"])
    assert strict["kappa_large"] == 1.0 > lax["kappa_small"]


def test_a_cascade_of_a_system_that_is_not_there_is_refused(judged_well: Evaluation) -> None:
    with pytest.raises(InputError, match=r"not gpt: there are sharp, shy, dense"):
        cascade_figures(judged_well, "sharp", "gpt", audit=0.0)
