"""Two judges on the same annotated pairs: which knows more of what people say, and whether by chance.

By query throughout: whole queries are drawn anew for both judges at once, as pairs of one query are not independent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qrelay.errors import InputError
from qrelay.judging.qualification.table import Table, missing_count
from qrelay.stats.agreement import auc, kappa
from qrelay.stats.intervals import paired_bootstrap
from qrelay.stats.paired import compare

Statistic = Callable[[NDArray[np.int64]], float]


def compared(table: Table, one: str, other: str) -> dict[str, Any]:
    """The figures of both judges on the pairs that both graded, and how they differ, `one` less `other`: AUC,
    within-query AUC and kappa (of decisions by P(relevant) of at least a half), each with a 95 % interval and the
    one-sided p of `one` being no better; within queries the two-sided p of Fisher's randomisation test too.

    Raises:
        InputError: no pair has a grade of people's and of both judges.
    """
    rows = table.graded[_known(table, one)[table.graded] & _known(table, other)[table.graded]]
    if not len(rows):
        raise InputError("no annotated pair has a label of both judges: see what `qrelay judge eval` says is missing")
    measures = [
        _resampled("auc", table, rows, lambda name: _auc(table, rows, name), (one, other)),
        _within(table, rows, one, other),
        _resampled("kappa", table, rows, lambda name: _kappa(table, rows, name), (one, other)),
    ]
    return {
        "a": one,
        "b": other,
        "pairs": len(rows),
        "queries": len(set(table.queries[rows])),
        "relevant": int(table.relevant[rows].sum()),
        "relevant_from": table.relevant_from,
        "missing": {name: missing_count(table.labels[name]) for name in (one, other)},
        "tokens": {name: table.cost(name) for name in (one, other)},
        "measures": measures,
    }


def _known(table: Table, name: str) -> NDArray[np.bool_]:
    return ~np.isnan(table.column(name))


def _auc(table: Table, rows: NDArray[np.int64], name: str) -> Statistic:
    y, score = table.relevant[rows], table.column(name)[rows]
    return lambda drawn: auc(y[drawn], score[drawn])


def _kappa(table: Table, rows: NDArray[np.int64], name: str) -> Statistic:
    y, said = table.relevant[rows], table.own_decision(name)[rows]
    return lambda drawn: kappa(y[drawn], said[drawn])


def _resampled(
    measure: str, table: Table, rows: NDArray[np.int64], of: Callable[[str], Statistic], names: tuple[str, str]
) -> dict[str, Any]:
    first, second = map(of, names)
    test, everything = paired_bootstrap(first, second, table.queries[rows]), np.arange(len(rows))
    return {
        "measure": measure,
        "a": first(everything),
        "b": second(everything),
        "difference": test.difference,
        "ci": [test.low, test.high],
        "p": test.p_value,
    }


def _within(table: Table, rows: NDArray[np.int64], one: str, other: str) -> dict[str, Any]:
    """AUC of each query that has relevant passages and others, and what the mean of these differs by."""
    queries, y = table.queries[rows], table.relevant[rows]
    mixed = [each for each in np.unique(queries) if len(set(y[queries == each])) == 2]
    found: dict[str, Any] = dict.fromkeys(("a", "b", "difference", "p", "p_fisher"), float("nan"))
    found |= {"measure": "auc_within_query", "ci": [float("nan")] * 2, "by_query": {}}
    if not mixed:
        return found
    a, b = (_by_query(table.column(name)[rows], y, queries, mixed) for name in (one, other))
    (test,) = compare({"auc": b}, {"auc": a})
    by_query = {str(each): [float(x), float(z)] for each, x, z in zip(mixed, a, b, strict=True)}
    found |= {"a": test.new, "b": test.old, "difference": test.difference, "ci": [test.low, test.high]}
    return found | {"p": test.p_bootstrap, "p_fisher": test.p_fisher, "by_query": by_query}


def _by_query(
    score: NDArray[np.float64], y: NDArray[np.bool_], queries: NDArray[np.str_], mixed: list[str]
) -> NDArray[np.float64]:
    return np.array([auc(y[queries == each], score[queries == each]) for each in mixed])
