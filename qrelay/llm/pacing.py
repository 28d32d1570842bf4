"""When to ask a remote endpoint: adaptive concurrency, the pauses that it asks for, retries, a circuit breaker.

How many requests run at once follows the endpoint: every answer opens the window by 1/window, every refusal, failure
or silence halves it (additive increase, multiplicative decrease, as TCP does: Chiu and Jain 1989).

Retries wait a uniformly random time up to `base * 2**attempt` ("full jitter", Brooker, AWS Architecture
Blog, 2015), or as long as the endpoint says. A pause that one answer asks for (Retry-After, or a rate-limit
window that is used up) holds back every request. After several prompts in a row failed for good, the next
ones fail at once for a while: a dead endpoint costs seconds, not a timeout a passage.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from qrelay.errors import BackendUnavailable, RateLimited, TransientError

T = TypeVar("T")
_LONGEST_BACKOFF_S = 30.0


@dataclass(frozen=True, slots=True)
class Policy:
    """concurrency: the most requests at once. max_retries: after the first attempt. retry_base_s: ceiling of the
    first wait, doubling. total_timeout_s: budget of one prompt, waits included. breaker_failures: prompts
    in a row that must fail for good before `breaker_s` seconds of failing at once."""

    concurrency: int = 8
    max_retries: int = 5
    retry_base_s: float = 0.5
    total_timeout_s: float = 120.0
    breaker_failures: int = 8
    breaker_s: float = 15.0


class Window:
    """How many requests may run at once: see the module. An asynchronous context for one request."""

    def __init__(self, most: int) -> None:
        """It begins at `most`, and never exceeds it."""
        self._most = most
        self._running = 0
        self._changed = asyncio.Condition()
        self.size = float(most)
        """Requests that may run at once; the whole part counts."""

    async def __aenter__(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._running < int(self.size))
            self._running += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def answered(self) -> None:
        """The endpoint bore a request."""
        self.size = min(float(self._most), self.size + 1.0 / self.size)

    def refused(self) -> None:
        """The endpoint refused one, failed or was silent."""
        self.size = max(1.0, self.size / 2)


class Pacer:
    """Runs calls under a `Policy`. Bound to one event loop."""

    def __init__(
        self,
        policy: Policy,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`clock` (seconds), `sleep` and `uniform` are replaced in tests."""
        self._policy = policy
        self._clock, self._sleep, self._uniform = clock, sleep, uniform
        self.window = Window(policy.concurrency)
        self._paused_until = 0.0
        self._failures = 0
        self._open_until = 0.0
        self._kind: type[TransientError] = BackendUnavailable

    def pause(self, seconds: float) -> None:
        """Hold back every request for this long."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """`call`, tried again while it raises TransientError and the budget lasts.

        Raises:
            TransientError: the last one, or at once while the breaker is open.
            QrelayError: whatever else `call` raised, unretried.
        """
        async with self.window:
            self._refuse_while_open()
            try:
                result = await self._attempts(call)
            except TransientError as error:
                self._count_failure(type(error))
                raise
            self._failures = 0
            return result

    async def _attempts(self, call: Callable[[], Awaitable[T]]) -> T:
        deadline = self._clock() + self._policy.total_timeout_s
        attempt = 0
        while True:
            await self._wait_out_pause(deadline)
            try:
                result = await call()
            except TransientError as error:
                self.window.refused()
                if error.retry_after_s is not None:
                    self.pause(error.retry_after_s)
                ceiling = min(_LONGEST_BACKOFF_S, self._policy.retry_base_s * 2**attempt)
                delay = self._uniform(0.0, ceiling)
                if attempt >= self._policy.max_retries or self._clock() + delay >= deadline:
                    raise
            else:
                self.window.answered()
                return result
            attempt += 1
            await self._sleep(delay)

    async def _wait_out_pause(self, deadline: float) -> None:
        while (pause := self._paused_until - self._clock()) > 0:
            if self._paused_until >= deadline:
                raise RateLimited(
                    f"the endpoint asks to wait {pause:.0f} s more, longer than judge.endpoint.total_timeout_s",
                    retry_after_s=pause,
                )
            await self._sleep(pause + self._uniform(0.0, self._policy.retry_base_s))  # not all at once

    def _refuse_while_open(self) -> None:
        left = self._open_until - self._clock()
        if left > 0:
            raise self._kind(
                f"not asked: the endpoint failed {self._failures} prompts in a row; next try in {left:.0f} s",
                retry_after_s=left,
            )

    def _count_failure(self, kind: type[TransientError]) -> None:
        self._failures += 1
        self._kind = kind
        if self._failures >= self._policy.breaker_failures:
            self._open_until = self._clock() + self._policy.breaker_s
