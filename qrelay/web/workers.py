"""Threads for what blocks, so many at once and no more.

    found = await site.reading.run(read, site, asked)       # as asyncio.to_thread, once there is a place

Whoever is cancelled leaves at once. A place is free again when its work is done, and what had not begun by then is
not done; so what clients that went away had asked for takes no more threads and database connections than others do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread

Found = TypeVar("Found")


class Workers:
    """See the module. Use from one event loop."""

    def __init__(self, most: int) -> None:
        self._places = anyio.CapacityLimiter(most)

    async def run(self, work: Callable[..., Found], *given: Any) -> Found:
        """What the work returns or raises."""
        left = threading.Event()

        def unless_left() -> Any:
            return None if left.is_set() else work(*given)

        working = asyncio.ensure_future(anyio.to_thread.run_sync(unless_left, limiter=self._places))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            left.set()
            raise
