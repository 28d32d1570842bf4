"""How far a long step is: whoever does it reports, whoever waits listens.

    with step("converting qwen2.5-coder-1.5b-instruct to 8 bits", total=338, unit="tensors") as converting:
        converting.advance(1)

The work knows no listener and no terminal. A command listens with `shown()`: a live bar on a terminal, plain lines
at intervals on a pipe. A service listens with its log and its context, so that health and GetInfo can answer how far
loading is. Without a listener nothing is said. The listener is a context variable: `asyncio.to_thread` hands it on,
a thread started by hand must be given `contextvars.copy_context().run`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_POLL_S: Final = 0.2
LINE_EVERY_S: Final = 10.0
"""Seconds between two lines of one step where lines are printed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a step is. total: in `unit`s, 0 where nobody knows; finished: the step has ended, well or not."""

    name: str
    done: float = 0
    total: float = 0
    unit: str = ""
    finished: bool = False

    def __str__(self) -> str:
        """One plain line without the time: "converting x: 12 of 338 tensors"."""
        if not self.total and not self.done:
            return self.name
        of = f" of {_quantity(self.total, self.unit)}" if self.total else ""
        done = _quantity(self.done, "" if self.total else self.unit, self.unit)
        return f"{self.name}: {done}{of}"


def _quantity(count: float, unit: str, scale: str = "") -> str:
    if (scale or unit) == "bytes":
        return f"{count / 1e6:,.0f}" + (" MB" if unit else "")
    return f"{count:,.0f}" + (f" {unit}" if unit else "")


Listener = Callable[[Progress], None]
_LISTENER: ContextVar[Listener | None] = ContextVar("qrelay_progress_listener", default=None)


class Step:
    """One long step: says what is done of it."""

    def __init__(self, progress: Progress, listener: Listener | None) -> None:
        self._progress = progress
        self._listener = listener

    def advance(self, count: float) -> None:
        """This many more units are done."""
        self.at(self._progress.done + count)

    def at(self, done: float, *, total: float | None = None) -> None:
        """So many units are done, of so many where that is known only now."""
        self._progress = replace(self._progress, done=done, total=self._progress.total if total is None else total)
        self._tell()

    def finish(self) -> None:
        """The step has ended."""
        self._progress = replace(self._progress, finished=True)
        self._tell()

    def _tell(self) -> None:
        if self._listener:
            self._listener(self._progress)


@contextmanager
def step(name: str, *, total: float = 0, unit: str = "", done: float = 0) -> Iterator[Step]:
    """A long step, reported from its begin to its end. done: units that an earlier run left."""
    running = Step(Progress(name, done, total, unit), _LISTENER.get())
    running._tell()
    try:
        yield running
    finally:
        running.finish()


def heard() -> Listener:
    """Who listens here, for a listener that adds to it; one that does nothing where nobody does."""
    return _LISTENER.get() or (lambda _: None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """While it lasts, `listener` hears of every step of this context, in the thread that does the work."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def watching(folder: Path, report: Callable[[int], None]) -> Iterator[None]:
    """While the body runs, report the bytes under `folder` a few times a second."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(_POLL_S):
            report(_bytes(folder))

    thread = threading.Thread(target=watch, name="bytes-watcher", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _bytes(folder: Path) -> int:
    """Bytes of all files under `folder`; files and folders that vanish meanwhile count nothing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(where, name).stat().st_size
    return total


def tell(progress: Progress) -> None:
    """Hand on what another process said of a step of its own."""
    if listener := _LISTENER.get():
        listener(progress)


@dataclass(slots=True)
class _Told:
    """What was said of one running step. Times: monotonic seconds."""

    began: float
    began_at: float
    said: float
    times: int = 1


class Lines:
    """A listener that hands plain lines to `say`: at a step's begin, every `LINE_EVERY_S` seconds, and at its end if
    anything was said between. Steps may stand in one another."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._running: dict[str, _Told] = {}

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        told = self._running.get(progress.name)
        if told is None:
            if not progress.finished:
                self._running[progress.name] = _Told(now, progress.done, now)
                self._say(str(progress))
            return
        if progress.finished:
            del self._running[progress.name]
            if told.times > 1:
                self._say(f"{progress} ({now - told.began:,.0f} s)")
        elif now - told.said >= LINE_EVERY_S:
            told.said, told.times = now, told.times + 1
            self._say(f"{progress}{_rest(progress, told, now)}")


def _rest(progress: Progress, told: _Told, now: float) -> str:
    """Seconds left where a total is known, else seconds so far."""
    passed, gained = now - told.began, progress.done - told.began_at
    if not progress.total or gained <= 0:
        return f" ({passed:,.0f} s so far)"
    return f" (about {(progress.total - progress.done) * passed / gained:,.0f} s left)"


class Bars:
    """A listener with live bars of rich, for a terminal."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, progress: Progress) -> None:
        task = self._tasks.get(progress.name)
        if task is None and progress.finished:
            return  # nobody heard of its begin
        if task is None:
            task = self._tasks[progress.name] = self._bars.add_task(progress.name, total=None, said="")
        said = str(progress).removeprefix(progress.name).removeprefix(": ")
        whole = progress.finished and not progress.total  # nobody knew how much it was: now it is all
        done = progress.done or float(whole)
        self._bars.update(task, completed=done, total=done if whole else progress.total or None, said=said)
        if progress.finished:
            self._bars.stop_task(task)
            del self._tasks[progress.name]


def on_terminal(console: Console) -> bool:
    """Whether somebody watches. FORCE_COLOR, which Jupyter sets for what cells start, makes no file a terminal."""
    return console.is_terminal and console.file.isatty()


@contextmanager
def shown(console: Console | None = None) -> Iterator[None]:
    """Listen and show it on `console` (standard error): live bars on a terminal, else plain lines. Give the console
    that prints other lines meanwhile, or they break the bars."""
    from rich.console import Console

    console = console or Console(stderr=True)
    if not on_terminal(console):
        file = console.file
        with listening(Lines(lambda line: print(line, file=file, flush=True))):
            yield
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    name, said = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[said]}"))
    columns = (SpinnerColumn(), name, BarColumn(), said, TimeElapsedColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=console) as bars, listening(Bars(bars)):
        yield


def plainly(console: Console) -> Callable[[str], None]:
    """Prints lines on the console as they are, whatever its width; also beside bars."""
    return lambda line: console.print(line, soft_wrap=True, highlight=False, markup=False)
