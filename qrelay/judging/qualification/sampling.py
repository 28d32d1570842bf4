"""Which pairs people should grade: those that say most about the judge.

Half are the pairs that the judge is least sure of: there a grade moves the calibration's middle. Half are drawn
evenly over the range of P(relevant), for a map needs both its ends, and a judge that is wrong where it is sure shows
only there. No query gives more than its share, so that no topic stands for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from qrelay.formats.annotated_pairs import GradedPair
from qrelay.identity import digest

_STRATA = 10


@dataclass(frozen=True, slots=True)
class Judged:
    """A pair and its label: P(relevant) and the entropy of its grades, nats."""

    pair: GradedPair
    p_relevant: float
    entropy: float


def choose(judged: Sequence[Judged], n: int, *, seed: int = 0) -> list[GradedPair]:
    """`n` pairs, or all where there are fewer, by query and passage id; the same call gives the same pairs."""
    lot = sorted(judged, key=lambda each: digest(str(seed), each.pair.query_id, each.pair.passage_id))
    most = max(2, -(-2 * n // max(1, len({each.pair.query_id for each in judged}))))
    taken: dict[tuple[str, str], GradedPair] = {}
    counts: Counter[str] = Counter()
    _take(sorted(lot, key=lambda each: abs(each.p_relevant - 0.5)), n // 2, taken, counts, most)
    _take(_evenly(lot), n, taken, counts, most)
    _take(lot, n, taken, counts, len(judged))
    return [taken[key] for key in sorted(taken)]


def _take(
    queue: Sequence[Judged], until: int, taken: dict[tuple[str, str], GradedPair], counts: Counter[str], most: int
) -> None:
    """Take from the queue until `until` pairs are taken, at most `most` of a query."""
    for each in queue:
        key = (each.pair.query_id, each.pair.passage_id)
        if len(taken) >= until:
            return
        if key not in taken and counts[key[0]] < most:
            taken[key] = each.pair
            counts[key[0]] += 1


def _evenly(lot: Sequence[Judged]) -> list[Judged]:
    """The pairs so ordered that the strata of P(relevant) take turns."""
    strata: list[list[Judged]] = [[] for _ in range(_STRATA)]
    for each in lot:
        strata[min(_STRATA - 1, int(each.p_relevant * _STRATA))].append(each)
    longest = max(map(len, strata), default=0)
    return [stratum[i] for i in range(longest) for stratum in strata if i < len(stratum)]
