"""What a cascade of two systems would have done with the pairs of a table: how much goes up, and what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qrelay.errors import InputError
from qrelay.judging.escalation import simulate
from qrelay.judging.qualification.systems import Evaluation, System
from qrelay.stats.agreement import kappa

MAX_ERRORS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


def cascade_figures(
    evaluation: Evaluation, small: str, large: str, *, audit: float, max_errors: Sequence[float] = MAX_ERRORS
) -> list[dict[str, Any]]:
    """One row an error limit: the share of pairs that the large side is asked about, agreement with it, and binary
    kappa with people of the cascade and of both sides alone. Decisions are calibrated ones.

    Raises:
        InputError: no such system, or one without a map.
    """
    below, above = _system(evaluation, small), _system(evaluation, large)
    assert below.predictions is not None  # for the type checker: see _system
    assert above.predictions is not None
    table = evaluation.table
    known = ~np.isnan(below.predictions.p) & ~np.isnan(above.predictions.p)
    rows = table.graded[known[table.graded]]
    people, p = table.relevant[rows], below.predictions.p[rows].tolist()
    said_below, said_above = below.predictions.relevant[rows].tolist(), above.predictions.relevant[rows].tolist()
    keys = [f"{table.pairs[row].query_id} {table.pairs[row].passage_id}" for row in rows]
    found = []
    for limit in max_errors:
        outcome = simulate(p, said_below, said_above, limit, audit, keys)
        found.append(
            {
                "small": small,
                "large": large,
                "max_error": limit,
                "share_escalated": outcome.share_escalated,
                "agreement": outcome.agreement,
                "kappa": kappa(people, np.asarray(outcome.decisions, np.bool_)),
                "kappa_small": kappa(people, said_below),
                "kappa_large": kappa(people, said_above),
            }
        )
    return found


def _system(evaluation: Evaluation, name: str) -> System:
    system = evaluation.systems.get(name)
    if system is None or system.predictions is None:
        known = ", ".join(each.name for each in evaluation.systems.values() if each.predictions is not None)
        raise InputError(
            f"a cascade needs two systems with calibrated labels, not {name}: there are {known or 'none'}"
        )
    return system
