"""Quantiles, and what processes used, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrelay.bench.latencies import Quantiles, nearest_rank
from qrelay.bench.usage import Histogram, Sample, cpu_between, usage
from qrelay.errors import InputError

INF = float("inf")


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]))
def test_quantiles_are_by_nearest_rank_as_numpys_inverted_cdf(values: list[float], q: float) -> None:
    assert nearest_rank(sorted(values), q) == np.quantile(values, q, method="inverted_cdf")


def test_quantiles_of_a_hundred_values_are_those_of_their_rank() -> None:
    found = Quantiles.of(float(value) for value in range(100, 0, -1))
    assert found == Quantiles(100, 50, 90, 95, 99, 100, 50.5)
    assert Quantiles.of([]) is None
    with pytest.raises(InputError, match="at least one value"):
        nearest_rank([], 0.5)


def test_a_histogram_since_an_earlier_one_is_what_came_in_between() -> None:
    early = Histogram.cumulative({1: 2, 8: 5, INF: 6}, 30)
    late = Histogram.cumulative({1: 2, 8: 9, INF: 10}, 54)
    grown = late.since(early)
    assert grown == Histogram((1, 8), (0, 4, 0), 24) and grown.mean == 6
    assert grown.quantile(0.5) == pytest.approx(1 + 7 / 2)
    assert late.since(None) == late
    assert early.since(late) == early  # a restart set the counters back


def test_a_quantile_above_all_bounds_is_the_largest_bound_and_of_nothing_none() -> None:
    assert Histogram((1, 8), (0, 0, 3), 90).quantile(0.5) == 8
    assert Histogram((1, 8), (0, 0, 0), 0).quantile(0.5) is None


def sample(cpu: float, batches: int, peak: float | None = None, metric: str = "qrelay_batch_items") -> Sample:
    sizes = Histogram.cumulative({4: batches, INF: batches}, 4 * batches)
    seconds = Histogram.cumulative({1: batches, INF: batches}, 0.2 * batches)
    return Sample(cpu, 90, peak, {metric: sizes, metric.replace("batch_items", "compute_seconds"): seconds})


@pytest.mark.parametrize("metric", ["qrelay_batch_items", "qrelay_grpc_batch_items"])
def test_usage_is_the_difference_of_the_readings_whichever_door_was_used(metric: str) -> None:
    idle = {"qrelay_batch_items": Histogram((4.0,), (0, 0), 0)}
    before, after = sample(1, 10, 100, metric), sample(3, 20, 120, metric)
    after = Sample(after.cpu_seconds, 90, 120, {**idle, **after.histograms})
    used = usage([{"judge": before}, {"judge": after}], 500)["judge"]
    assert used.cpu_seconds == 2 and used.cpu_seconds_per_1000 == 4 and used.peak_rss_mib == 120
    assert used.mean_batch == 4 and used.batch_sizes and used.batch_sizes.count == 10
    assert used.compute_s_per_item == pytest.approx(0.05)
    assert used.compute_s_per_batch and used.compute_s_per_batch.mean == pytest.approx(0.2)
    assert used.queue_s is None


def test_what_is_not_known_is_none_and_never_zero() -> None:
    used = usage([{}, {"judge": Sample(3.0, None, None)}], 10)["judge"]
    assert used.cpu_seconds is None and used.cpu_seconds_per_1000 is None and used.peak_rss_mib is None
    assert usage([{"judge": Sample(1.0)}, {"judge": Sample(2.0)}], 0)["judge"].cpu_seconds_per_1000 is None
    assert usage([{"judge": Sample(1.0)}], 10) == {}


def test_a_restarted_process_has_no_cpu_time_between_readings() -> None:
    assert cpu_between({"judge": Sample(5.0)}, {"judge": Sample(0.5), "sink": Sample(1.0)}) == {}
    assert cpu_between({"judge": Sample(5.0)}, {"judge": Sample(5.5)}) == {"judge": 0.5}
