"""Fitting maps, and predictions for queries that a map was not fitted on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qrelay.errors import InputError
from qrelay.judging.domain import MOST_QUERIES
from qrelay.judging.qualification.fitting import (
    FOLDS,
    _folds,
    _rising,
    apply_map,
    cross_validated,
    domain_of,
    fit_map,
    profiles,
    same_relevance,
)
from qrelay.judging.qualification.table import Table
from qrelay.stats.agreement import auc
from qrelay.stats.calibration import Isotonic, Logistic
from tests.judging.qualification.tables import P, made, noisy


def with_grades(table: Table, changed: dict[int, int | None]) -> Table:
    """The table with these rows graded otherwise."""
    pairs = [replace(pair, grade=changed.get(row, pair.grade)) for row, pair in enumerate(table.pairs)]
    return replace(table, pairs=tuple(pairs))


def test_a_map_says_what_it_was_fitted_on() -> None:
    table = noisy()
    made_map = fit_map(table, ["a", "b", "dense"], table.graded)
    fitted = made_map.fitted_on
    assert (fitted.pairs, fitted.queries, fitted.relevant, fitted.relevant_from) == (72, 12, table.relevant.sum(), 1)
    assert fitted.sha256 == table.sha256
    assert [each.label for each in made_map.inputs] == ["a", "b", "dense"]
    assert [each.judge_hash for each in made_map.inputs] == [table.judges["a"], table.judges["b"], ""]
    assert isinstance(made_map.model, Logistic)
    assert isinstance(fit_map(table, ["a"], table.graded).model, Isotonic)


def test_the_hash_of_the_pairs_follows_grades_and_not_order() -> None:
    table = noisy()
    turned = replace(table, pairs=table.pairs[::-1])
    assert turned.sha256 == table.sha256
    assert with_grades(table, {0: 1 - int(table.grades[0])}).sha256 != table.sha256
    assert replace(table, relevant_from=2).sha256 != table.sha256


def test_a_map_finds_its_inputs_by_name_in_any_table() -> None:
    table = noisy()
    said = apply_map(fit_map(table, ["dense", "a"], table.graded), table)
    other = noisy(seed=5)
    by_hand = fit_map(table, ["dense", "a"], table.graded).probability(
        np.column_stack([other.stages["dense"], other.column("a")]).tolist()
    )
    assert apply_map(fit_map(table, ["dense", "a"], table.graded), other).p == pytest.approx(by_hand)
    assert auc(table.relevant, said.p) > 0.8


def test_a_row_whose_label_is_missing_is_fitted_on_by_nobody_and_predicted_by_nobody() -> None:
    rng = np.random.default_rng(1)
    grades = rng.integers(0, 2, (10, 4)).tolist()
    ps: list[list[P]] = (rng.random((10, 4)) * 0.5 + 0.4 * np.array(grades)).tolist()
    ps[0][0] = None
    table = made(grades, {"a": ps})
    fitted = fit_map(table, ["a"], table.graded)
    assert fitted.fitted_on.pairs == 39
    for said in (apply_map(fitted, table), cross_validated(table, ["a"])):
        assert np.flatnonzero(np.isnan(said.p)).tolist() == [0]
        assert not said.relevant[0]
        assert said.grade[0] == 0


def test_a_score_that_is_nan_stays_in_where_other_inputs_are_there() -> None:
    table = noisy()
    table.stages["dense"][:3] = np.nan
    assert not np.isnan(cross_validated(table, ["a", "dense"]).p).any()
    assert np.isnan(cross_validated(table, ["dense"]).p).sum() == 3


def test_behind_best_in_a_table_is_that_of_the_query() -> None:
    table = made([[1, 0], [1, 0]], {"a": [[0.5, 0.8], [None, 0.5]]}, {"dense": [[3.0, 1.0], [2.0, 7.0]]})
    assert table.column("dense/best") == pytest.approx([0.0, -2.0, -5.0, 0.0])
    assert table.column("a/best")[:2] == pytest.approx([-np.log(4), 0.0])
    assert np.isnan(table.column("a/best")[2])


# --- never on its own queries -----------------------------------------------------------------------------------


def leaky() -> Table:
    """Every query has a column that is 1 for it alone, and all its passages the same grade: who has seen a query
    knows all of it, who has not knows nothing."""
    grades = [[q % 2] * 3 for q in range(14)]
    columns = {f"is{n}": [[float(q == n)] * 3 for q in range(14)] for n in range(14)}
    return made(grades, {}, columns)


def test_cross_validation_learns_nothing_from_the_query_that_it_predicts() -> None:
    table = leaky()
    names = list(table.stages)
    seen = apply_map(fit_map(table, names, table.graded), table)
    assert auc(table.relevant, seen.ranking) == 1.0, "leakage would show"
    assert auc(table.relevant, cross_validated(table, names).ranking) == 0.5


@pytest.mark.parametrize("names", [["a"], ["a", "a/best", "dense"]])
def test_a_querys_own_grades_do_not_change_what_is_said_of_it(names: list[str]) -> None:
    table = noisy()
    rows = np.flatnonzero(table.queries == "q003")
    turned = with_grades(table, {int(row): 1 - int(table.grades[row]) for row in rows})
    before, after = cross_validated(table, names), cross_validated(turned, names)
    assert before.p[rows].tolist() == after.p[rows].tolist()
    assert before.grade[rows].tolist() == after.grade[rows].tolist()
    assert not np.array_equal(before.p, after.p), "the other queries' maps were fitted on them"


@pytest.mark.parametrize("queries", [FOLDS, FOLDS + 30])
def test_folds_hold_every_row_once_and_split_no_query(queries: int) -> None:
    table = noisy(queries=queries)
    folds = _folds(table, table.graded)
    assert len(folds) == FOLDS
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == table.graded.tolist()
    for train, test in folds:
        assert not set(table.queries[train]) & set(table.queries[test])
        assert len(train) + len(test) == len(table.graded)


def test_what_nobody_graded_is_predicted_too_and_never_fitted_on() -> None:
    table = noisy()
    ungraded = {row: None for row, query in enumerate(table.queries) if query in ("q010", "q011") or row == 0}
    part = with_grades(table, dict(ungraded))
    said = cross_validated(part, ["a"])
    assert not np.isnan(said.p).any()
    graded = fit_map(part, ["a"], part.graded)
    assert graded.fitted_on.pairs == 72 - len(ungraded)
    rest = np.flatnonzero(np.isin(part.queries, ["q010", "q011"]))
    assert said.p[rest].tolist() == apply_map(graded, part).p[rest].tolist()
    others = part.graded[part.queries[part.graded] != "q000"]
    assert said.p[0] == apply_map(fit_map(part, ["a"], others), part).p[0], "a query's rows share one map"


# --- cuts -------------------------------------------------------------------------------------------------------


def test_cuts_are_made_rising_around_the_relevant_one_which_stays() -> None:
    assert _rising((0.9, 0.45, 0.4, 0.8, 0.2), 2) == (0.4, 0.4, 0.4, 0.8, 0.8)
    assert _rising((0.1, 0.2, 0.4), 2) == (0.1, 0.2, 0.4)
    assert _rising((0.5,), 0) == (0.5,)


# --- priors -----------------------------------------------------------------------------------------------------


def test_a_single_graded_pair_decides_neither_the_threshold_nor_the_finer_grades() -> None:
    home, table = (noisy(seed, queries=40, top=3, relevant_from=2) for seed in (1, 2))
    prior = fit_map(home, ["a", "dense"], home.graded)
    one = table.graded[np.argmin(table.column("a"))][None]
    fitted = fit_map(table, ["a", "dense"], one, priors=[prior])
    assert fitted.threshold == pytest.approx(prior.threshold, abs=0.15)
    assert (fitted.cuts[0], fitted.cuts[2]) == (prior.cuts[0], prior.cuts[2])
    assert fitted.cumulative == prior.cumulative
    said = apply_map(fitted, table)
    assert 0.4 < said.relevant.mean() < 0.6
    assert set(said.grade) == {0, 1, 2, 3}


def test_enough_graded_pairs_decide_the_finer_grades_themselves() -> None:
    home, table = (noisy(seed, queries=40, top=3, relevant_from=2) for seed in (1, 2))
    prior = fit_map(home, ["a"], home.graded)
    assert fit_map(table, ["a"], table.graded, priors=[prior]).cumulative[0] != prior.cumulative[0]


def test_few_grades_are_on_the_scale_of_a_prior_with_the_same_relevant_grade() -> None:
    home, table = (noisy(seed, queries=40, top=3, relevant_from=1) for seed in (1, 2))
    prior = fit_map(home, ["a"], home.graded)
    few = with_grades(table, {row: None for row in table.graded if table.grades[row] > 1})
    fitted = fit_map(few, ["a"], few.graded, priors=[prior])
    assert (fitted.scale, len(fitted.cuts)) == (prior.scale, 3) == ("0-3:1", 3)


@pytest.mark.parametrize(("top", "relevant_from", "same"), [(3, 2, True), (3, 1, False), (1, 1, True), (4, 3, False)])
def test_a_prior_must_mean_the_same_by_relevant(top: int, relevant_from: int, *, same: bool) -> None:
    home = noisy(1, queries=40, top=3, relevant_from=2)
    table = noisy(2, top=top, relevant_from=relevant_from)
    assert same_relevance(fit_map(home, ["a"], home.graded), table) is same


def test_a_map_remembers_queries_of_the_whole_collection() -> None:
    table = noisy(queries=3 * MOST_QUERIES)
    found, kept = profiles(table, ["a"]), domain_of(table, ["a"]).profiles
    assert len(set(kept)) == MOST_QUERIES
    assert (kept[0], kept[-1]) == (found[0], found[-1])


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("relevant", "said"), [(4, "4 relevant and 16 other"), (17, "17 relevant and 3 other")])
def test_too_few_of_a_kind_are_refused_with_how_many_there_are(relevant: int, said: str) -> None:
    flat = [1] * relevant + [0] * (20 - relevant)
    rng = np.random.default_rng(0)
    table = made([flat[i : i + 2] for i in range(0, 20, 2)], {"a": rng.random((10, 2)).tolist()})
    with pytest.raises(InputError, match=rf"{said} graded pairs are too few .*qrelay judge slice"):
        fit_map(table, ["a"], table.graded)
