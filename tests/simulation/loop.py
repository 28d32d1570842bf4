"""An event loop on simulated time, and the processes that live and die on it.

Time stands still while callbacks run and jumps to the next timer when none is left, so that an hour takes no longer
than what happens in it. Threads are gone as well: what `asyncio.to_thread` is given runs inline, at a moment drawn
from the seed, and its result arrives at another one.

A `Process` owns the tasks that are made in it. When it is killed its callbacks are kept back: nothing of it runs any
more, no `finally` and no `except`, as after SIGKILL. One that was stopped (SIGSTOP) gets what was kept back when it
continues.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

from qrelay.runtime.memory import MemoryBroker

START_S = 1_000.0
MAX_STEPS = 400_000
"""Of one seed: usual are 10,000. More means that something spins."""
_SLOW_SHARE = 0.03


class Spinning(Exception):
    """So many steps, or none that is left to do: the simulated world makes no progress."""


class Process:
    """One simulated operating system process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = True
        self.tasks: list[asyncio.Task[Any]] = []
        self.kept: list[tuple[Callable[..., Any], tuple[Any, ...], Context]] = []

    def __repr__(self) -> str:
        return self.name


_OWNER: ContextVar[Process | None] = ContextVar("process", default=None)


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module. `draw`: the seed's generator for the moments at which threads run."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self._now_s, self._draw, self.steps = START_S, draw, 0
        self._selector = self  # what BaseEventLoop asks for events, and how long it may wait for them
        self._clock_resolution = 1e-6
        self.set_task_factory(self._new_task)
        self.set_exception_handler(lambda loop, context: None)  # who waits for a task learns of its error

    def time(self) -> float:
        """Simulated seconds."""
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        """Nothing ever comes from outside: waiting is only time."""
        if timeout is None:
            raise Spinning("every task waits for another one, and no timer runs")
        self._now_s += timeout
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        context = context or copy_context()
        return super().call_soon(self._run, callback, args, context, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        context = context or copy_context()
        return super().call_at(when, self._run, callback, args, context, context=context)

    def _run(self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            self.stop()
            raise Spinning(f"{MAX_STEPS:,} steps: something spins")
        owner = context.get(_OWNER)
        if owner is None or owner.running:
            callback(*args)
        else:
            owner.kept.append((callback, args, context))

    def _new_task(self, loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None = None) -> Any:
        task = asyncio.Task(coro, loop=loop, context=context)
        owner = (context or copy_context()).get(_OWNER)
        if owner is not None:
            owner.tasks.append(task)
        return task

    def start(self, process: Process, main: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs `main` in a process; tasks that it makes belong to that process too."""
        context = copy_context()
        context.run(_OWNER.set, process)
        return self.create_task(main, context=context)

    def resume(self, process: Process) -> None:
        """What was kept back while the process was stopped, in its order."""
        process.running = True
        kept, process.kept = process.kept, []
        for callback, args, context in kept:
            self.call_soon(callback, *args, context=context)

    def bury(self, processes: list[Process]) -> None:
        """Ends the tasks of dead processes when all is over, or they would be closed by the garbage collector."""
        self.steps = 0
        for process in processes:
            self.resume(process)
        tasks = [task for process in processes for task in process.tasks if not task.done()]
        for task in tasks:
            task.cancel()
        self.run_until_complete(asyncio.wait(tasks) if tasks else asyncio.sleep(0))

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Runs `func` inline, a drawn moment from now; a process that is killed before never does it, and one that is
        killed between the work and its result has done it and does not know."""
        future: asyncio.Future[Any] = self.create_future()

        def deliver(set_outcome: Callable[[Any], None], outcome: Any) -> None:
            if not future.done():
                set_outcome(outcome)

        def work() -> None:
            set_outcome: Callable[[Any], None] = future.set_result
            try:
                outcome: Any = func(*args)
            except Exception as error:
                set_outcome, outcome = future.set_exception, error
            self.call_later(self._draw.uniform(0.0, 0.01), deliver, set_outcome, outcome)

        slow = self._draw.random() < _SLOW_SHARE
        self.call_later(self._draw.uniform(0.0, 8.0 if slow else 0.05), work)
        return future

    def close(self) -> None:
        self._selector = None
        super().close()


def in_simulated_time(claim: Callable[[MemoryBroker, SimulatedLoop], Coroutine[Any, Any, None]]) -> None:
    """Hours pass at once."""
    loop = SimulatedLoop(random.Random(1))
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(claim(MemoryBroker(ack_wait_s=60.0, duplicate_window_s=600.0), loop))
    finally:
        loop.close()
        asyncio.set_event_loop(None)
