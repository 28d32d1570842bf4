"""Batching policy, with a clock in the test's hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qrelay.runtime.batcher import Batcher, BatchPolicy

POLICY = BatchPolicy(max_items=4, max_cost=10, max_bytes=100, max_delay_s=1.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_batch_goes_when_it_is_full() -> None:
    batcher = Batcher[int](POLICY, Clock())
    for item in range(3):
        batcher.add(item)
        assert not batcher.ready()
    batcher.add(3)
    assert batcher.ready()
    assert batcher.take() == [0, 1, 2, 3]
    assert not batcher.ready()


def test_a_batch_goes_when_its_oldest_item_has_waited_long_enough() -> None:
    clock = Clock()
    batcher = Batcher[int](POLICY, clock)
    batcher.add(0)
    clock.now = 0.75
    batcher.add(1)
    assert batcher.due_in() == 0.25
    assert not batcher.ready()
    clock.now = 1.0
    assert batcher.ready()
    assert batcher.take() == [0, 1]
    assert batcher.due_in() is None


def test_an_item_waits_for_no_company_where_none_is_expected() -> None:
    batcher = Batcher[int](POLICY, Clock())
    batcher.patient = False
    batcher.add(0)
    assert (batcher.due_in(), batcher.ready()) == (0.0, True)


def test_cost_and_bytes_close_a_batch() -> None:
    batcher = Batcher[str](POLICY, Clock())
    batcher.add("a", cost=6)
    batcher.add("b", cost=5)
    assert batcher.ready()
    assert batcher.take() == ["a"]
    batcher.add("c", size=96)
    assert batcher.take() == ["b", "c"]


def test_an_item_above_every_limit_still_goes_alone() -> None:
    batcher = Batcher[str](POLICY, Clock())
    batcher.add("huge", cost=1000, size=1000)
    batcher.add("small")
    assert batcher.take() == ["huge"]
    assert batcher.take() == ["small"]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 120)), max_size=40))
def test_nothing_is_lost_reordered_or_beyond_the_limits(items: list[tuple[int, int]]) -> None:
    batcher = Batcher[int](POLICY, Clock())
    for number, (cost, size) in enumerate(items):
        batcher.add(number, cost=cost, size=size)
    taken: list[int] = []
    while batch := batcher.take():
        taken += batch
        assert len(batch) <= POLICY.max_items
        if len(batch) > 1:
            assert sum(items[i][0] for i in batch) <= POLICY.max_cost
            assert sum(items[i][1] for i in batch) <= POLICY.max_bytes
    assert taken == list(range(len(items)))
