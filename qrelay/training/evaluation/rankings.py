"""How alike two rankings are: Kendall's tau, tau_AP, rank-biased overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qrelay.errors import InputError

Floats = npt.NDArray[np.float64]


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-b (1945) of two scorings of the same items, by scipy: 1 the same order, -1 the reverse; nan where
    one scoring ties all."""
    from scipy import stats

    return float(stats.kendalltau(a, b).statistic)


def kendall_taus(a: Floats, b: Floats) -> Floats:
    """`kendall_tau` of each row of two arrays [draws, items]: [draws]."""
    items = a.shape[1]
    one, other = np.triu_indices(items, 1)
    of_a, of_b = np.sign(a[:, one] - a[:, other]), np.sign(b[:, one] - b[:, other])
    untied = np.sqrt(np.abs(of_a).sum(1) * np.abs(of_b).sum(1))
    with np.errstate(invalid="ignore"):
        found: Floats = (of_a * of_b).sum(1) / untied
    return found


def tau_ap(reference: Sequence[Any], estimate: Sequence[Any]) -> float:
    """Rank correlation that weighs the top more: 2 / (n - 1) * sum over ranks i from 2 of C(i) / (i - 1), less 1;
    C(i): items above rank i of `estimate` that also stand above its item in `reference` (Yilmaz, Aslam and
    Robertson, SIGIR 2008). Both are the same items, best first; it is not symmetric.

    Raises:
        InputError: other items in one than in the other, or fewer than two.
    """
    if sorted(map(str, reference)) != sorted(map(str, estimate)) or len(set(reference)) != len(reference):
        raise InputError("tau_AP compares two orders of the same items")
    if len(reference) < 2:
        raise InputError("tau_AP needs at least two items")
    place = {item: i for i, item in enumerate(reference)}
    total = 0.0
    for i in range(1, len(estimate)):
        above = sum(place[other] < place[estimate[i]] for other in estimate[:i])
        total += above / i
    return 2.0 * total / (len(estimate) - 1) - 1.0


def rbo(a: Sequence[Any], b: Sequence[Any], p: float = 0.9) -> float:
    """Rank-biased overlap, extrapolated: equation 32 of Webber, Moffat and Zobel, "A similarity measure for
    indefinite rankings", TOIS 28(4), 2010. 0 nothing in common, 1 the same. Lists of any lengths, best first,
    without repeats. p, between 0 and 1: how deep one looks; the first d ranks weigh more the smaller it is.

    Raises:
        InputError: p out of range, an item twice in a list, or an empty list.
    """
    if not 0.0 < p < 1.0:
        raise InputError(f"p is {p}: give a number between 0 and 1, such as 0.9")
    short, long = sorted((list(a), list(b)), key=len)
    if not short or any(len(set(each)) != len(each) for each in (short, long)):
        raise InputError("rank-biased overlap needs two rankings that are not empty and name each item once")
    s, n = len(short), len(long)
    overlap = [len(set(short[:d]) & set(long[:d])) for d in range(n + 1)]
    seen = sum(overlap[d] / d * p**d for d in range(1, n + 1))
    beyond_short = sum(overlap[s] * (d - s) / (s * d) * p**d for d in range(s + 1, n + 1))
    beyond_both = ((overlap[n] - overlap[s]) / n + overlap[s] / s) * p**n
    return (1 - p) / p * (seen + beyond_short) + beyond_both
