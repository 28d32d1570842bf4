"""Polling beside the requests, and freeing a model when its last user is done."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

_COLLECT_AFTER_S: Final = 0.5


async def every(seconds: float, look: Callable[[], None], stopping: asyncio.Event) -> None:
    """Call `look` in a thread, `seconds` after it last ended, until `stopping`. 0 or less: never."""
    while seconds > 0 and not stopping.is_set():
        await asyncio.to_thread(look)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), seconds)


def free_when_unused(holder: Any) -> None:
    """Give a model's memory back once the last call that uses `holder`, the model's only owner, has ended.

    A model's objects refer to each other in circles, and what was loaded at start is kept from the garbage collector
    (`qrelay.runtime.service`): without this a replaced model would stay in memory for good. One full collection, a
    few tenths of a second in which Python does nothing else, once a swap.
    """
    weakref.finalize(holder, _collect_soon).atexit = False


def _collect_soon() -> None:
    """Not now: the holder still has its hands on the model while this is called."""
    timer = threading.Timer(_COLLECT_AFTER_S, _collect)
    timer.daemon = True
    timer.start()


def _collect() -> None:
    frozen = gc.get_freeze_count() > 0
    if frozen:
        gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()
