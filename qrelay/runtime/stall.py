"""Whether a worker gets on with its queues: the one thing that it tells of itself to whoever asks for readiness."""

from __future__ import annotations

from collections.abc import Callable


class Stall:
    """Since when nothing was fetched or published, and why. A worker that is idle, or computes, does not stall: only
    failures begin one, and whatever goes through ends it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = 0.0
        self._why = ""

    def failed(self, doing: str, error: Exception) -> None:
        """It was tried and not done."""
        if not self._why:
            self._since = self._clock()
        self._why = f"{doing}: {error}"

    def ended(self) -> None:
        """Something went through."""
        self._why = ""

    def lasts(self, seconds: float) -> str:
        """Why nothing has gone through for so many seconds; empty: something has, or nothing was tried."""
        return self._why if self._why and self._clock() - self._since >= seconds else ""
