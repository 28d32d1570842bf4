"""Batches of several threads in one transaction: what comes while one is written goes together after it.

So many small requests at once cost one sync to disk and not one each. Nobody waits for company: a batch that comes
where nothing is written goes at once, alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

MOST: Final = 256
"""Sets in one transaction, where several batches make it up."""


@dataclass(eq=False, slots=True)
class _Batch:
    items: Sequence[Any]
    kind: Hashable
    answers: list[Any] = field(default_factory=list)
    error: BaseException | None = None
    written: bool = False


class Together:
    """Use from any thread. turn: held by whoever writes; may be taken again by the same thread."""

    def __init__(self, turn: AbstractContextManager[Any]) -> None:
        self._turn = turn
        self._mutex = threading.Lock()
        self._waiting: deque[_Batch] = deque()

    def write(
        self, items: Sequence[Any], kind: Hashable, write: Callable[[Sequence[Any]], Sequence[Any]]
    ) -> list[Any]:
        """What `write` answers to each item, of these and of others that came with the same `kind`. What it raises
        befalls all that it was called with."""
        mine = _Batch(items, kind)
        with self._mutex:
            self._waiting.append(mine)
        with self._turn:
            if not mine.written:
                _write(self._take(mine), write)
        if mine.error:
            raise mine.error
        return mine.answers

    def _take(self, first: _Batch) -> list[_Batch]:
        """The batch, and those of its kind that fit beside it, in the order in which they came."""
        taken, room = [first], MOST - len(first.items)
        with self._mutex:
            self._waiting.remove(first)
            for batch in list(self._waiting):
                if batch.kind == first.kind and len(batch.items) <= room:
                    self._waiting.remove(batch)
                    taken.append(batch)
                    room -= len(batch.items)
        return taken


def _write(batches: Sequence[_Batch], write: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
    try:
        answers = iter(write([item for batch in batches for item in batch.items]))
        for batch in batches:
            batch.answers = [next(answers) for _ in batch.items]
    except BaseException as error:
        for batch in batches:
            batch.error = error
    for batch in batches:
        batch.written = True
