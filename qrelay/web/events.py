"""Server-sent events: a page that is kept up to date.

    return events(request, look)        # look: an async function whose answer is JSON; sent where it has changed

A stream ends when the reader goes, when the server is told to end, and after `_LIFE` looks, so that a browser asks
anew (as it does by itself) and whoever may no longer read is told.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from qrelay.errors import Overloaded
from qrelay.web.errors import problem
from qrelay.web.site import Site, site_of

_LIFE: Final = 3600
_STEP_S: Final = 0.25
"""Seconds within which a stream notices that the server ends."""


def events(request: Request, look: Callable[[], Awaitable[Any]], every_s: float = 1.0) -> Response:
    """A stream of what `look` answers, each time that it differs from before; `event: problem` where it fails.

    Raises:
        Overloaded: `console.max_streams` are open.
    """
    site = site_of(request)
    if not site.streams_left:
        raise Overloaded(f"{site.settings.max_streams} pages (console.max_streams) are kept up to date: close one")
    site.streams_left -= 1
    return StreamingResponse(_Stream(site, look, every_s), media_type="text/event-stream")


class _Stream:
    """The bytes of a stream; gives its place back when it ends, or is never begun."""

    def __init__(self, site: Site, look: Callable[[], Awaitable[Any]], every_s: float) -> None:
        self._site, self._look, self._every_s = site, look, every_s
        self._open = True

    async def __aiter__(self) -> AsyncIterator[str]:
        said = ""
        try:
            for _ in range(_LIFE):
                now = await self._said()
                yield now if now != said else ": still here\n\n"
                said = now
                if not await self._pause():
                    return
        finally:
            self.close()

    async def _said(self) -> str:
        try:
            return f"data: {json.dumps(await self._look(), allow_nan=False)}\n\n"
        except Exception as error:
            return f"event: problem\ndata: {json.dumps(problem(error).body)}\n\n"

    async def _pause(self) -> bool:
        """Whether to go on."""
        for _ in range(max(1, round(self._every_s / _STEP_S))):
            if self._site.stopping():
                return False
            await asyncio.sleep(min(_STEP_S, self._every_s))
        return not self._site.stopping()

    def close(self) -> None:
        """Gives the stream's place back, once."""
        if self._open:
            self._open = False
            self._site.streams_left += 1

    def __del__(self) -> None:
        self.close()
