"""Measures of a run, a value a query, by ir-measures.

Values of queries that a run does not answer are 0, and every mean is over the queries of the qrels: a system cannot
win by leaving hard queries out. Ties of scores are broken as trec_eval does, for all measures alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qrelay.errors import InputError
from qrelay.formats.beir import Qrels, Run
from qrelay.formats.runs import ranked

STANDARD: Final = ("RR@5", "RR@10", "nDCG@5", "nDCG@10", "DCG@5", "P@5", "R@5", "R@100", "AP")
"""RR is MRR's term of one query."""
_DCG: Final = re.compile(r"DCG@[1-9]\d*")
Values = dict[str, npt.NDArray[np.float64]]
"""measure -> [queries], in the order of the sorted query ids."""


def per_query(qrels: Qrels, run: Run, measures: Sequence[str] = STANDARD, *, relevant_from: int = 1) -> Values:
    """Every measure of every query. relevant_from: the least grade that RR, P, R and AP call relevant, where a
    measure does not say its own (`P(rel=2)@5`).

    Raises:
        InputError: a measure that ir-measures does not know; it says which are.
    """
    import ir_measures

    order = {query_id: i for i, query_id in enumerate(sorted(qrels))}
    rankings = {query_id: ranked(run.get(query_id, {})) for query_id in order}
    values = {name: np.zeros(len(order)) for name in measures}
    known = {name: _measure(name, relevant_from) for name in values if not _DCG.fullmatch(name)}
    by_rank = {q: {doc_id: -float(i) for i, doc_id in enumerate(ranking)} for q, ranking in rankings.items()}
    found: dict[str, dict[str, float]] = {}
    for each in ir_measures.iter_calc(list(dict.fromkeys(known.values())), qrels, by_rank) if known else ():
        found.setdefault(str(each.measure), {})[each.query_id] = each.value
    for query_id, i in order.items():
        for name, column in values.items():
            if name in known:
                column[i] = found.get(str(known[name]), {}).get(query_id, 0.0)
            else:
                column[i] = dcg(qrels[query_id], rankings[query_id], int(name.removeprefix("DCG@")))
    return values


def dcg(grades: Mapping[str, int], ranking: Sequence[str], depth: int) -> float:
    """Discounted cumulative gain of one ranking: the sum of grade / log2(rank + 1) over the first `depth`, as
    trec_eval's ndcg has it before it is divided by the best possible (Järvelin and Kekäläinen, "Cumulated gain-based
    evaluation of IR techniques", TOIS 20(4), 2002; this discount: Burges et al., ICML 2005); ir-measures has only the
    quotient."""
    return sum(max(grades.get(doc_id, 0), 0) / math.log2(rank + 1) for rank, doc_id in enumerate(ranking[:depth], 1))


def _measure(name: str, relevant_from: int) -> Any:
    import ir_measures

    try:
        found = ir_measures.parse_measure(name)
    except (NameError, ValueError, SyntaxError, TypeError, AssertionError) as error:
        allowed = ", ".join(STANDARD)
        raise InputError(f"measure {name!r} is not known: use names of ir-measures, like {allowed}") from error
    if relevant_from != 1 and "rel" in found.SUPPORTED_PARAMS and "rel" not in found.params:
        return found(rel=relevant_from)
    return found
