"""An event loop whose time passes at once, and a target with a known service time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from qrelay.bench.load import Answer

T = TypeVar("T")


class _NoWait(selectors.DefaultSelector):
    """Sees what is ready, and instead of waiting reports how long the loop would have."""

    def __init__(self, passed: Callable[[float], None]) -> None:
        super().__init__()
        self._passed = passed

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("nothing will ever happen again: the code under test waits forever")
        if not ready and timeout:
            self._passed(timeout)
        return ready


class SimulatedTime(asyncio.SelectorEventLoop):
    """`time()` jumps to the next timer as soon as nothing else is to do; threads run inline."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_NoWait(self._pass))

    def time(self) -> float:
        return self._now

    def _pass(self, seconds: float) -> None:
        self._now += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        done = self.create_future()
        done.set_result(func(*args))
        return done


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in simulated time."""
    with asyncio.Runner(loop_factory=SimulatedTime) as runner:
        return runner.run(main)


class FakeService:
    """`servers` that each take `service_s` a request, first come first served; refuses when more than `pending` wait
    or are served; serves nothing from `stall_at` for `stall_s`."""

    name = "fake"

    def __init__(
        self,
        service_s: float,
        servers: int = 1,
        *,
        items: int = 1,
        pending: int | None = None,
        stall: tuple[float, float] | None = None,
        fail_every: int | None = None,
    ) -> None:
        self.service_s, self.items, self.pending, self.stall, self.fail_every = (
            service_s,
            items,
            pending,
            stall,
            fail_every,
        )
        self.seen: list[int] = []
        self.held = 0
        self._free = asyncio.Semaphore(servers)

    async def send(self, number: int) -> Answer:
        self.seen.append(number)
        if self.pending is not None and self.held >= self.pending:
            await asyncio.sleep(0.001)
            return Answer(0, refused=self.items)
        self.held += 1
        try:
            async with self._free:
                await self._serve()
        finally:
            self.held -= 1
        if self.fail_every and number % self.fail_every == 0:
            return Answer(self.items - 1, {"malformed": 1})
        return Answer(self.items)

    async def _serve(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.stall and self.stall[0] <= now < sum(self.stall):
            await asyncio.sleep(sum(self.stall) - now)
        await asyncio.sleep(self.service_s)
