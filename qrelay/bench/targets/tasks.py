"""Ending asyncio tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

_AGAIN_S: Final = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel until all have ended; what they raise is dropped. Once is not enough: before Python 3.12 `wait_for`,
    which NATS' client is built on, may lose a cancellation that comes together with its answer."""
    everyone = list(tasks)
    while pending := [task for task in everyone if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_AGAIN_S)
    await asyncio.gather(*everyone, return_exceptions=True)
