"""Prediction-powered means: what they cover in simulations, where the answer is known, and how wide they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from qrelay.errors import InputError
from qrelay.stats.intervals import Interval
from qrelay.stats.powered import Powered, Target, powered_mean, sampled_mean

Floats = NDArray[np.float64]
DRAWS = 1000
WITHIN = (0.93, 0.97)
"""95% nominal; 3 standard errors of 1,000 draws are 2.1 points."""


def width(interval: Interval) -> float:
    return interval.high - interval.low


def units(generator: np.random.Generator, n: int, noise: float) -> tuple[Floats, Floats]:
    """Measures of n queries as people's labels give them, in 0 to 1 and skewed, and as a biased, noisy judge's do."""
    y = generator.beta(3, 1.5, n)
    return y, 0.6 * y + 0.3 + generator.normal(0, noise, n)


def covered(target: Target, noise: float, graded: int, of: int) -> tuple[float, float]:
    """The share of intervals that hold the truth, and their mean width over that which the correlation allows."""
    generator, hits, ratios = np.random.default_rng(1), 0, []
    population = units(generator, 20_000, noise)
    r = float(np.corrcoef(*population)[0, 1])
    sigma = float(population[0].std())
    for _ in range(DRAWS):
        y, f = _drawn(generator, population, of)
        found = powered_mean(y[:graded], f[:graded], f[graded:], target=target)
        truth = float(y.mean()) if target == "these" else float(population[0].mean())
        hits += found.interval.low <= truth <= found.interval.high
        ratios.append(found.width)
    left = (1 - r**2) * (1 / graded - 1 / of) if target == "these" else (1 - r**2 * (1 - graded / of)) / graded
    return hits / DRAWS, float(np.mean(ratios)) / (2 * stats.t.ppf(0.975, graded - 1) * sigma * left**0.5)


def _drawn(generator: np.random.Generator, population: tuple[Floats, Floats], n: int) -> tuple[Floats, Floats]:
    rows = generator.integers(0, len(population[0]), n)
    return population[0][rows], population[1][rows]


@pytest.mark.parametrize("target", ["these", "population"])
@pytest.mark.parametrize(("noise", "graded", "of"), [(0.05, 20, 43), (0.3, 20, 43), (0.1, 20, 400)])
def test_intervals_from_twenty_queries_cover_and_are_as_narrow_as_the_correlation_allows(
    target: Target, noise: float, graded: int, of: int
) -> None:
    share, ratio = covered(target, noise, graded, of)
    assert WITHIN[0] <= share <= WITHIN[1]
    assert 0.9 <= ratio <= 1.1


def test_the_estimate_is_least_squares_carried_to_all_units() -> None:
    generator = np.random.default_rng(0)
    y, f = units(generator, 43, 0.1)
    found = powered_mean(y[:20], f[:20], f[20:])
    line = stats.linregress(f[:20], y[:20])
    assert found.interval.estimate == pytest.approx(line.intercept + line.slope * f.mean())
    assert (found.weight, found.correlation) == pytest.approx((line.slope, line.rvalue))
    assert (found.graded, found.units) == (20, 43)


def carried(y: Floats, f: Floats, mean: float) -> float:
    line = stats.linregress(f, y)
    return float(line.intercept + line.slope * mean)


@pytest.mark.parametrize("target", ["these", "population"])
def test_the_variance_is_that_of_estimates_without_one_unit_each(target: Target) -> None:
    """The jackknife by hand: 20 estimates from 19 units."""
    y, f = units(np.random.default_rng(0), 43, 0.1)
    whole = carried(y[:20], f[:20], f.mean())
    without = [carried(np.delete(y[:20], i), np.delete(f[:20], i), f.mean()) for i in range(20)]
    variance = 19 / 20 * sum((each - whole) ** 2 for each in without) * 23 / 43
    line = stats.linregress(f[:20], y[:20])
    residual = ((y[:20] - line.intercept - line.slope * f[:20]) ** 2).sum() / 18
    variance += (residual + line.slope**2 * f.var(ddof=1)) / 43 if target == "population" else 0.0
    found = powered_mean(y[:20], f[:20], f[20:], target=target)
    assert found.weight > 0
    assert width(found.interval) == pytest.approx(2 * stats.t.ppf(0.975, 18) * math.sqrt(variance))


def test_a_judge_that_says_the_reverse_counts_for_nothing() -> None:
    y, f = units(np.random.default_rng(0), 43, 0.02)
    backwards = powered_mean(y[:20], -f[:20], -f[20:])
    assert backwards.weight == 0.0
    assert width(backwards.interval) == pytest.approx(width(backwards.people_only))
    assert backwards.correlation < -0.9


def test_people_alone_have_students_interval() -> None:
    y, f = units(np.random.default_rng(0), 43, 0.1)
    found = powered_mean(y[:20], f[:20], f[20:]).people_only
    textbook = stats.t.interval(0.95, 19, y[:20].mean(), stats.sem(y[:20]))
    assert (found.low, found.high) == pytest.approx(textbook)


def test_a_judge_that_is_no_help_costs_next_to_nothing() -> None:
    generator = np.random.default_rng(0)
    y = units(generator, 300, 0.1)[0]
    noise = generator.normal(0, 3, 3000)
    found = powered_mean(y, noise[:300], noise[300:])
    assert width(found.interval) <= 1.02 * width(found.people_only)


def test_a_constant_judge_leaves_peoples_interval() -> None:
    y = units(np.random.default_rng(0), 100, 0.1)[0]
    found = powered_mean(y, np.full(100, 0.4), np.full(500, 0.4))
    assert (found.interval.low, found.interval.high) == pytest.approx((found.people_only.low, found.people_only.high))
    assert (found.weight, found.correlation) == (0.0, 0.0)


def test_a_judge_that_tells_one_query_from_the_others_counts_for_nothing() -> None:
    """As reciprocal ranks do where the first document is nearly always relevant: no line goes through two points."""
    y = units(np.random.default_rng(0), 43, 0.1)[0]
    f = np.ones(43)
    f[0] = f[30] = 0.5
    found = powered_mean(y[:20], f[:20], f[20:])
    assert found.weight == 0.0
    assert width(found.interval) == pytest.approx(width(found.people_only))


def test_a_perfect_judge_is_as_good_as_people_everywhere() -> None:
    y = units(np.random.default_rng(0), 1100, 0.1)[0]
    everywhere = 2 * stats.t.ppf(0.975, 98) * stats.sem(y)
    assert width(powered_mean(y[:100], y[:100], y[100:]).interval) == pytest.approx(everywhere)
    assert width(powered_mean(y[:100], y[:100], y[100:], target="these").interval) == pytest.approx(0, abs=1e-9)


def test_where_everything_is_graded_these_units_have_no_interval_and_the_population_has_peoples() -> None:
    y, f = units(np.random.default_rng(0), 60, 0.1)
    assert width(powered_mean(y, f, [], target="these").interval) == pytest.approx(0.0)
    found = powered_mean(y, f, [])
    assert width(found.interval) == pytest.approx(width(found.people_only), rel=0.02)


def test_more_units_than_a_width_needs_are_wide_enough_when_they_are_graded() -> None:
    generator = np.random.default_rng(3)
    y, f = units(generator, 400, 0.1)
    found = powered_mean(y[:20], f[:20], f[20:], target="these")
    wanted = found.width / 2
    count = found.needed(wanted)
    assert count is not None
    assert 20 < count < 400
    assert width(powered_mean(y[:count], f[:count], f[count:], target="these").interval) == pytest.approx(
        wanted, rel=0.3
    )
    assert found.width_with(count) <= wanted < found.width_with(count - 1)
    assert found.needed(found.width) == 20


def test_no_number_of_grades_makes_a_few_queries_say_more_of_their_population_than_they_can() -> None:
    y, f = units(np.random.default_rng(3), 43, 0.1)
    found = powered_mean(y[:20], f[:20], f[20:])
    assert found.needed(0.01) is None
    assert powered_mean(y[:20], f[:20], f[20:], target="these").needed(0.01) is not None


@pytest.mark.parametrize(
    ("labels", "predictions", "rest"),
    [
        ([1.0, 0.0], [1.0, 0.5], [1.0, 2.0]),
        ([1.0, 0.0, 1.0], [1.0], [1.0, 2.0]),
        ([1.0, 0.0, 1.0], [1.0, math.nan, 0.0], [1.0, 2.0]),
        ([1.0, 0.0, 1.0], [1.0, 0.5, 0.0], [math.inf]),
        ([], [], []),
    ],
)
def test_too_little_to_power_is_refused(labels: list[float], predictions: list[float], rest: list[float]) -> None:
    with pytest.raises(InputError):
        powered_mean(labels, predictions, rest)


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="level"):
        powered_mean([1.0, 0.0, 1.0], [1.0, 0.5, 0.0], [0.3], level=1.0)


def test_the_mean_of_units_that_are_known_has_the_spread_of_units_alone() -> None:
    y = units(np.random.default_rng(0), 43, 0.1)[0]
    assert width(sampled_mean(y, np.zeros(43), target="these")) == 0.0
    textbook = stats.t.interval(0.95, 42, y.mean(), stats.sem(y))
    found = sampled_mean(y, np.zeros(43))
    assert (found.low, found.high) == pytest.approx(textbook)


def test_errors_of_many_units_add_up_to_a_normal_interval() -> None:
    found = sampled_mean(np.full(400, 0.5), np.full(400, 0.04), target="these")
    assert width(found) == pytest.approx(2 * stats.t.ppf(0.975, 399) * 0.2 / 20)


def test_the_record_of_a_result_is_plain_numbers() -> None:
    y, f = units(np.random.default_rng(0), 43, 0.1)
    found: Powered = powered_mean(y[:20], f[:20], f[20:])
    assert all(isinstance(each, int | float) for each in (found.weight, found.residual, found.spread, found.width))
