"""From two systems' scores to one list: top k, ranks, reciprocal rank fusion, ties.

Scores are rounded to `DECIMALS` before they are compared, and equal ones are ordered by passage id (as
doc_id, then number), so that float noise below the rounding cannot reorder an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DECIMALS: Final = 5
_SLACK: Final = 4 * 10.0**-DECIMALS
"""How far below the k-th best float32 score a row may still belong to the top k once it is rounded."""


@dataclass(frozen=True, slots=True)
class Depths:
    """How many passages each system proposes, and the fusion's constant, in ranks."""

    bm25: int = 200
    dense: int = 100
    rrf_k: int = 60


@dataclass(frozen=True, slots=True)
class Fused:
    """The fused list, best first; all arrays [n]. A rank of 0: scored, not in that system's own top k."""

    rows: Ints
    bm25: Floats
    bm25_rank: Ints
    dense: Floats
    dense_rank: Ints


def near_top(scores: NDArray[np.float32], k: int, *, positive: bool = False) -> Ints:
    """Rows that may be among the k best of `scores` [n] once scores are exact and ties are broken: at
    least k where there are as many. positive: only rows with a score above 0."""
    if positive:
        rows = np.flatnonzero(scores > 0)
        return rows[near_top(scores[rows], k)]
    if k >= len(scores):
        return np.arange(len(scores))
    cut = float(np.partition(scores, len(scores) - k)[len(scores) - k])
    return np.flatnonzero(scores >= cut - _SLACK * max(1.0, abs(cut)))


def ranks(scores: Floats, order: Ints, k: int, eligible: NDArray[np.bool_]) -> Ints:
    """Each row's rank from 1 among the eligible, 0 beyond the k best; equal scores by `order`."""
    best = np.lexsort((order, -scores, ~eligible))[: min(k, int(eligible.sum()))]
    found = np.zeros(len(scores), np.int64)
    found[best] = np.arange(1, len(best) + 1)
    return found


def fuse(rows: Ints, bm25: Floats, dense: Floats, order: Ints, depths: Depths, limit: int) -> Fused:
    """The `limit` best of `rows` by reciprocal rank fusion: sum over systems of 1 / (k + rank).

    Cormack, Clarke and Büttcher, SIGIR 2009. Rows in neither top list are dropped.
    """
    bm25, dense = np.round(bm25, DECIMALS) + 0.0, np.round(dense, DECIMALS) + 0.0
    bm25_rank = ranks(bm25, order, depths.bm25, bm25 > 0)
    dense_rank = ranks(dense, order, depths.dense, np.ones(len(rows), np.bool_))
    fused = np.where(bm25_rank > 0, 1.0 / (depths.rrf_k + bm25_rank), 0.0)
    fused += np.where(dense_rank > 0, 1.0 / (depths.rrf_k + dense_rank), 0.0)
    best = np.lexsort((order, -fused))[: min(limit, int((fused > 0).sum()))]
    return Fused(rows[best], bm25[best], bm25_rank[best], dense[best], dense_rank[best])
