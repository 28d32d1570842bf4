"""How a pull tells what it does, and a watcher for bytes that another process or library writes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

_POLL_S = 0.2


class PullProgress(Protocol):
    """Told of a pull's progress; called from the pulling thread and from a watcher thread."""

    def begin(self, model: str, source: str, total_bytes: int) -> None:
        """A source is tried that has `total_bytes` to fetch."""

    def update(self, model: str, done_bytes: int) -> None:
        """So many bytes of the source are here now (those of an earlier, interrupted pull included)."""

    def note(self, model: str, text: str) -> None:
        """Something that people want to know: a source failed, a wait, the final verification."""


class NoProgress:
    """Tells nobody."""

    def begin(self, model: str, source: str, total_bytes: int) -> None:
        """Nothing."""

    def update(self, model: str, done_bytes: int) -> None:
        """Nothing."""

    def note(self, model: str, text: str) -> None:
        """Nothing."""


@contextlib.contextmanager
def watching(folder: Path, report: Callable[[int], None]) -> Iterator[None]:
    """While the body runs, report the bytes under `folder` a few times a second."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(_POLL_S):
            report(folder_bytes(folder))

    thread = threading.Thread(target=watch, name="pull-watcher", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def folder_bytes(folder: Path) -> int:
    """Bytes of all files under `folder`; files that vanish meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
