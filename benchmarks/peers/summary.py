"""What turns say: rates, ratios to one way with intervals, agreement and AUC on the pairs that two ways judged."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.material import Label
from benchmarks.references.turns import median_interval
from qrelay.stats.agreement import auc

MACHINE_HOUR, MILLION_TOKENS = 0.10, 0.15
"""Prices, in any currency: of a two-core machine's hour and of a million prompt tokens. An example."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One way's turn of one round."""

    way: str
    number: int
    """0: the round that is thrown away."""
    queries: int
    seconds: float
    cpu_seconds: Mapping[str, float]
    """By process."""
    labels: Sequence[Label]


def rows(turns: Sequence[Turn], base: str, *, hosted: bool) -> list[dict[str, Any]]:
    """A row a way, in their order. hosted: prompt tokens cost."""
    ways = list(dict.fromkeys(turn.way for turn in turns))
    by_way = {way: {turn.number: turn for turn in turns if turn.way == way and turn.number} for way in ways}
    return [_row(way, by_way[way], by_way.get(base, {}), hosted) for way in ways if by_way[way]]


def _row(way: str, turns: Mapping[int, Turn], base: Mapping[int, Turn], hosted: bool) -> dict[str, Any]:
    seconds, labels = sum(t.seconds for t in turns.values()), sum(len(t.labels) for t in turns.values())
    tokens = sum(label.tokens for t in turns.values() for label in t.labels)
    spent: Counter[str] = Counter()
    for turn in turns.values():
        spent.update(turn.cpu_seconds)
    cost = seconds / 3600 * MACHINE_HOUR + (tokens / 1e6 * MILLION_TOKENS if hosted else 0.0)
    shared = sorted(turns.keys() & base.keys())
    ratios = [_rate(turns[number]) / _rate(base[number]) for number in shared]
    low, high = median_interval(ratios) if len(ratios) > 1 else (None, None)
    return {
        "way": way,
        "queries/h": 3600 * sum(t.queries for t in turns.values()) / seconds,
        "labels/h": 3600 * labels / seconds,
        "CPU-s a label": spent.total() / labels if labels else None,
        "cost of 1,000 labels": 1000 * cost / labels if labels else None,
        "queries/h, ratio": statistics.median(ratios) if ratios else None,
        "low": low,
        "high": high,
        "CPU of": ", ".join(f"{name} {share / spent.total():.0%}" for name, share in spent.most_common(3)),
    }


def _rate(turn: Turn) -> float:
    return turn.queries / turn.seconds


def agreement(
    one: Sequence[Label], other: Sequence[Label], right: Mapping[tuple[str, str], bool | None]
) -> dict[str, Any]:
    """Two ways on the pairs that both judged: the share of equal decisions (p of at least 0.5), and each one's AUC
    against the key. right: by (query, passage)."""
    a, b = ({(each.query_id, each.passage_id): each.p for each in labels} for labels in (one, other))
    pairs = sorted(a.keys() & b.keys())
    known = [pair for pair in pairs if right.get(pair) is not None]
    truth = [bool(right[pair]) for pair in known]
    both = any(truth) and not all(truth)
    return {
        "pairs": len(pairs),
        "equal": statistics.fmean((a[pair] >= 0.5) == (b[pair] >= 0.5) for pair in pairs) if pairs else None,
        "pairs read": len(known),
        "AUC": auc(truth, [a[pair] for pair in known]) if both else None,
        "AUC of the other": auc(truth, [b[pair] for pair in known]) if both else None,
    }
