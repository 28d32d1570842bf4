"""Rounds: how much of the examples one round of training takes, and how rounds add up.

A round is a range of the ledger's changes: its examples are those of the queries that these changes touched last. Of
them it takes at most `examples`, with at most `negatives` together, in an order that the order of commits cannot
change: by sha256(seed, query_id), which is a simple random sample, or the hardest first. A larger cap only adds.

Rounds add up: what an earlier round took stays, so that a model does not forget, and the caps hold for each round
alone. A query that a later change touched belongs to the later round, with the labels that it has then.

Two passes, so that memory holds one short record an example, not its texts:

    chosen = choose(map(size_of, first_pass), limits)
    for example in second_pass: taken(example, chosen)
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from qrelay.identity import digest
from qrelay.labels.examples import Example
from qrelay.ranks import current_model, rank_of

RANDOM: Final = "random"
HARDEST: Final = "hardest"
_UNRANKED: Final = 1000.0
"""Counts as the rank where the current model gave none."""


@dataclass(frozen=True, slots=True)
class RoundLimits:
    """What one round takes at most. 0: no limit."""

    examples: int = 0
    negatives: int = 0
    """Of all its examples together, hard and easy."""
    order: Literal["random", "hardest"] = RANDOM
    seed: int = 0
    """Of the random order."""

    @property
    def bounded(self) -> bool:
        """Whether there is a limit."""
        return bool(self.examples or self.negatives)


class ExampleSize(NamedTuple):
    """What the choice needs of an example. `hard`: hard negatives among its `negatives`; `mean_rank`: of the hard
    ones, by the current model, from 1."""

    query_id: str
    negatives: int
    hard: int
    mean_rank: float


def size_of(example: Example) -> ExampleSize:
    """An example's record for `choose`."""
    verdicts = (*example.positives, *example.negatives)
    system = current_model([verdict.judged.candidate for verdict in verdicts])
    ranks = [min(rank_of(each.judged.candidate, system), _UNRANKED) for each in example.negatives if each.hard]
    return ExampleSize(example.query.query_id, len(example.negatives), len(ranks), sum(ranks) / max(1, len(ranks)))


def choose(sizes: Iterable[ExampleSize], limits: RoundLimits) -> dict[str, int]:
    """query_id -> how many of its negatives the round takes, by query_id. The order of `sizes` does not matter.

    The example at which `negatives` is reached is cut short, never below one negative; those after it are left out.
    """
    chosen: dict[str, int] = {}
    left = limits.negatives
    for size in _first(sizes, limits):
        count = min(size.negatives, left) if limits.negatives else size.negatives
        if not count:
            break
        chosen[size.query_id] = count
        left -= count
    return dict(sorted(chosen.items()))


def taken(example: Example, chosen: Mapping[str, int]) -> Example:
    """What a round that has chosen so takes of the example: its first negatives, the hardest; or nothing."""
    count = chosen.get(example.query.query_id, 0)
    return replace(example, positives=example.positives if count else (), negatives=example.negatives[:count])


def _first(sizes: Iterable[ExampleSize], limits: RoundLimits) -> list[ExampleSize]:
    """At most as many as can be taken, in the order of the choice: an example takes one negative at least."""
    most = min((limit for limit in (limits.examples, limits.negatives) if limit), default=0)
    if not most:
        return sorted(sizes, key=lambda size: _order(size, limits))
    return heapq.nsmallest(most, sizes, key=lambda size: _order(size, limits))


def _order(size: ExampleSize, limits: RoundLimits) -> tuple[float, float, str]:
    if limits.order == HARDEST:
        return -size.hard, size.mean_rank, size.query_id
    return 0.0, 0.0, digest(str(limits.seed), size.query_id)
