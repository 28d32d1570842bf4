"""Threads for what blocks are bounded, whoever goes away; what is counted for long is counted once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from qrelay.errors import BackendUnavailable
from qrelay.web.counting import Counting
from qrelay.web.workers import Workers


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    """What work waits for; told in the end, so that no thread is left."""
    found = threading.Event()
    yield found
    found.set()


async def until(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.001)


async def test_a_place_is_free_when_its_work_is_done_and_not_when_its_caller_left(go_on: threading.Event) -> None:
    workers, begun, done = Workers(1), threading.Event(), []

    def work(name: str) -> str:
        begun.set()
        go_on.wait()
        done.append(name)
        return name

    first = asyncio.ensure_future(workers.run(work, "first"))
    await until(begun)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    left = asyncio.ensure_future(workers.run(done.append, "left before it began"))
    third = asyncio.ensure_future(workers.run(work, "third"))
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert (done, third.done()) == ([], False), "the first one's thread still works"
    left.cancel()
    go_on.set()
    assert await third == "third"
    assert done == ["first", "third"]


async def test_what_is_counted_is_counted_once_for_all_and_then_told(go_on: threading.Event) -> None:
    begun: list[str] = []

    def work(name: str) -> str:
        begun.append(name)
        go_on.wait()
        return f"{name} counted"

    counting = Counting(work, patience_s=0)
    assert await asyncio.gather(*(counting.of("docs") for _ in range(5))) == [None] * 5
    go_on.set()
    while (found := await counting.of("docs")) is None:
        await asyncio.sleep(0.001)
    assert (found, begun) == ("docs counted", ["docs"])


async def test_what_went_wrong_is_told_to_who_asks_next_and_then_tried_again() -> None:
    fails = [True]

    def work(_: str) -> int:
        if fails.pop() if fails else False:
            raise BackendUnavailable("the database is down")
        return 7

    async def asked() -> int:
        while (found := await counting.of("docs")) is None:
            pass
        return found

    counting = Counting(work, patience_s=0)
    with pytest.raises(BackendUnavailable, match="is down"):
        await asked()
    assert await asked() == 7
