"""Comparisons: a true difference is found, none is not, and what differs besides is told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from qrelay.bench.compare import SAME, Comparison, compare, grid, remarks
from qrelay.bench.report import Report
from qrelay.errors import InputError
from tests.bench.made import ENVIRONMENT, level, report, used


def verdicts(throughput: float, seed: int) -> dict[str, str]:
    """Of a run at `throughput` against one at 100 items/s, noise 1.5% a window."""
    a, b = (
        report(level(4, throughput=rate, noise=0.015, seed=run))
        for rate, run in ((100.0, 2 * seed), (throughput, 2 * seed + 1))
    )
    return {row.metric: row.verdict for row in compare(a, b).rows}


def test_a_true_difference_of_ten_percent_is_found() -> None:
    found = [verdicts(110.0, seed) for seed in range(100)]
    assert sum(each["throughput"] == "faster" for each in found) >= 90
    assert sum(each["p50"] == "faster" for each in found) >= 80
    assert not any(each["throughput"] == "slower" for each in found)
    lost = [verdicts(90.0, seed)["throughput"] for seed in range(100)]
    assert lost.count("slower") >= 90


def test_runs_of_the_same_speed_show_no_difference_but_for_chance() -> None:
    found = [verdicts(100.0, seed) for seed in range(100)]
    for metric in ("throughput", "p50", "p99", "CPU per 1,000 items"):
        assert sum(each[metric] == SAME for each in found) >= 87, metric


def test_ratios_are_of_b_to_a() -> None:
    a = report(level(4, throughput=100, noise=0))
    b = report(level(4, throughput=150, noise=0))
    throughput, p50, *_ = compare(a, b).rows
    assert throughput.ratio and throughput.ratio.value == pytest.approx(1.5)
    assert p50.ratio and p50.ratio.value == pytest.approx(1 / 1.5, rel=0.05)
    assert (throughput.a, throughput.b) == pytest.approx((100, 150))


def test_levels_meet_at_the_same_concurrency_or_nearly_the_same_rate() -> None:
    a = report(level(1), level(4), level(rate=100.0), level(rate=200.0))
    b = report(level(4), level(8), level(rate=100.5), level(rate=210.0))
    found = compare(a, b)
    assert {row.load for row in found.rows} == {"4 outstanding", "100 requests/s"}
    assert found.only_a == ("1 outstanding", "200 requests/s")
    assert found.only_b == ("8 outstanding", "210 requests/s")
    assert any("only in A, not compared: 1 outstanding, 200 requests/s" in remark for remark in remarks(found))


def test_the_throughput_of_an_open_loop_is_compared_only_where_one_is_saturated() -> None:
    def metrics(**changes: bool) -> set[str]:
        found = compare(report(level(rate=100.0)), report(level(rate=100.0, **changes)))
        return {row.metric for row in found.rows}

    assert "throughput" not in metrics() and "throughput" in metrics(saturated=True)


def test_reports_of_different_services_or_without_a_common_load_are_refused() -> None:
    with pytest.raises(InputError, match="a report of judge and one of sink"):
        compare(report(level()), report(level(), service="sink"))
    with pytest.raises(InputError, match=r"no common load \(A: 1 outstanding; B: 2 outstanding\).*--concurrency"):
        compare(report(level(1)), report(level(2)))


def differing(b: Report) -> Comparison:
    return compare(report(level()), b)


def test_settings_and_machines_that_differ_are_told_by_key() -> None:
    other = report(
        level(), settings={"policy": {"window_s": 1.0}, "seed": 0}, environment={**ENVIRONMENT, "cpu": "Y"}
    )
    found = differing(other)
    assert found.differing == ("settings.policy.window_s: 5.0 -> 1.0", "environment.cpu: Test CPU -> Y")
    assert "settings.policy.window_s: 5.0 -> 1.0" in next(remarks(found))


def test_another_time_is_no_difference_and_a_busy_machine_is() -> None:
    assert differing(report(level(), environment={**ENVIRONMENT, "started": "b"})).differing == ()
    busy = report(level(), environment={**ENVIRONMENT, "load_average_start": [3.0, 2, 1]})
    assert differing(busy).differing == ("environment.load_average_start: 0.1 -> 3.0",)


def test_what_one_side_does_not_know_is_said_and_not_compared() -> None:
    rows = compare(report(level(usage={})), report(level())).rows
    assert [row.verdict for row in rows if row.metric.startswith("CPU")] == ["not measured in both"]
    lone = compare(report(level(windows=1)), report(level(windows=1)))
    assert {row.verdict for row in lone.rows} == {"too few windows for an interval"}


def test_the_cpu_time_compared_is_that_of_all_processes_but_the_load_generator() -> None:
    both = level(usage={"judge": used(), "judge-2": used(), "client": used()})
    row = compare(report(both), report(both)).rows[-1]
    assert row.metric.startswith("CPU") and row.a == row.b == 2 * 5.25
    windows = [replace(both.windows[0], cpu_seconds={"judge": 1.0, "client": own}) for own in (1.0, 9.0, 4.0)]
    noisy = report(replace(both, windows=tuple(windows)))
    ratio = compare(noisy, noisy).rows[-1].ratio
    assert ratio and ratio.low == ratio.high == 1


def test_a_comparison_is_plain_json_and_a_table() -> None:
    found = compare(report(level()), report(level(seed=5)))
    assert json.loads(json.dumps(found.as_dict()))["rows"][0]["metric"] == "throughput"
    table = grid(found)
    assert len(table.rows) == 4 and all(len(row) == len(table.header) for row in table.rows)
