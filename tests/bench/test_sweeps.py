"""Sweeps in simulated time."""

from __future__ import annotations

import itertools

import pytest

from qrelay.bench.report import Level
from qrelay.bench.sweeps import best_of, capacity_of, rates_of, sweep_closed, sweep_open
from qrelay.bench.usage import NoProbe
from qrelay.bench.windows import WindowPolicy
from qrelay.errors import InputError
from tests.bench.simulated import FakeService, simulate

POLICY = WindowPolicy(window_s=2, warm_up_s=1)


def swept(service: FakeService, **bounds: float) -> list[Level]:
    return simulate(sweep_closed(service, POLICY, NoProbe(), itertools.count(), **bounds))  # type: ignore[arg-type]


def test_concurrency_doubles_until_throughput_was_flat_twice() -> None:
    levels = swept(FakeService(0.02, 4, items=2))
    assert [level.concurrency for level in levels] == [1, 2, 4, 8, 16]
    assert best_of(levels).throughput.value == pytest.approx(400, rel=0.02)
    assert capacity_of(levels) == pytest.approx(200, rel=0.02)


def test_a_sweep_ends_at_its_limit() -> None:
    levels = swept(FakeService(0.02, 64), limit=6)
    assert [level.concurrency for level in levels] == [1, 2, 4]
    assert capacity_of(levels) is None, "throughput was still growing"


class Thrashing(FakeService):
    """Slower the more it holds."""

    async def _serve(self) -> None:
        self.service_s = 0.01 * (1 + max(0, self.held - 2))
        await super()._serve()


def test_a_sweep_ends_when_throughput_falls_twice() -> None:
    levels = swept(Thrashing(0.01, 2))
    assert [level.concurrency for level in levels] == [1, 2, 4, 8]
    assert best_of(levels).concurrency == 2


class InStep(FakeService):
    """Four at a time are slower than two; eight are not."""

    async def _serve(self) -> None:
        self.service_s = 0.03 if self.held in (3, 4) else 0.01
        await super()._serve()


def test_a_sweep_goes_on_past_one_level_that_is_slower() -> None:
    levels = swept(InStep(0.01, 8))
    rates = {level.concurrency: level.throughput.value for level in levels}
    assert rates[4] < rates[2] < rates[8]
    assert best_of(levels).concurrency >= 8


def test_a_sweep_of_a_service_that_answers_nothing_ends_at_once() -> None:
    levels = swept(FakeService(1e9))
    assert [level.items for level in levels] == [0]
    with pytest.raises(InputError, match="nothing was answered"):
        rates_of(best_of(levels))


def test_rates_are_shares_of_the_best_in_requests_and_the_last_one_is_too_much() -> None:
    service = FakeService(0.02, 1, items=5)
    best = simulate(sweep_closed(service, POLICY, NoProbe(), itertools.count()))[0]
    rates = rates_of(best, (1.3, 0.5))
    assert rates == pytest.approx([25, 65], rel=0.02)
    seen: list[Level] = []
    sweep = sweep_open(
        FakeService(0.02, 1, items=5), rates, POLICY, NoProbe(), itertools.count(), progress=seen.append
    )
    levels = simulate(sweep)
    assert [level.saturated for level in levels] == [False, True] and seen == levels
    assert levels[1].throughput.value == pytest.approx(250, rel=0.02)


def test_bounds_that_do_not_make_a_sweep_are_refused() -> None:
    with pytest.raises(InputError, match="factor above 1"):
        swept(FakeService(0.02), factor=1)
    with pytest.raises(InputError, match="at least one"):
        best_of([])
    with pytest.raises(InputError, match="shares above 0"):
        rates_of(swept(FakeService(0.02), limit=1)[0], (0.0,))
