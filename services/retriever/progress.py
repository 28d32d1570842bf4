"""How a long build says where it is: a live bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG_EVERY_S: Final = 10.0


class BuildProgress(Protocol):
    """Told of each stage of a build, and of what it did."""

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        """A stage begins, of `total` items where that is known, `done` of them by an earlier run."""

    def advance(self, count: int) -> None:
        """This many more are done."""


class Silent:
    """The double: no output; remembers the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str, total: int | None, done: int = 0) -> None:  # noqa: ARG002
        self.stages.append(name)

    def advance(self, count: int) -> None:
        pass


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        if self._task is not None:
            self._progress.update(self._task, total=self._progress.tasks[self._task].completed or 1)
            self._progress.stop_task(self._task)
        self._task = self._progress.add_task(name, total=total, completed=done, rate="")

    def advance(self, count: int) -> None:
        if self._task is None:
            return
        self._progress.advance(self._task, count)
        speed = self._progress.tasks[self._task].speed
        self._progress.update(self._task, rate=f"{speed:,.0f}/s" if speed else "")


class _Lines:
    """A line at the start of a stage and every `LOG_EVERY_S` seconds: done, rate, time left."""

    def __init__(self) -> None:
        self._name, self._done, self._earlier, self._began, self._said = "", 0, 0, 0.0, 0.0
        self._total: int | None = None

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        self._name, self._total, self._done, self._earlier = name, total, done, done
        self._began = self._said = time.monotonic()
        earlier = f" ({done:,} by an earlier run)" if done else ""
        print(f"{name}: {total:,}{earlier}" if total is not None else name, file=sys.stderr, flush=True)

    def advance(self, count: int) -> None:
        now = time.monotonic()
        self._done += count
        if now - self._said < LOG_EVERY_S:
            return
        self._said, rate = now, (self._done - self._earlier) / (now - self._began)
        left = f", {(self._total - self._done) / rate:,.0f} s left" if self._total and rate else ""
        print(f"{self._name}: {self._done:,} done, {rate:,.0f}/s{left}", file=sys.stderr, flush=True)


@contextmanager
def show_progress() -> Iterator[BuildProgress]:
    """Progress on standard error, in the form that suits it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress)
