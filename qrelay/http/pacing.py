"""When to ask a remote endpoint: adaptive concurrency, the pauses that it asks for, retries, a circuit breaker.

How many requests run at once follows the endpoint: every answer opens the window by 1/window, every refusal, failure
or silence halves it (additive increase, multiplicative decrease, as TCP does: Chiu and Jain 1989).

Retries wait a uniformly random time up to `base * 2**attempt` ("full jitter", Brooker, AWS Architecture
Blog, 2015), or as long as the endpoint says. A pause that one answer asks for (Retry-After, or a rate-limit
window that is used up) holds back every request; it is capped, logged once with its header, and what cannot wait
so long is told at once until when. After several requests in a row failed for good, the next ones fail at once for a
while: a dead endpoint costs seconds, not a timeout a request. So they do after a refusal of the key, the account or a
setting. A call, its waits and what it reads included, ends within `total_timeout_s`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from qrelay.errors import BackendTimeout, BackendUnavailable, EndpointPaused, EndpointRefuses, OnHold, TransientError
from qrelay.holds import Hold, shown

T = TypeVar("T")
log = logging.getLogger(__name__)

_LONGEST_BACKOFF_S = 30.0
_LOGGED_S = 1.0
"""Shorter pauses are ordinary pacing; a longer one is logged when it begins, and when it grows by half."""


@dataclass(frozen=True, slots=True)
class Policy:
    """concurrency: the most requests at once. max_retries: after the first attempt. retry_base_s: ceiling of the
    first wait, doubling. total_timeout_s: budget of one request, waits included. breaker_failures: requests
    in a row that must fail for good before `breaker_s` seconds of failing at once. max_pause_s: the longest pause
    that an endpoint may ask for."""

    concurrency: int = 8
    max_retries: int = 5
    retry_base_s: float = 0.5
    total_timeout_s: float = 120.0
    breaker_failures: int = 8
    breaker_s: float = 15.0
    max_pause_s: float = 3600.0


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
        section: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """section: what errors call the policy. `clock` (seconds), `sleep` and `uniform` are replaced in tests."""
        self._policy, self._section = policy, section
        self._clock, self._sleep, self._uniform = clock, sleep, uniform
        self.window = Window(policy.concurrency)
        self._paused_until = 0.0
        self._pause: Hold | None = None
        self._refusal: EndpointRefuses | None = None
        self._refused_until = 0.0
        self._failures = 0
        self._open_until = 0.0
        self._kind: type[TransientError] = BackendUnavailable

    def pause(self, seconds: float, why: str) -> None:
        """Hold back every request for this long, at most `max_pause_s`."""
        seconds = min(seconds, self._policy.max_pause_s)
        left = self._paused_until - self._clock()
        if seconds <= max(left, 0.0):
            return
        self._paused_until = self._clock() + seconds
        begun = self._pause if self._pause and left > 0 else None
        hold = Hold.lasting(seconds, why)
        self._pause = begun.going_on(hold) if begun else hold
        if seconds >= _LOGGED_S and seconds > 1.5 * left:
            log.warning("the endpoint asks for a pause of %.0f s, %s", seconds, self._pause)

    @property
    def notes(self) -> dict[str, str]:
        """What people should know: a pause, a refusal, a breaker that is open; each while it lasts."""
        now, found = self._clock(), {}
        if self._pause and self._paused_until > now:
            found["paused"] = str(self._pause)
        if self._refusal and self._refused_until > now:
            found["refuses"] = str(self._refusal)
        if self._open_until > now:
            found["not asked"] = f"{self._failures} requests in a row failed; again in {self._open_until - now:.0f} s"
        return found

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
            except OnHold as error:
                self._remember(error)
                raise
            except TransientError as error:
                self._count_failure(type(error))
                raise
            self._failures, self._refusal = 0, None
            return result

    async def _attempts(self, call: Callable[[], Awaitable[T]]) -> T:
        deadline = self._clock() + self._policy.total_timeout_s
        attempt = 0
        while True:
            await self._wait_out_pause(deadline)
            try:
                result = await self._within(deadline, call)
            except OnHold:
                raise
            except TransientError as error:
                self.window.refused()
                if error.retry_after_s is not None:
                    self.pause(error.retry_after_s, str(error))
                ceiling = min(_LONGEST_BACKOFF_S, self._policy.retry_base_s * 2**attempt)
                delay = self._uniform(0.0, ceiling)
                if attempt >= self._policy.max_retries or self._clock() + delay >= deadline:
                    if error.retry_after_s is not None:
                        self._refuse_while_paused()
                    raise
            else:
                self.window.answered()
                return result
            attempt += 1
            await self._sleep(delay)

    async def _within(self, deadline: float, call: Callable[[], Awaitable[T]]) -> T:
        """The call's answer. Raises BackendTimeout: not whole by the deadline, however much of it came."""
        limit = asyncio.timeout(max(0.0, deadline - self._clock()))
        try:
            async with limit:
                return await call()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise BackendTimeout(
                f"the endpoint's answer was not whole after {self._policy.total_timeout_s:g} s "
                f"({self._section}.total_timeout_s)"
            ) from error

    async def _wait_out_pause(self, deadline: float) -> None:
        while (pause := self._paused_until - self._clock()) > 0:
            if self._paused_until >= deadline:
                self._refuse_while_paused()
            await self._sleep(pause + self._uniform(0.0, self._policy.retry_base_s))  # not all at once

    def _refuse_while_paused(self) -> None:
        left = self._paused_until - self._clock()
        if left > 0 and self._pause:
            asked = f"the endpoint asks for a pause until {shown(self._pause.until)}: {self._pause.why}"
            raise EndpointPaused(asked, retry_after_s=left)

    def _remember(self, error: OnHold) -> None:
        if isinstance(error, EndpointRefuses):
            if self._refusal is None or str(self._refusal) != str(error):
                log.error("%s", error)
            self._refusal, self._refused_until = error, self._clock() + (error.retry_after_s or 0.0)

    def _refuse_while_open(self) -> None:
        refused = self._refused_until - self._clock()
        if self._refusal and refused > 0:
            raise EndpointRefuses(str(self._refusal), retry_after_s=refused)
        left = self._open_until - self._clock()
        if left > 0:
            raise self._kind(
                f"not asked: the endpoint failed {self._failures} requests in a row; next try in {left:.0f} s",
                retry_after_s=left,
            )

    def _count_failure(self, kind: type[TransientError]) -> None:
        self._failures += 1
        self._kind = kind
        if self._failures >= self._policy.breaker_failures:
            self._open_until = self._clock() + self._policy.breaker_s
