"""Caps of a round, and rounds that add up."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from qrelay.labels.examples import examples
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.mining.rounds import (
    HARDEST,
    ExampleSize,
    RoundLimits,
    choose,
    size_of,
    taken,
)
from qrelay.labels.mining.rules import MiningRules
from tests.labels.builders import graded, judged_set

SIZES = [ExampleSize(f"q{i:02d}", 1 + i % 5, 1 + i % 3, 1.0 + i) for i in range(40)]


def test_without_limits_a_round_takes_everything() -> None:
    assert choose(SIZES, RoundLimits()) == {size.query_id: size.negatives for size in SIZES}


def test_a_round_takes_at_most_so_many_examples() -> None:
    assert len(choose(SIZES, RoundLimits(examples=7))) == 7


def test_a_round_takes_exactly_so_many_negatives_and_cuts_the_last_example_short() -> None:
    chosen = choose(SIZES, RoundLimits(negatives=20))
    full = {size.query_id: size.negatives for size in SIZES}
    assert sum(chosen.values()) == 20
    assert sum(chosen[query_id] < full[query_id] for query_id in chosen) <= 1


def test_a_larger_round_only_adds_examples() -> None:
    small, large = (choose(SIZES, RoundLimits(examples=count)) for count in (5, 15))
    assert set(small) < set(large)


def test_another_seed_draws_other_examples() -> None:
    assert choose(SIZES, RoundLimits(examples=5)) != choose(SIZES, RoundLimits(examples=5, seed=1))


def test_the_hardest_first_are_those_with_most_hard_negatives_ranked_highest() -> None:
    assert list(choose(SIZES, RoundLimits(examples=3, order=HARDEST))) == ["q02", "q05", "q08"]


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=30),
    st.builds(
        RoundLimits, st.integers(0, 12), st.integers(0, 30), st.sampled_from(["random", "hardest"]), st.integers(0, 3)
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_examples_never_matters_and_no_limit_is_broken(
    numbers: list[tuple[int, int]], limits: RoundLimits, rng: random.Random
) -> None:
    sizes = [ExampleSize(f"q{i}", n, min(n, h), float(h)) for i, (n, h) in enumerate(numbers)]
    chosen = choose(sizes, limits)
    rng.shuffle(sizes)
    assert choose(iter(sizes), limits) == chosen
    assert not limits.examples or len(chosen) <= limits.examples
    assert not limits.negatives or sum(chosen.values()) <= limits.negatives
    assert all(chosen.values())


def test_rounds_follow_the_ledgers_changes_whatever_the_order_of_commits(ledger: Ledger) -> None:
    sets = [judged_set(f"q{i}", outcomes=[graded(3), *[graded(0)] * 8]) for i in range(6)]
    ledger.commit(sets[:3][::-1])
    with ledger.snapshot() as snapshot:
        boundary = snapshot.change_no("docs")
    ledger.commit(sets[3:])
    limits, rules = RoundLimits(examples=2, negatives=5), MiningRules()
    with ledger.snapshot() as snapshot:
        judges = snapshot.judges()
        ranges = (0, boundary), (boundary, snapshot.change_no("docs"))
        rounds = [list(examples(snapshot, "docs", judges, rules, changes=each)) for each in ranges]
    assert [{e.query.query_id for e in found} for found in rounds] == [{"q0", "q1", "q2"}, {"q3", "q4", "q5"}]
    for found in rounds:
        chosen = choose(map(size_of, found), limits)
        kept = [each for each in (taken(example, chosen) for example in found) if each.positives]
        assert len(kept) <= 2
        assert sum(len(each.negatives) for each in kept) == 5
        assert all(each.negatives[0].hard for each in kept)
