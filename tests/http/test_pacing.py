"""Waiting: backoff, what headers ask for, and giving up on a dead endpoint. On a hand-moved clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from qrelay.errors import (
    BackendTimeout,
    BackendUnavailable,
    ConfigError,
    EndpointPaused,
    EndpointRefuses,
    QrelayError,
    RateLimited,
)
from qrelay.http.pacing import Pacer, Policy, Window
from qrelay.http.ratelimits import asked_to_wait, used_up

SUNDAY = 784111777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's example."""

SECTION = "some.endpoint"


class HandClock:
    """A clock that moves by sleeping only."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def pacer(self, **policy: float) -> Pacer:
        """Waits are the longest that jitter may draw."""
        made = Policy(**policy)  # type: ignore[arg-type]
        return Pacer(made, SECTION, clock=lambda: self.now, sleep=self.sleep, uniform=lambda _, high: high)


def failing(errors: Iterable[QrelayError]) -> object:
    """A call that raises these in order, then answers "fine"."""
    left = iter(errors)

    async def call() -> str:
        error = next(left, None)
        if error is not None:
            raise error
        return "fine"

    return call


async def test_retries_wait_twice_as_long_each_time_up_to_a_ceiling() -> None:
    clock = HandClock()
    call = failing([BackendUnavailable("down")] * 8)
    pacer = clock.pacer(max_retries=8, retry_base_s=1.0, total_timeout_s=1000.0)
    assert await pacer.run(call) == "fine"  # type: ignore[arg-type]
    assert clock.slept == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


async def test_it_gives_up_after_max_retries_with_the_last_error() -> None:
    clock = HandClock()
    with pytest.raises(BackendTimeout, match="slow"):
        await clock.pacer(max_retries=2).run(failing([BackendUnavailable("down")] * 2 + [BackendTimeout("slow")] * 9))  # type: ignore[arg-type]
    assert len(clock.slept) == 2


async def test_it_gives_up_when_the_budget_of_the_prompt_is_spent() -> None:
    clock = HandClock()
    pacer = clock.pacer(max_retries=99, retry_base_s=4.0, total_timeout_s=10.0)
    with pytest.raises(BackendUnavailable):
        await pacer.run(failing([BackendUnavailable("down")] * 99))  # type: ignore[arg-type]
    assert sum(clock.slept) < 10.0


async def test_a_permanent_error_is_not_retried() -> None:
    clock = HandClock()
    with pytest.raises(ConfigError):
        await clock.pacer().run(failing([ConfigError("key")]))  # type: ignore[arg-type]
    assert clock.slept == []


async def test_retry_after_holds_back_every_request() -> None:
    clock = HandClock()
    pacer = clock.pacer(retry_base_s=0.1)
    assert await pacer.run(failing([RateLimited("slow down", retry_after_s=7.0)])) == "fine"  # type: ignore[arg-type]
    assert clock.now >= 1007.0
    pacer.pause(5.0, "the test")
    before = clock.now
    assert await pacer.run(failing([])) == "fine"  # type: ignore[arg-type]
    assert clock.now - before >= 5.0


async def test_a_pause_longer_than_the_budget_is_told_at_once_and_holds_no_request() -> None:
    clock = HandClock()
    with pytest.raises(EndpointPaused, match="tomorrow") as caught:
        await clock.pacer(total_timeout_s=60.0).run(failing([RateLimited("tomorrow", retry_after_s=3600.0)] * 9))  # type: ignore[arg-type]
    assert caught.value.retry_after_s == pytest.approx(3600.0, abs=60.0)
    assert clock.now < 1060.0


async def test_a_dead_endpoint_costs_a_few_prompts_not_all_and_is_tried_again_later() -> None:
    clock = HandClock()
    pacer = clock.pacer(max_retries=0, breaker_failures=3, breaker_s=15.0)
    calls = 0

    async def dead() -> str:
        nonlocal calls
        calls += 1
        raise BackendTimeout("silence")

    for _ in range(10):
        with pytest.raises(BackendTimeout):
            await pacer.run(dead)
    assert calls == 3
    clock.now += 16.0
    assert await pacer.run(failing([])) == "fine"  # type: ignore[arg-type]
    assert await pacer.run(failing([])) == "fine"  # type: ignore[arg-type]


async def test_no_more_than_concurrency_requests_run_at_once() -> None:
    pacer = Pacer(Policy(concurrency=3), SECTION)
    running = most = 0

    async def call() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    await asyncio.gather(*(pacer.run(call) for _ in range(20)))
    assert most == 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT"}, 10.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}, 90.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(SUNDAY) + 20)}, 20.0),
        ({"retry-after": str(int(SUNDAY) + 30)}, 30.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:00:00 GMT"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "9" * 100 + "s"}, None),
        ({"retry-after-ms": "-1", "retry-after": "4"}, 4.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(SUNDAY + 3) * 1000)}, 3.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(SUNDAY + 3) * 1_000_000)}, 3.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(SUNDAY - 9))}, 0.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "-20"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "Sun, 06 Nov 1994 08:49:47 GMT"}, 10.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1ms"}, 0.001),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2m59.56s"}, 179.56),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "50"}, 50.0),
        ({"ratelimit": "limit=100, remaining=0, reset=50"}, 50.0),
        ({"ratelimit": '"default";r=0;t=50'}, 50.0),
        ({"ratelimit": '"burst";r=9;t=700, "minute";r=0;t=50, "day";r=0;t=600'}, 600.0),
        ({"ratelimit": '"default";r=5;t=50'}, None),
        ({"ratelimit": '"default";r=0'}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "3.5"}, 3.5),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset": "20"}, 20.0),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "1994-11-06T08:50:37Z",
            },
            60.0,
        ),
        ({"x-ratelimit-remaining": "-1", "x-ratelimit-reset": "60"}, None),
        ({"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "1m30s"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "whenever"}, None),
        ({}, None),
    ],
)
def test_headers_are_read_in_every_common_spelling(headers: dict[str, str], seconds: float | None) -> None:
    wait = asked_to_wait(headers, now=SUNDAY)
    assert (wait and wait.seconds) == (None if seconds is None else pytest.approx(seconds))


def test_the_longest_of_several_used_up_windows_counts() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert used_up(headers) == (360.0, "x-ratelimit-reset-tokens: 6m0s")


async def test_the_window_halves_with_every_refusal_and_opens_again_with_answers() -> None:
    window = Window(16)
    window.refused()
    window.refused()
    assert window.size == 4.0
    for _ in range(5):
        window.answered()
    assert 5.0 < window.size < 5.2
    for _ in range(20):
        window.refused()
    assert window.size == 1.0
    for _ in range(500):
        window.answered()
    assert window.size == 16.0


async def test_a_refusing_endpoint_is_asked_less_at_once_until_it_answers() -> None:
    running = most = 0
    refusing = True

    async def call() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        if refusing:
            raise BackendUnavailable("busy")
        return "fine"

    pacer = Pacer(Policy(concurrency=8, max_retries=0, breaker_failures=1000), SECTION)
    await asyncio.gather(*(pacer.run(call) for _ in range(40)), return_exceptions=True)
    refusing, most = False, 0
    assert await asyncio.gather(*(pacer.run(call) for _ in range(4))) == ["fine"] * 4
    assert most <= 2
    await asyncio.gather(*(pacer.run(call) for _ in range(200)))
    assert most == 8


async def test_an_absurd_pause_is_capped_logged_once_with_its_header_and_then_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = HandClock()
    pacer = clock.pacer(max_pause_s=50.0, retry_base_s=0.1)
    for _ in range(3):
        pacer.pause(1.8e12, "x-ratelimit-reset: 1795897415765")
    assert "x-ratelimit-reset: 1795897415765" in pacer.notes["paused"]
    assert await pacer.run(failing([])) == "fine"  # type: ignore[arg-type]
    assert clock.now == pytest.approx(1050.0, abs=1.0)
    assert caplog.text.count("x-ratelimit-reset: 1795897415765") == 1
    assert pacer.notes == {}


async def test_a_refusal_of_the_account_is_asked_about_once_a_while_and_trips_no_breaker() -> None:
    clock = HandClock()
    pacer = clock.pacer(breaker_failures=1, breaker_s=1000.0)
    calls = 0

    async def refused() -> str:
        nonlocal calls
        calls += 1
        raise EndpointRefuses("check the key", retry_after_s=60.0)

    for _ in range(5):
        with pytest.raises(EndpointRefuses, match="check the key"):
            await pacer.run(refused)
    assert calls == 1
    assert pacer.notes == {"refuses": "check the key"}
    clock.now += 61.0
    assert await pacer.run(failing([])) == "fine"  # type: ignore[arg-type]
    assert pacer.notes == {}


async def test_a_call_that_never_ends_is_given_up_at_the_total_limit() -> None:
    never = asyncio.Event()

    async def call() -> None:
        await never.wait()

    with pytest.raises(BackendTimeout, match=r"some\.endpoint\.total_timeout_s"):
        await Pacer(Policy(total_timeout_s=0.05, max_retries=0), SECTION).run(call)


async def test_a_pause_that_outlives_the_retries_is_told_as_one() -> None:
    clock = HandClock()
    with pytest.raises(EndpointPaused, match="slow down") as caught:
        await clock.pacer(max_retries=0).run(failing([RateLimited("slow down", retry_after_s=3.0)]))  # type: ignore[arg-type]
    assert caught.value.retry_after_s == pytest.approx(3.0)
