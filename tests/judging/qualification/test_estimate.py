"""The share of relevant passages in all that was judged, when people graded a part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from qrelay.errors import InputError
from qrelay.judging.qualification.estimate import relevant_share
from qrelay.judging.qualification.systems import System, evaluate
from qrelay.judging.qualification.table import Table
from tests.judging.qualification.tables import P, made

GRADED, REST = 20, 180


def population(noise: float) -> tuple[Table, float]:
    """A table in which people graded 20 of 200 queries, and the true share of relevant pairs. Queries differ much in
    how many of their passages are relevant."""
    rng = np.random.default_rng(7)
    shares = rng.random(GRADED + REST)
    truth = rng.random((GRADED + REST, 5)) < shares[:, None]
    logits = 4 * (truth - 0.5) + rng.normal(0, noise, truth.shape)
    ps: list[list[P]] = (1 / (1 + np.exp(-logits))).tolist()
    grades = [[int(g) if q < GRADED else None for g in row] for q, row in enumerate(truth)]
    return made(grades, {"a": ps}), float(truth.mean())


def system(table: Table) -> System:
    return evaluate(table, {}).systems["a"]


def test_a_judge_that_knows_much_narrows_the_interval_around_the_truth() -> None:
    table, truth = population(noise=0.5)
    found = relevant_share(table, system(table))
    low, high = found["interval"]
    assert (found["system"], found["queries_graded"], found["queries_judged_only"]) == ("a", GRADED, REST)
    assert low < truth < high
    assert low < found["share_relevant"] < high
    people = found["people_only"]
    assert high - low < 0.6 * (people[1] - people[0])


def test_peoples_own_interval_is_students() -> None:
    table, _ = population(noise=0.5)
    means = table.relevant[: GRADED * 5].reshape(GRADED, 5).mean(1)
    found = relevant_share(table, system(table))["people_only"]
    assert found == pytest.approx(stats.t.interval(0.95, GRADED - 1, means.mean(), stats.sem(means)))


def test_a_judge_that_knows_nothing_leaves_the_interval_about_as_it_was() -> None:
    table, _ = population(noise=40.0)
    found = relevant_share(table, system(table))
    powered, people = (np.diff(found[key])[0] for key in ("interval", "people_only"))
    assert powered == pytest.approx(people, rel=0.15)


def test_a_query_that_is_graded_in_part_counts_as_judged_only() -> None:
    table, _ = population(noise=0.5)
    pairs = list(table.pairs)
    pairs[1] = replace(pairs[1], grade=None)
    part = replace(table, pairs=tuple(pairs))
    found = relevant_share(part, system(part))
    assert (found["queries_graded"], found["queries_judged_only"]) == (GRADED - 1, REST + 1)


def test_a_system_without_a_map_and_a_slice_without_a_rest_are_refused() -> None:
    table, _ = population(noise=0.5)
    with pytest.raises(InputError, match=r"a has no calibrated P\(relevant\): give --calibration"):
        relevant_share(table, replace(system(table), predictions=None))
    rows = GRADED * 5
    whole = Table(table.pairs[:rows], 1, {"a": table.labels["a"][:rows]}, table.judges, {})
    with pytest.raises(InputError, match=r"20 queries are graded in whole and 0 are not: .* from --rest"):
        relevant_share(whole, system(whole))
