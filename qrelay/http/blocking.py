"""Coroutines for callers that are threads: one event loop in a thread of its own, so that a connection and its pace
outlive a call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from qrelay.errors import InputError

T = TypeVar("T")


class Blocking:
    """See the module. May be called from several threads, whose work runs side by side."""

    def __init__(self, name: str) -> None:
        """`name`: of the thread."""
        self._name, self._closed = name, False
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_serve, args=(self._loop,), name=name, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` answers, or raises. Interrupted, it is cancelled. Raises InputError after `close`."""
        if self._closed:
            work.close()
            raise InputError(f"the {self._name} is closed: take what it answers before it is")
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    def close(self) -> None:
        """End the thread, from whichever thread; work that still runs is left undone."""
        if not self._closed:
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
