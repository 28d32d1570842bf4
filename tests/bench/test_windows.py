"""When a level has been measured for long enough, and how sure its figures are."""

from __future__ import annotations

import itertools
import random

import pytest

from qrelay.bench.estimates import mean_interval, ratio_interval
from qrelay.bench.latencies import Quantiles
from qrelay.bench.load import Answer, closed_loop
from qrelay.bench.report import Window
from qrelay.bench.usage import NoProbe
from qrelay.bench.windows import WindowPolicy, keeps_up
from qrelay.errors import InputError
from tests.bench.simulated import FakeService, simulate

POLICY = WindowPolicy()


def windows(*rates: float, arrived: int | None = None) -> list[Window]:
    return [Window(1000.0, round(1000 * rate), round(1000 * rate), arrived=arrived) for rate in rates]


def test_windows_that_agree_end_the_level() -> None:
    assert POLICY.is_over(windows(100, 104, 96))
    assert POLICY.is_stable(windows(50, 100, 104, 96))


def test_windows_that_do_not_agree_go_on_until_there_are_too_many() -> None:
    moving = windows(*(100 + 20 * (number % 2) for number in range(12)))
    assert not any(POLICY.is_over(moving[:count]) for count in range(12))
    assert POLICY.is_over(moving) and not POLICY.is_stable(moving)


def test_a_window_without_any_answer_ends_the_level() -> None:
    assert POLICY.is_over(windows(0)) and not POLICY.is_stable(windows(0, 0, 0))


def test_random_arrivals_that_are_all_served_are_stable_and_falling_behind_is_not() -> None:
    rates = (80, 100, 120)
    served = [Window(1000.0, 1000 * rate, 1000 * rate, arrived=1000 * rate) for rate in rates]
    behind = [Window(1000.0, 1000 * rate, 1000 * rate, arrived=120_000) for rate in rates]
    assert POLICY.is_stable(served) and not POLICY.is_stable(behind)
    assert keeps_up(served) and not keeps_up(behind)


def test_items_refused_for_load_are_not_keeping_up() -> None:
    assert keeps_up([Window(1.0, 100, 98, refused=2, arrived=100)])
    assert not keeps_up([Window(1.0, 100, 97, refused=3, arrived=100)])


def test_a_backlog_must_grow_by_more_than_chance_moves_the_number_outstanding() -> None:
    def window(answered: int, latency_s: float) -> Window:
        return Window(10.0, answered, answered, arrived=1000, latency_s=Quantiles.of([latency_s] * answered))

    assert keeps_up([window(980, 0.01)]) and not keeps_up([window(960, 0.01)])
    assert keeps_up([window(960, 2.0)])  # about 200 outstanding: 40 more or fewer are chance
    assert not keeps_up([window(930, 2.0)])


class Wavering(FakeService):
    """Slower and faster, 5 seconds each."""

    async def send(self, number: int) -> Answer:
        import asyncio

        self.service_s = 0.02 if asyncio.get_running_loop().time() % 10 < 5 else 0.04
        return await super().send(number)


def test_a_level_that_never_settles_uses_all_windows_and_says_that_it_is_not_stable() -> None:
    level = simulate(closed_loop(Wavering(0.02), 1, POLICY, NoProbe(), itertools.count()))
    assert not level.stable and len(level.windows) == POLICY.max_windows
    assert level.throughput.value == pytest.approx((50 + 25) / 2, rel=0.02)
    assert level.throughput.low and level.throughput.low < 37.5 < (level.throughput.high or 0)


def test_warm_up_is_thrown_away() -> None:
    cold = FakeService(0.02, stall=(0.0, 4.9))
    level = simulate(closed_loop(cold, 1, POLICY, NoProbe(), itertools.count()))
    assert level.throughput.value == pytest.approx(50, rel=0.01)
    assert level.latency_s and level.latency_s.max == pytest.approx(0.02)


def drawn(gaps: random.Random, spread: float) -> list[float]:
    """Throughput of the windows of one level around 100 items/s, stopped as a real one is."""
    found: list[Window] = []
    while not POLICY.is_over(found):
        found += windows(100 * gaps.gauss(1, spread))
    return [window.throughput for window in found]


@pytest.mark.parametrize("spread", [0.01, 0.03, 0.08])
def test_intervals_hold_the_truth_about_as_often_as_they_say(spread: float) -> None:
    gaps, runs = random.Random(1), 600
    means = [mean_interval(drawn(gaps, spread)) for _ in range(runs)]
    ratios = [ratio_interval(drawn(gaps, spread), drawn(gaps, spread)) for _ in range(runs)]
    held = sum(mean is not None and abs(mean.value - 100) <= mean.half for mean in means) / runs
    same = sum(ratio is not None and not ratio.differs for ratio in ratios) / runs
    assert 0.91 < held < 0.98
    assert 0.87 < same < 0.99


def test_one_window_gives_no_interval_and_a_zero_no_ratio() -> None:
    assert mean_interval([1.0]) is None
    only = ratio_interval([2.0], [1.0])
    assert only and only.value == pytest.approx(2) and only.low is None and not only.differs
    assert ratio_interval([0.0, 1.0], [1.0, 1.0]) is None
    assert ratio_interval([], [1.0]) is None


def test_a_policy_that_cannot_be_names_every_problem() -> None:
    with pytest.raises(InputError, match=r"tolerance 2.*min_requests 0.*longest_s 1"):
        WindowPolicy(tolerance=2, min_requests=0, longest_s=1)
