"""Measures of a run, a value a query, by ir-measures, and what two runs differ by.

Values of queries that a run does not answer are 0, and every mean is over the queries of the qrels: a system cannot win
by leaving hard queries out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qrelay.errors import InputError
from qrelay.stats.intervals import paired_bootstrap
from trainer.evaluation.collection import Qrels, Run

STANDARD: Final = ("RR@5", "RR@10", "nDCG@5", "nDCG@10", "DCG@5", "P@5", "R@5", "R@100", "AP")
"""RR is MRR's term of one query."""
_DCG: Final = re.compile(r"DCG@\d+")
_RESAMPLES: Final = 10_000
Values = dict[str, npt.NDArray[np.float64]]
"""measure -> [queries], in the order of the sorted query ids."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems by one measure, paired by query. difference: of the means, new less old; relative: its share of the
    old mean; low, high: 95% interval by bootstrap; p_bootstrap: one-sided, of the new being no better; p_fisher:
    two-sided, Fisher's randomisation test; wins, losses, ties: queries."""

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


def per_query(qrels: Qrels, run: Run, measures: Sequence[str] = STANDARD) -> Values:
    """Every measure of every query.

    Raises:
        InputError: a measure that ir-measures does not know; it says which are.
    """
    import ir_measures

    order = {query_id: i for i, query_id in enumerate(sorted(qrels))}
    known = {name: _measure(name) for name in measures if not _DCG.fullmatch(name)}
    names = {str(measure): name for name, measure in known.items()}
    values = {name: np.zeros(len(order)) for name in measures}
    for found in ir_measures.iter_calc(list(known.values()), qrels, run):
        values[names[str(found.measure)]][order[found.query_id]] = found.value
    for name in set(measures) - known.keys():
        depth = int(name.removeprefix("DCG@"))
        for query_id, i in order.items():
            values[name][i] = dcg(qrels[query_id], run.get(query_id, {}), depth)
    return values


def dcg(grades: Mapping[str, int], scores: Mapping[str, float], depth: int) -> float:
    """Discounted cumulative gain of one query with the grade as gain, as trec_eval's ndcg has it before it is divided
    by the best possible (Järvelin and Kekäläinen 2002); ir-measures has only the quotient."""
    ranked = sorted(scores, key=lambda doc_id: (-scores[doc_id], doc_id))[:depth]
    return sum(max(grades.get(doc_id, 0), 0) / math.log2(rank + 1) for rank, doc_id in enumerate(ranked, 1))


def _measure(name: str) -> Any:
    import ir_measures

    try:
        return ir_measures.parse_measure(name)
    except (NameError, ValueError, SyntaxError) as error:
        allowed = ", ".join(STANDARD)
        raise InputError(f"measure {name!r} is not known: use names of ir-measures, like {allowed}") from error


def compare(name: str, old: npt.NDArray[np.float64], new: npt.NDArray[np.float64], *, seed: int = 0) -> Comparison:
    """Both tests on the same queries."""
    queries = np.arange(len(old))
    test = paired_bootstrap(
        lambda rows: float(new[rows].mean()), lambda rows: float(old[rows].mean()), queries, n=_RESAMPLES, seed=seed
    )
    better, worse = int((new > old).sum()), int((new < old).sum())
    before = float(old.mean())
    return Comparison(
        measure=name,
        old=before,
        new=float(new.mean()),
        difference=test.difference,
        relative=test.difference / before if before else float("nan"),
        low=test.low,
        high=test.high,
        p_bootstrap=test.p_value,
        p_fisher=randomisation_test(new - old, seed=seed),
        wins=better,
        losses=worse,
        ties=len(old) - better - worse,
    )


def randomisation_test(differences: npt.NDArray[np.float64], *, n: int = _RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of Fisher's randomisation test: how often a mean as far from 0 comes about when each query's
    two values are swapped by a coin (Smucker, Allan, Carterette, CIKM 2007). (1 + as far) / (1 + n)."""
    observed = abs(differences.sum())
    random = np.random.default_rng(seed)
    as_far = 0
    for start in range(0, n, 1000):
        signs = random.integers(0, 2, (min(1000, n - start), len(differences)), dtype=np.int8) * 2 - 1
        as_far += int((np.abs(signs @ differences) >= observed - 1e-12).sum())
    return (1 + as_far) / (1 + n)


def wins_and_losses(
    ids: Sequence[str], old: npt.NDArray[np.float64], new: npt.NDArray[np.float64], n: int = 10
) -> Mapping[str, list[tuple[str, float, float]]]:
    """The `n` queries that gained and lost most: (query_id, old, new)."""
    order = np.argsort(new - old, kind="stable")
    rows = [(ids[i], float(old[i]), float(new[i])) for i in order]
    return {
        "losses": [row for row in rows[:n] if row[2] < row[1]],
        "wins": [row for row in reversed(rows[-n:]) if row[2] > row[1]],
    }
