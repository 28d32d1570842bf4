"""What a call gives: an iterator over records that come as they are ready, and what can be made of all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from qrelay.client import frames
from qrelay.errors import QrelayError

T = TypeVar("T")
Runner = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine on a client's loop, from another thread, to its end."""


class AsyncResults(Generic[T]):
    """Iterate with `async for`; or take all of it: `await results.list()`, `.to_pandas()`, `.to_dataset()`.

    Nothing is asked for before the first is taken. One that is left early should be closed: `async with` does it.
    """

    def __init__(self, batches: AsyncGenerator[Sequence[T], None]) -> None:
        self._batches = batches
        self._ready: deque[T] = deque()
        self._taken = 0

    def __aiter__(self) -> AsyncResults[T]:
        return self

    async def __anext__(self) -> T:
        if not self._ready and not await self.fetch():
            raise StopAsyncIteration
        return self.pop()

    async def fetch(self) -> bool:
        """Have more records ready; False: there are no more."""
        while not self._ready:
            batch = await anext(self._batches, None)
            if batch is None:
                return False
            self._ready.extend(batch)
        return True

    def pop(self) -> T:
        """A record that is ready. Raises IndexError: none is."""
        record = self._ready.popleft()
        self._taken += 1
        return record

    async def rest(self) -> AsyncIterator[Sequence[T]]:
        """What was not taken yet, as it comes: for another call that takes these records."""
        async with self:
            while await self.fetch():
                batch = [*self._ready]
                self._ready.clear()
                yield batch

    async def list(self) -> list[T]:
        """All that was not taken yet."""
        return [record async for record in self]

    async def to_pandas(self) -> Any:
        """All of it as a pandas.DataFrame: a row a candidate or judgment. Raises SetupError: without pandas."""
        return frames.pandas_frame(await self.list())

    async def to_dataset(self) -> Any:
        """All of it as a datasets.Dataset: a row a candidate or judgment. Raises SetupError: without datasets."""
        return frames.dataset(await self.list())

    async def aclose(self) -> None:
        """End the call; what was not taken is left."""
        await self._batches.aclose()

    async def __aenter__(self) -> AsyncResults[T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._taken} taken)"


class Results(Iterator[T]):
    """Iterate; or take all of it: `list(results)`, `.to_pandas()`, `.to_dataset()`. Nothing is asked for before the
    first is taken."""

    def __init__(self, run: Runner, results: AsyncResults[T]) -> None:
        self._run, self._results = run, results

    def __iter__(self) -> Results[T]:
        return self

    def __next__(self) -> T:
        try:
            return self._results.pop()
        except IndexError:
            if not self._run(self._results.fetch()):
                raise StopIteration from None
            return self._results.pop()

    def to_pandas(self) -> Any:
        """All of it as a pandas.DataFrame: a row a candidate or judgment. Raises SetupError: without pandas."""
        return frames.pandas_frame(self)

    def to_dataset(self) -> Any:
        """All of it as a datasets.Dataset: a row a candidate or judgment. Raises SetupError: without datasets."""
        return frames.dataset(self)

    def close(self) -> None:
        """End the call; what was not taken is left."""
        self._run(self._results.aclose())

    @property
    def unblocked(self) -> AsyncResults[T]:
        """The same records, for another call on the same loop."""
        return self._results

    def __repr__(self) -> str:
        return f"{type(self).__name__}{repr(self._results).removeprefix('AsyncResults')}"


async def raising(batches: AsyncIterator[Sequence[Any]]) -> AsyncGenerator[Sequence[Any], None]:
    """The batches up to the first error among them, which is raised."""
    async with aclosing(batches) as opened:  # type: ignore[type-var]
        async for batch in opened:
            bad = next((n for n, each in enumerate(batch) if isinstance(each, QrelayError)), None)
            if bad is None:
                yield batch
                continue
            if bad:
                yield batch[:bad]
            raise batch[bad]
