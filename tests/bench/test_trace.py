"""Recorded arrivals, played in simulated time; goodput; levels too short to show that they are saturated."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from qrelay.bench.load import Answer, open_loop, replay
from qrelay.bench.report import Level
from qrelay.bench.trace import Trace, read_trace
from qrelay.bench.usage import NoProbe
from qrelay.bench.windows import WindowPolicy
from qrelay.cli.bench.options import QUICK
from qrelay.errors import InputError, MalformedInput
from tests.bench.simulated import FakeService, simulate

LIMITED = WindowPolicy(limit_s=0.05)


class Noting(FakeService):
    """Keeps when each request came."""

    def __init__(self, service_s: float, servers: int = 1000, **more: int) -> None:
        super().__init__(service_s, servers, **more)
        self.came: list[tuple[int, float]] = []

    async def send(self, number: int) -> Answer:
        self.came.append((number, asyncio.get_running_loop().time()))
        return await super().send(number)


def played(service: FakeService, trace: Trace, policy: WindowPolicy = LIMITED) -> Level:
    return simulate(replay(service, trace, policy, NoProbe(), itertools.count()))


def written(folder: Path, text: str) -> Path:
    path = folder / "arrivals.txt"
    path.write_text(text, "utf8")
    return path


def test_a_trace_is_played_in_order_with_its_own_gaps(tmp_path: Path) -> None:
    service = Noting(0.01)
    trace = read_trace(written(tmp_path, "107\n100\n\n100.5\n2e2\n"))
    level = played(service, trace)
    assert [number for number, _ in service.came] == [0, 1, 2, 3]
    assert [came for _, came in service.came] == pytest.approx([0, 0.5, 7, 100])
    assert level.trace == "arrivals.txt" and level.latency_s and level.latency_s.count == 4 and not level.saturated
    assert level.rate == pytest.approx(0.03)


def test_a_trace_played_twice_as_fast_has_half_the_gaps(tmp_path: Path) -> None:
    service = Noting(0.01)
    text = "2026-01-31T12:00:00+00:00\n2026-01-31T12:00:08\n2026-01-31T14:00:10+02:00\n"
    level = played(service, read_trace(written(tmp_path, text), speed=2))
    assert [came for _, came in service.came] == pytest.approx([0, 4, 5])
    assert level.trace == "arrivals.txt, 2 times as fast"


def test_a_burst_of_a_trace_waits_and_counts_from_when_it_was_due() -> None:
    level = played(FakeService(0.02), Trace("burst", (0.0, *([1.0] * 10), 30.0)))
    assert level.latency_s and level.latency_s.max == pytest.approx(0.2) and level.latency_s.count == 12
    assert level.requests == 12 and not level.saturated
    assert level.goodput and level.goodput.value == pytest.approx(4 / 12)


def test_a_trace_that_is_more_than_the_service_can_do_is_answered_whole_or_called_saturated() -> None:
    arrivals = Trace("rush", tuple(number / 100 for number in range(400)))
    slow = played(FakeService(0.02), arrivals)
    assert slow.requests == 400 and not slow.saturated and slow.latency_s and slow.latency_s.max > 4
    slower = played(FakeService(0.1), arrivals)
    assert slower.saturated and slower.unanswered > 200 and slower.latency_s and slower.latency_s.count == 400


@pytest.mark.parametrize(
    ("text", "told"),
    [("1\nsoon\n", "arrivals.txt:2: 'soon' is no time"), ("", "0 arrivals"), ("1\n1\n", "2 arrivals at one time"),
     ("1\nnan\n", "finite"), ("1\n1e9\n", "days: give one week")],
)  # fmt: skip
def test_what_is_no_trace_is_refused_with_what_to_do(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(MalformedInput, match=told):
        read_trace(written(tmp_path, text))


def test_a_speed_must_be_above_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="above 0"):
        read_trace(written(tmp_path, "1\n2\n"), speed=0)


def test_goodput_leaves_out_what_is_late_refused_failed_or_never_answered() -> None:
    def goodput(service: FakeService, rate: float) -> float:
        level = simulate(open_loop(service, rate, LIMITED, NoProbe(), itertools.count()))
        assert level.goodput and level.limit_s == 0.05
        return level.goodput.value

    assert goodput(FakeService(0.02, 1000), 100) == 1.0
    assert goodput(FakeService(0.06, 1000), 100) == 0.0
    assert goodput(FakeService(0.02, 1000, fail_every=4), 100) == pytest.approx(0.75, abs=0.02)
    assert goodput(FakeService(0.02, 1, pending=1), 100) == pytest.approx(1 / 3, abs=0.05)
    assert goodput(FakeService(0.02), 100) < 0.05


def test_a_look_too_short_to_see_a_backlog_is_judged_by_what_the_closed_loop_found() -> None:
    """A twentieth more than the service can do makes a backlog of eight in three seconds: less than chance moves."""

    def level(rate: float, capacity: float | None) -> Level:
        return simulate(open_loop(FakeService(0.02), rate, QUICK, NoProbe(), itertools.count(), 3, capacity=capacity))

    assert not level(52.5, None).saturated
    assert level(52.5, 50.0).saturated
    assert not level(25, 50.0).saturated and not level(45, 50.0).saturated


def test_a_level_long_enough_to_show_a_backlog_is_judged_by_what_it_shows() -> None:
    policy = WindowPolicy(window_s=100, longest_s=100)
    service = FakeService(0.01)
    assert not simulate(open_loop(service, 60, policy, NoProbe(), itertools.count(), capacity=50.0)).saturated
