"""Sizing: replicas, hours and cost worked out by hand from what one replica was measured to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qrelay.bench.report import Estimate, Level, Report
from qrelay.bench.sizing import Plan, markdown, size
from qrelay.bench.usage import Usage
from qrelay.errors import InputError


def report(service: str, throughput: float, **usage: float) -> Report:
    used = {service: Usage(**usage)} if usage else {}
    level = Level("closed", 4, None, Estimate(throughput), None, None, 10, 10, {}, 0, (), True, used)
    slower = Level("closed", 1, None, Estimate(throughput / 2), None, None, 10, 10, {}, 0, (), True)
    return Report(service, "2026-01-01T00:00:00Z", "", {}, {}, (slower, level))


def test_replicas_hours_and_cost_follow_from_the_best_level() -> None:
    plan = Plan(queries=3_600_000, hours=10, utilisation=0.5, prices={"judge": 2.0})
    (need,) = size([report("judge", 20.0, cpu_seconds_per_1000=50.0, peak_rss_mib=1000.0)], plan)
    assert need.machine_hours == pytest.approx(100)  # 3.6 million at 10 a second
    assert need.replicas == 10
    assert need.cost == pytest.approx(200)
    assert need.cores == pytest.approx(1.0)  # 20 a second at 0.05 s each
    assert need.memory_mib == pytest.approx(1300)


def test_a_replica_that_is_needed_a_little_is_needed_whole() -> None:
    plan = Plan(queries=3_600, hours=1, utilisation=1.0)
    assert [need.replicas for need in size([report("sink", 1.0), report("sink", 0.99)], plan)] == [1, 2]


def test_a_query_may_cost_more_than_an_item_of_the_benchmark() -> None:
    plan = Plan(weights={"judge": 5.0})
    (five,) = size([report("judge", 10.0)], plan)
    (one,) = size([report("judge", 2.0)], Plan())
    assert (five.throughput, five.machine_hours) == (one.throughput, one.machine_hours)


def test_what_is_not_known_is_left_empty_and_not_zero() -> None:
    (need,) = size([report("reranker", 10.0)], Plan())
    assert (need.cost, need.cores, need.memory_mib) == (None, None, None)
    assert markdown([need], Plan()).count("| |") >= 1


@pytest.mark.parametrize(
    ("reports", "plan", "words"),
    [
        ([report("judge", 0.0)], Plan(), "no closed-loop level that answered"),
        ([report("pipeline", 9.0)], Plan(), "reports of the services"),
        (
            [replace(report("judge", 9.0), extra={"judgments": {"cached_share": 0.5}})],
            Plan(),
            "50.0% .* from the cache",
        ),
        ([report("judge", 9.0)], Plan(hours=0), "hours above 0"),
        ([report("judge", 9.0)], Plan(utilisation=1.5), "utilisation"),
        ([report("judge", 9.0)], Plan(prices={"jugde": 1}), "no report of jugde"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(reports: list[Report], plan: Plan, words: str) -> None:
    with pytest.raises(InputError, match=words):
        size(reports, plan)
