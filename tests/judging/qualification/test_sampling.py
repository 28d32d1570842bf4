"""Which pairs people are asked to grade."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qrelay.judging.qualification.sampling import Judged, choose
from tests.judging.qualification.tables import pair


def judged(ps: dict[int, list[float]]) -> list[Judged]:
    """Query number -> P(relevant) of each of its passages."""
    return [Judged(pair(q, d, None), p, 0.0) for q, row in ps.items() for d, p in enumerate(row)]


def many(seed: int = 0, queries: int = 30, passages: int = 10) -> list[Judged]:
    """Few unsure labels among sure ones, as judges give them."""
    rng = np.random.default_rng(seed)
    return judged({q: rng.beta(0.3, 0.3, passages).tolist() for q in range(queries)})


def keys(chosen: list[Judged]) -> dict[tuple[str, str], float]:
    return {(each.pair.query_id, each.pair.passage_id): each.p_relevant for each in chosen}


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8), n=st.integers(1, 60), seed=st.integers(0, 3))
def test_n_different_pairs_or_all_where_there_are_fewer(sizes: list[int], n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = judged({q: rng.random(size).tolist() for q, size in enumerate(sizes)})
    chosen = choose(found, n, seed=seed)
    named = [(each.query_id, each.passage_id) for each in chosen]
    assert len(named) == len(set(named)) == min(n, sum(sizes))
    assert named == sorted(named)
    assert set(named) <= keys(found).keys()


def test_the_same_call_gives_the_same_pairs_whatever_the_order_of_the_labels() -> None:
    found = many()
    assert choose(found, 60) == choose(found[::-1], 60) == choose(found, 60, seed=0)
    assert choose(found, 60) != choose(found, 60, seed=1)


def test_no_query_gives_more_than_its_share_unless_there_are_no_others() -> None:
    rng = np.random.default_rng(0)
    unsure = judged({0: (0.5 + rng.uniform(-0.01, 0.01, 100)).tolist(), **{q: [0.1] * 6 for q in range(1, 20)}})
    counts = Counter(each.query_id for each in choose(unsure, 40))
    assert max(counts.values()) <= 4, "twice the mean of 40 pairs over 20 queries"
    assert counts["q000"] == 4
    alone = judged({0: rng.random(30).tolist(), 1: [0.5]})
    assert Counter(each.query_id for each in choose(alone, 25))["q000"] >= 24


def test_the_least_certain_pairs_are_in_and_so_are_both_ends() -> None:
    found = many()
    chosen = {(each.query_id, each.passage_id) for each in choose(found, 60)}
    ps = keys(found)
    unsure = sorted(ps, key=lambda key: abs(ps[key] - 0.5))
    assert len(chosen & set(unsure[:30])) >= 25, "but for the share of a query"
    assert sum(ps[key] < 0.1 for key in chosen) >= 3
    assert sum(ps[key] >= 0.9 for key in chosen) >= 3
    evenly = Counter(int(10 * ps[key]) for key in chosen)
    assert set(evenly) == set(range(10)), "every tenth of the range"


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_ends_of_the_range_belong_to_it(p: float) -> None:
    assert len(choose(judged({0: [p, p, p]}), 2)) == 2


def test_of_nothing_nothing_is_chosen() -> None:
    assert choose([], 10) == []
