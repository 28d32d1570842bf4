"""What takes longer to count than a page may take: counted once for all who ask, one thing after the other.

    counting = Counting(work)                    # work: a plain function of one text
    found = await counting.of("docs")            # None: it is being counted; ask again

Whoever asks waits a moment and no longer, so a first look at millions of labels keeps no page, thread or database
connection waiting but its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Generic

from qrelay.web.workers import Found, Workers

PATIENCE_S: Final = 0.2


class Counting(Generic[Found]):
    """See the module. Use from one event loop. What went wrong is raised to who asks next."""

    def __init__(self, work: Callable[[str], Found], patience_s: float = PATIENCE_S) -> None:
        self._work, self._patience_s = work, patience_s
        self._alone = Workers(1)
        self._tasks: dict[str, asyncio.Task[Found]] = {}

    async def of(self, name: str) -> Found | None:
        """What the work finds about `name`, or None while it goes on."""
        task = self._tasks.get(name) or asyncio.create_task(self._alone.run(self._work, name))
        self._tasks[name] = task
        await asyncio.wait({task}, timeout=self._patience_s)
        if not task.done():
            return None
        if self._tasks.get(name) is task:
            del self._tasks[name]
        return task.result()

    def close(self) -> None:
        """Gives up what is being counted."""
        for task in self._tasks.values():
            task.cancel()
