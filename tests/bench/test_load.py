"""Load in simulated time, on a target whose truth is known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from qrelay.bench.load import Answer, closed_loop, open_loop
from qrelay.bench.report import Level
from qrelay.bench.usage import Histogram, NoProbe, Sample
from qrelay.bench.windows import WindowPolicy
from qrelay.errors import InputError
from tests.bench.simulated import FakeService, simulate

POLICY = WindowPolicy()


def closed(service: FakeService, concurrency: int, policy: WindowPolicy = POLICY) -> Level:
    return simulate(closed_loop(service, concurrency, policy, NoProbe(), itertools.count()))


def opened(service: FakeService, rate: float, policy: WindowPolicy = POLICY, seed: int = 0) -> Level:
    return simulate(open_loop(service, rate, policy, NoProbe(), itertools.count(), seed))


@pytest.mark.parametrize(("servers", "concurrency"), [(1, 1), (4, 1), (4, 4), (4, 16)])
def test_a_closed_loop_finds_the_servers_in_use_over_the_service_time(servers: int, concurrency: int) -> None:
    level = closed(FakeService(0.02, servers, items=3), concurrency)
    busy = min(servers, concurrency)
    assert level.throughput.value == pytest.approx(3 * busy / 0.02, rel=0.01)
    assert level.latency_s and level.latency_s.p50 == pytest.approx(0.02 * concurrency / busy, rel=0.01)
    assert level.stable and len(level.windows) == 3 and level.items == 3 * level.requests


def test_a_closed_loop_keeps_just_so_many_requests_outstanding_and_repeats_no_number() -> None:
    service = FakeService(0.02, 2, pending=7)
    level = closed(service, 7)
    assert level.refused == 0 and level.requests > 0
    assert service.seen == list(range(len(service.seen)))
    assert service.held == 0
    assert closed(FakeService(0.02, 2, pending=7), 8).refused > 0


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_mean_latency_of_an_open_loop_is_that_of_the_queue_m_d_1(load: float) -> None:
    """Pollaczek (1930) and Khinchin (1932): mean wait = load * service time / (2 * (1 - load))."""
    policy = WindowPolicy(window_s=400, longest_s=400, max_windows=4, stable_windows=4)
    level = opened(FakeService(0.02), load / 0.02, policy)
    wait = load * 0.02 / (2 * (1 - load))
    assert level.latency_s and level.latency_s.mean == pytest.approx(0.02 + wait, rel=0.05)
    assert not level.saturated and level.offered == pytest.approx(level.throughput.value, rel=0.01)


def test_a_stall_shows_in_the_tail_of_an_open_loop_and_not_in_that_of_a_closed_one() -> None:
    stall = (7.0, 1.0)
    of_open, of_closed = opened(FakeService(0.005, stall=stall), 100), closed(FakeService(0.005, stall=stall), 1)
    assert of_open.latency_s and of_closed.latency_s
    assert of_open.latency_s.p99 > 0.5
    assert of_closed.latency_s.p99 == pytest.approx(0.005)
    assert of_closed.latency_s.max == pytest.approx(1.0, abs=0.01)


def test_more_offered_than_served_is_called_saturated_and_its_latency_does_not_leave_out_the_unanswered() -> None:
    level = opened(FakeService(0.02), 100)
    assert level.saturated and level.unanswered > 0
    assert level.throughput.value == pytest.approx(50, rel=0.01) and level.offered == pytest.approx(100, rel=0.2)
    assert level.latency_s and level.latency_s.max > POLICY.drain_s
    assert level.latency_s.count == level.requests + level.unanswered + 50 * POLICY.drain_s


def test_answers_after_the_last_window_count_in_latency_and_not_in_throughput() -> None:
    level = opened(FakeService(1.0, 1000), 10)
    assert level.unanswered == 0 and not level.saturated
    assert level.latency_s and level.latency_s.count > level.requests
    assert level.requests == sum(window.requests for window in level.windows)


def test_the_cap_on_outstanding_requests_is_reported_when_it_is_hit() -> None:
    level = opened(FakeService(0.02), 100, WindowPolicy(max_outstanding=10))
    assert level.capped > 0 and level.saturated
    assert opened(FakeService(0.02), 20, WindowPolicy(max_outstanding=10)).capped == 0


def test_the_same_seed_gives_the_same_arrivals_and_another_one_others() -> None:
    runs = [opened(FakeService(0.02), 30, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_refused_and_failed_items_are_counted_and_are_no_throughput() -> None:
    refused = closed(FakeService(0.02, pending=1), 2)
    assert refused.refused > 0 and refused.throughput.value == pytest.approx(50, rel=0.05)
    failed = closed(FakeService(0.02, items=5, fail_every=2), 1)
    assert failed.failed["malformed"] == pytest.approx(failed.requests / 2, abs=1)
    assert failed.items + failed.failed["malformed"] == 5 * failed.requests


def test_an_open_loop_that_is_refused_for_load_is_saturated() -> None:
    level = opened(FakeService(0.02, pending=4), 100)
    assert level.saturated and level.refused > 0 and level.unanswered == 0


class LateService(FakeService):
    """Keeps the client's own processor busy, so that nothing can be sent meanwhile."""

    async def send(self, number: int) -> Answer:
        import asyncio

        loop = asyncio.get_running_loop()
        loop._now += 0.02 if number % 10 == 0 else 0.0  # type: ignore[attr-defined]
        return await super().send(number)


def test_a_generator_that_is_late_itself_is_told_apart_from_a_slow_service() -> None:
    late, prompt = opened(LateService(0.001), 50), opened(FakeService(0.005), 50)
    assert late.late_starts and late.late_starts.client_limited and late.late_starts.max_s > 0.01
    assert late.latency_s and late.latency_s.max >= late.late_starts.max_s  # from when it was due, not from sending
    assert prompt.late_starts and not prompt.late_starts.client_limited and prompt.late_starts.late == 0
    assert prompt.late_starts.sent == pytest.approx(prompt.requests, abs=5)


def test_a_slow_service_gets_windows_long_enough_for_its_requests() -> None:
    level = closed(FakeService(1.0), 1)
    assert all(window.requests == POLICY.min_requests for window in level.windows)
    assert level.throughput.value == pytest.approx(1.0, rel=0.01)


def test_a_target_that_never_answers_ends_the_level_and_is_not_stable() -> None:
    level = closed(FakeService(1e9), 2)
    assert not level.stable and level.requests == 0 and level.latency_s is None
    assert level.throughput.value == 0 and level.unanswered == 2


class Counters:
    """A process that spends 10 ms a second and sees one batch of 4 a second."""

    def read(self) -> dict[str, Sample]:
        import asyncio

        now = asyncio.get_running_loop().time()
        batches = Histogram.cumulative({1: 0, 8: now, float("inf"): now}, 4 * now)
        seconds = Histogram.cumulative({0.1: now, float("inf"): now}, 0.02 * now)
        histograms = {"qrelay_grpc_batch_items": batches, "qrelay_grpc_compute_seconds": seconds}
        return {"judge": Sample(0.01 * now, 100, 150 + now, histograms)}


def test_usage_is_of_the_counted_windows_per_thousand_items() -> None:
    level = simulate(closed_loop(FakeService(0.02), 1, POLICY, Counters(), itertools.count()))
    used = level.usage["judge"]
    assert used.cpu_seconds == pytest.approx(0.15, rel=0.01)
    assert used.cpu_seconds_per_1000 == pytest.approx(0.2, rel=0.01)
    assert used.mean_batch == pytest.approx(4) and used.compute_s_per_item == pytest.approx(0.005)
    assert used.batch_sizes and used.batch_sizes.count == pytest.approx(15, rel=0.01)
    assert used.peak_rss_mib == pytest.approx(170, abs=0.1) and used.queue_s is None
    assert level.windows[0].cpu_seconds["judge"] == pytest.approx(0.05, rel=0.01)


class Broken(FakeService):
    async def send(self, number: int) -> Answer:
        if number == 30:
            raise InputError("no such collection")
        return await super().send(number)


@pytest.mark.parametrize("run", [lambda service: closed(service, 2), lambda service: opened(service, 50)])
def test_what_a_target_raises_ends_the_run_as_it_is(run: object) -> None:
    with pytest.raises(InputError, match="no such collection"):
        run(Broken(0.02))  # type: ignore[operator]


def test_a_load_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="concurrency 0"):
        closed(FakeService(0.02), 0)
    with pytest.raises(InputError, match="rate 0"):
        opened(FakeService(0.02), 0)
    with pytest.raises(InputError, match=r"window_s -1.*max_windows 2"):
        replace(POLICY, window_s=-1, max_windows=2)
