"""Intervals: what they cover in simulations, where the answer is known."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from qrelay.errors import InputError
from qrelay.stats.agreement import auc
from qrelay.stats.intervals import Interval, cluster_bootstrap, paired_bootstrap, wilson

Floats = NDArray[np.float64]
DRAWS = 300


def classical(values: Floats) -> Interval:
    reach = NormalDist().inv_cdf(0.975) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Interval(float(values.mean()), float(values.mean()) - reach, float(values.mean()) + reach)


def width(interval: Interval) -> float:
    return interval.high - interval.low


# --- bootstrap --------------------------------------------------------------------------------------------------


def test_the_bootstrap_of_a_mean_of_independent_rows_is_the_textbook_interval() -> None:
    x = np.random.default_rng(0).normal(size=400)
    found, textbook = cluster_bootstrap(lambda rows: float(x[rows].mean()), np.arange(400)), classical(x)
    assert found.estimate == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx((textbook.low, textbook.high), abs=0.01)


def test_rows_that_copy_their_query_add_nothing() -> None:
    """20 queries with 30 equal rows each know as much as 20 rows."""
    x = np.random.default_rng(3).normal(size=20)
    copied, groups = np.repeat(x, 30), np.repeat([f"q{n}" for n in range(20)], 30)
    of_rows = cluster_bootstrap(lambda rows: float(copied[rows].mean()), groups)
    of_queries = cluster_bootstrap(lambda rows: float(x[rows].mean()), np.arange(20))
    as_if_independent = cluster_bootstrap(lambda rows: float(copied[rows].mean()), np.arange(600))
    assert width(of_rows) == pytest.approx(width(of_queries), rel=0.1)
    assert width(of_rows) > 3 * width(as_if_independent)


def test_the_bootstrap_covers_the_mean_of_clustered_rows() -> None:
    """Percentile intervals of 40 clusters are known to be a little short: 95% nominal, 90 to 98% of 300 here."""
    generator, covered = np.random.default_rng(5), 0
    groups = np.repeat(np.arange(40), 5)
    for _ in range(DRAWS):
        x = np.repeat(generator.normal(size=40), 5) + generator.normal(size=200)
        found = cluster_bootstrap(lambda rows, x=x: float(x[rows].mean()), groups, n=300)  # type: ignore[misc]
        covered += found.low <= 0.0 <= found.high
    assert 0.90 <= covered / DRAWS <= 0.98


def test_whole_groups_are_drawn_and_the_seed_decides_which() -> None:
    groups = np.array(["b", "a", "b", "c"])
    seen: list[tuple[int, ...]] = []
    cluster_bootstrap(lambda rows: float(len(seen.append(tuple(rows.tolist())) or rows)), groups, n=50)
    for rows in seen:
        assert len([row for row in rows if row == 0]) == len([row for row in rows if row == 2])
    assert len(set(seen)) > 5

    def mean(rows: NDArray[np.int64]) -> float:
        return float(rows.mean())

    assert cluster_bootstrap(mean, groups, seed=1) == cluster_bootstrap(mean, groups, seed=1)
    assert cluster_bootstrap(mean, np.arange(30), seed=1) != cluster_bootstrap(mean, np.arange(30), seed=2)


def test_resamples_without_a_figure_are_left_out() -> None:
    """One positive in one of two queries: a quarter of the resamples has none, and no AUC."""
    y, s = np.array([1, 0, 0, 0]), np.array([2.0, 1.0, 3.0, 0.0])
    found = cluster_bootstrap(lambda rows: auc(y[rows], s[rows]), [0, 0, 1, 1])
    assert 0.0 <= found.low <= found.estimate <= found.high <= 1.0


def test_a_higher_level_is_wider() -> None:
    x = np.random.default_rng(0).normal(size=50)
    low, high = (cluster_bootstrap(lambda r: float(x[r].mean()), np.arange(50), level=p) for p in (0.8, 0.99))
    assert width(low) < width(high)


def test_one_query_tells_nothing_about_others() -> None:
    found = cluster_bootstrap(lambda rows: float(len(rows)), ["q", "q"])
    assert (found.estimate, math.isnan(found.low), math.isnan(found.high)) == (2.0, True, True)
    test = paired_bootstrap(lambda _: 1.0, lambda _: 0.0, ["q"])
    assert (test.difference, math.isnan(test.low), test.p_value) == (1.0, True, 1.0)


@pytest.mark.parametrize("wrong", [{"groups": []}, {"level": 1.0}, {"level": 0.0}, {"n": 0}])
def test_a_bootstrap_of_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        cluster_bootstrap(lambda _: 0.0, **{"groups": [1, 2], **wrong})  # type: ignore[arg-type]


# --- paired -----------------------------------------------------------------------------------------------------


def test_pairing_takes_off_what_both_have_in_common() -> None:
    generator = np.random.default_rng(0)
    hard = generator.normal(size=60)
    a, b = hard + 0.1 + generator.normal(0, 0.1, 60), hard + generator.normal(0, 0.1, 60)
    found = paired_bootstrap(lambda rows: float(a[rows].mean()), lambda rows: float(b[rows].mean()), np.arange(60))
    assert 0.0 < found.low < found.difference < found.high
    assert found.p_value < 0.001
    assert found.high - found.low < 0.2 * width(classical(a))


def test_the_p_value_is_never_zero_and_of_equals_one() -> None:
    x = np.arange(10.0)
    better = paired_bootstrap(lambda r: float(x[r].mean()) + 1, lambda r: float(x[r].mean()), np.arange(10), n=99)
    same = paired_bootstrap(lambda r: float(x[r].mean()), lambda r: float(x[r].mean()), np.arange(10), n=99)
    assert (better.p_value, same.p_value) == (0.01, 1.0)


def test_without_a_difference_five_percent_are_significant() -> None:
    """Uniform p under the null: of 300 draws about 15 below 0.05 (3 standard errors: 4 to 27)."""
    generator, below = np.random.default_rng(2), 0
    for _ in range(DRAWS):
        d = generator.normal(size=60)
        found = paired_bootstrap(lambda r, d=d: float(d[r].mean()), lambda _: 0.0, np.arange(60), n=200)  # type: ignore[misc]
        below += found.p_value < 0.05
    assert 4 <= below <= 27


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 40), (7, 50), (40, 40), (999_999, 1_000_000)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_wilsons_interval_is_scipys(successes: int, n: int, level: float) -> None:
    from scipy.stats import binomtest

    expected = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((expected.low, expected.high), rel=1e-12, abs=1e-15)
