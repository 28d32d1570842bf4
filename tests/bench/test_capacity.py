"""Queueing formulas beside published figures and beside a simulated queue; what a plan needs."""

from __future__ import annotations

import itertools
import math

import pytest

from benchmarks.capacity.queueing import Demand, Wait, closed_throughput, erlang_c, sojourn_quantile, waiting
from benchmarks.capacity.stations import Station, need, of_report, passage
from qrelay.bench.load import open_loop
from qrelay.bench.usage import NoProbe
from qrelay.bench.windows import WindowPolicy
from tests.bench.made import level, report
from tests.bench.simulated import FakeService, simulate


@pytest.mark.parametrize(
    ("servers", "load", "length"),
    [(1, 0.5, 0.5), (2, 0.8, 2.844), (5, 0.9, 6.862), (10, 0.9, 6.019), (3, 2 / 3, 0.889)],
)
def test_the_queue_of_m_m_k_is_that_of_the_published_tables(servers: int, load: float, length: float) -> None:
    """Lq of Hillier and Lieberman's tables: waiting on average, by Little's law rate times wait."""
    rate = load * servers
    assert rate * waiting(rate, 1.0, servers).mean == pytest.approx(length, rel=0.001)


@pytest.mark.parametrize(("offered", "servers", "share"), [(1.0, 2, 1 / 3), (2.0, 3, 4 / 9), (0.5, 1, 0.5)])
def test_the_share_that_waits_is_erlangs(offered: float, servers: int, share: float) -> None:
    assert erlang_c(offered, servers) == pytest.approx(share)


@pytest.mark.parametrize("cs2", [0.0, 0.5, 1.0, 4.0])
def test_one_server_waits_as_pollaczek_and_khinchin_say(cs2: float) -> None:
    assert waiting(0.8, 1.0, 1, cs2).mean == pytest.approx(0.8 / 0.2 * (1 + cs2) / 2)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.7), (4, 0.8)])
def test_constant_service_times_wait_as_a_simulated_queue_does(servers: int, load: float) -> None:
    policy = WindowPolicy(window_s=100, longest_s=100, max_windows=4, stable_windows=4)
    rate = load * servers / 0.02
    run = open_loop(FakeService(0.02, servers), rate, policy, NoProbe(), itertools.count(), seed=5)
    measured = simulate(run).latency_s
    assert measured and measured.mean == pytest.approx(0.02 + waiting(rate, 0.02, servers, 0.0).mean, rel=0.03)


def test_bursty_arrivals_wait_longer_by_allen_and_cunneen() -> None:
    poisson, bursty = waiting(3.0, 1.0, 4), waiting(3.0, 1.0, 4, ca2=3.0)
    assert bursty.mean == pytest.approx(2 * poisson.mean)


def test_more_than_is_served_waits_for_ever_and_nothing_not_at_all() -> None:
    assert math.isinf(waiting(2.0, 1.0, 2).mean) and waiting(0.0, 1.0, 1).mean == 0


def test_quantiles_of_m_m_1_are_exact() -> None:
    wait = waiting(0.5, 1.0, 1)
    assert wait.quantile(0.99) == pytest.approx(math.log(0.5 / 0.01) / 0.5)
    assert wait.quantile(0.4) == 0


def test_a_closed_network_is_limited_by_its_delay_and_then_by_its_slowest_station() -> None:
    stations = [Demand(0.1, 4), Demand(0.05, 0), Demand(0.01)]
    assert closed_throughput(stations, 1) == pytest.approx(1 / 0.16)
    assert closed_throughput(stations, 200) == pytest.approx(40, rel=0.01)


def test_a_passage_through_one_exponential_station_has_its_quantile() -> None:
    assert sojourn_quantile([(2.0, 1.0)], [Wait(0.0, 0.0)], 0.99) == pytest.approx(2 * math.log(100))


def test_a_plan_takes_the_fewest_servers_that_hold_the_wait_and_the_loss_of_one() -> None:
    found = need(Station("judge", 0.1, 0.0), 100.0, wait_s=0.05)
    assert found.servers > 11 and (found.servers - 1) * 10 > 100
    assert found.wait.quantile(0.99) <= 0.05 or found.servers == 12
    fewer = waiting(100.0, 0.1, found.servers - 1, 0.0)
    assert fewer.quantile(0.99) > 0.05 or (found.servers - 2) * 10 <= 100
    assert passage([found], 0.5) == pytest.approx(0.1, rel=0.1)


def test_a_report_becomes_a_station_with_its_throughput_and_variation() -> None:
    made = of_report(report(level(1, throughput=10.0), level(4, throughput=20.0)), weight=5)
    assert made.seconds == pytest.approx(5 / 20, rel=0.02) and 0 < made.cs2 < 0.2
