"""What two systems differ by, and whether by chance: paired tests over queries.

tests = compare({"RR@5": old}, {"RR@5": new})      # arrays [queries], paired
tests[0].difference, tests[0].p_fisher_holm
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from qrelay.errors import InputError
from qrelay.stats.intervals import percentile_interval

Floats = npt.NDArray[np.float64]
_RESAMPLES: Final = 10_000
_BLOCK: Final = 500
_NOISE: Final = 1e-12
"""Differences of means nearer to each other than this are the rounding of a sum."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems by one measure, paired by query. difference: of the means, new less old; relative: its share of the
    old mean, nan where that is 0; low, high: 95% interval by bootstrap; p_bootstrap: one-sided, of the new being no
    better; p_fisher: two-sided, Fisher's randomisation test; *_holm: the same, corrected for all measures that were
    compared with it; wins, losses, ties: queries."""

    measure: str
    old: float
    new: float
    difference: float
    relative: float
    low: float
    high: float
    p_bootstrap: float
    p_fisher: float
    wins: int
    losses: int
    ties: int
    p_bootstrap_holm: float = float("nan")
    p_fisher_holm: float = float("nan")


def compare(
    old: Mapping[str, Floats], new: Mapping[str, Floats], *, seed: int = 0, n: int = _RESAMPLES
) -> list[Comparison]:
    """Both tests for every measure of both; columns [queries] in one order of queries.

    Raises:
        InputError: no measure is in both, no query, or columns of different lengths.
    """
    names = [name for name in new if name in old]
    if not names:
        raise InputError(f"no measure is in both: the old has {', '.join(old)}, the new {', '.join(new)}")
    if len({len(column) for name in names for column in (old[name], new[name])}) != 1 or not len(new[names[0]]):
        raise InputError("the two have different numbers of queries, or none: measure both on the same queries")
    differences = np.array([new[name] - old[name] for name in names])
    bootstrap = bootstrap_means(differences, n=n, seed=seed)
    fisher = [randomisation_test(row, n=n, seed=seed) for row in differences]
    one_sided = [_no_better(row) for row in bootstrap]
    corrected = zip(holm(one_sided), holm(fisher), strict=True)
    return [
        _comparison(name, old[name], new[name], bootstrap[i], one_sided[i], fisher[i], both)
        for i, (name, both) in enumerate(zip(names, corrected, strict=True))
    ]


def _comparison(
    name: str,
    old: Floats,
    new: Floats,
    draws: Floats,
    p_bootstrap: float,
    p_fisher: float,
    corrected: tuple[float, float],
) -> Comparison:
    better, worse = int((new > old).sum()), int((new < old).sum())
    before, difference = float(old.mean()), float((new - old).mean())
    low, high = percentile_interval(draws)
    return Comparison(
        measure=name,
        old=before,
        new=float(new.mean()),
        difference=difference,
        relative=difference / before if before else float("nan"),
        low=low,
        high=high,
        p_bootstrap=p_bootstrap,
        p_fisher=p_fisher,
        wins=better,
        losses=worse,
        ties=len(old) - better - worse,
        p_bootstrap_holm=corrected[0],
        p_fisher_holm=corrected[1],
    )


def bootstrap_means(rows: Floats, *, n: int = _RESAMPLES, seed: int = 0) -> Floats:
    """Means of each row over `n` samples of its columns with replacement, the same columns for all rows: [rows, n];
    [rows, 0] where there are fewer than two columns (Efron and Tibshirani 1993, chapter 13; for systems paired by
    query Sakai, SIGIR 2006). The generator and the draws are those of `qrelay.stats.intervals.paired_bootstrap`."""
    queries = rows.shape[1]
    if queries < 2:
        return np.empty((len(rows), 0))
    random = np.random.default_rng(seed)
    blocks = [rows[:, random.integers(0, queries, (size, queries))].mean(axis=2) for size in _sizes(n, _BLOCK)]
    return np.concatenate(blocks, axis=1)


def _no_better(draws: Floats) -> float:
    """(1 + resamples with a difference of at most 0) / (1 + resamples) (Davison and Hinkley 1997, chapter 4)."""
    return (1 + int((draws <= _NOISE).sum())) / (1 + len(draws))


def randomisation_test(differences: Floats, *, n: int = _RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of Fisher's randomisation test: how often a mean as far from 0 comes about when each query's
    two values are swapped by a coin (Smucker, Allan, Carterette, CIKM 2007). Exact where there are at most `n`
    assignments of coins; otherwise (1 + as far) / (1 + n) over `n` random ones."""
    observed = abs(differences.sum()) - _NOISE
    queries = len(differences)
    if queries < 63 and 2**queries <= n:
        all_signs = (np.arange(2**queries)[:, None] >> np.arange(queries) & 1) * 2 - 1
        return float((np.abs(all_signs @ differences) >= observed).mean())
    random = np.random.default_rng(seed)
    as_far = 0
    for size in _sizes(n, _BLOCK):
        signs = random.integers(0, 2, (size, queries), dtype=np.int8) * 2.0 - 1.0
        as_far += int((np.abs(signs @ differences) >= observed).sum())
    return (1 + as_far) / (1 + n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for as many tests as there are (Scandinavian Journal of Statistics 6, 1979): a
    value under alpha is significant with all of them tried. In the order given."""
    many = len(p_values)
    corrected, worst = [0.0] * many, 0.0
    for step, i in enumerate(sorted(range(many), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (many - step) * p_values[i]))
        corrected[i] = worst
    return corrected


def _sizes(n: int, block: int) -> Iterator[int]:
    yield from (min(block, n - start) for start in range(0, n, block))
