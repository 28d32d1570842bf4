"""Do two sets of qrels order systems alike? The question that labels by an LLM must pass before they choose models.

    agreement(gold, llm, {"bm25": run, "base": run, "tuned": run})["measures"]["nDCG@10"]["tau"]

The queries are those that have a relevant document in both, so that both sides are means over the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qrelay.errors import InputError
from qrelay.formats.beir import Qrels, Run
from qrelay.stats.agreement import kappa
from qrelay.stats.intervals import percentile_interval
from qrelay.training.evaluation.measures import STANDARD, Values, per_query
from qrelay.training.evaluation.rankings import kendall_tau, kendall_taus, rbo, tau_ap

RBO_P: Final = 0.9
_RESAMPLES: Final = 1000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judged:
    """One side: qrels and the least grade that RR, P, R and AP call relevant."""

    qrels: Qrels
    relevant_from: int = 1


def agreement(
    a: Judged,
    b: Judged,
    runs: Mapping[str, Run],
    measures: Sequence[str] = STANDARD,
    *,
    rbo_p: float = RBO_P,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """How far the labels agree (`labels_agree`); for each measure the systems' means and ranks under both, tau with
    its 95% interval (queries drawn anew, the same for both sides), tau_AP (a is the reference) and rank-biased
    overlap. `runs`: by the systems' names. Systems that tie are ordered by name; `tied_pairs` counts them.

    Raises:
        InputError: fewer than two systems, no common query, an unknown measure.
    """
    if len(runs) < 2:
        raise InputError(f"{len(runs)} system: to compare orders of systems give at least two runs or models")
    queries = _common(a, b)
    sides = [_values(side, queries, runs, measures) for side in (a, b)]
    rows = _resampled(len(queries), resamples, seed)
    return {
        "queries": len(queries),
        "queries_a": len(_answerable(a)),
        "queries_b": len(_answerable(b)),
        "labels": labels_agree(a, b),
        "rbo_p": rbo_p,
        "measures": {
            name: _one([np.array([values[name] for values in side]) for side in sides], list(runs), rows, rbo_p)
            for name in measures
        },
    }


def labels_agree(a: Judged, b: Judged) -> dict[str, Any]:
    """On the pairs that both judged: how many, Cohen's kappa of relevant or not, and of the grades with quadratic
    weights, which compares numbers and so asks for one scale. None where no pair is in both."""
    pairs = [
        (grade, b.qrels[query_id][doc_id])
        for query_id, grades in a.qrels.items()
        for doc_id, grade in grades.items()
        if doc_id in b.qrels.get(query_id, {})
    ]
    one, other = np.array(pairs, np.int64).reshape(-1, 2).T
    return {
        "pairs": len(pairs),
        "pairs_a": sum(map(len, a.qrels.values())),
        "pairs_b": sum(map(len, b.qrels.values())),
        "kappa": kappa(one >= a.relevant_from, other >= b.relevant_from) if pairs else None,
        "kappa_quadratic": kappa(one, other, "quadratic") if pairs else None,
    }


def _common(a: Judged, b: Judged) -> list[str]:
    found = sorted(_answerable(a) & _answerable(b))
    if not found:
        raise InputError("no query has a relevant document in both qrels: are they of one collection?")
    return found


def _answerable(side: Judged) -> set[str]:
    return {
        query_id
        for query_id, grades in side.qrels.items()
        if any(grade >= side.relevant_from for grade in grades.values())
    }


def _values(side: Judged, queries: Sequence[str], runs: Mapping[str, Run], measures: Sequence[str]) -> list[Values]:
    """One a system."""
    qrels = {query_id: side.qrels[query_id] for query_id in queries}
    return [per_query(qrels, run, measures, relevant_from=side.relevant_from) for run in runs.values()]


def _resampled(queries: int, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, queries, (resamples, queries))


def _one(sides: Sequence[Floats], names: Sequence[str], rows: npt.NDArray[np.int64], rbo_p: float) -> dict[str, Any]:
    """sides: [systems, queries] each."""
    means = [side.mean(axis=1) for side in sides]
    orders = [_order(names, mean) for mean in means]
    draws = kendall_taus(*(np.array([system[rows].mean(axis=1) for system in side]).T for side in sides))
    low, high = percentile_interval(draws)
    return {
        "tau": _known(kendall_tau(means[0].tolist(), means[1].tolist())),
        "tau_low": _known(low),
        "tau_high": _known(high),
        "tau_ap": tau_ap(orders[0], orders[1]),
        "rbo": rbo(orders[0], orders[1], rbo_p),
        "tied_pairs": [_tied(mean) for mean in means],
        "systems": [
            {
                "system": name,
                "a": float(means[0][i]),
                "b": float(means[1][i]),
                "rank_a": orders[0].index(name) + 1,
                "rank_b": orders[1].index(name) + 1,
            }
            for i, name in enumerate(names)
        ],
    }


def _order(names: Sequence[str], means: Floats) -> list[str]:
    return [name for _, name in sorted(zip((-means).tolist(), names, strict=True))]


def _tied(means: Floats) -> int:
    values = means.tolist()
    return sum(one == other for i, one in enumerate(values) for other in values[:i])


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
