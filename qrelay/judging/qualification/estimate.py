"""How much is relevant in all that was judged, when people graded only a part of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qrelay.errors import InputError
from qrelay.judging.qualification.systems import System
from qrelay.judging.qualification.table import Table
from qrelay.stats.powered import powered_mean


def relevant_share(table: Table, system: System) -> dict[str, Any]:
    """The mean share of relevant passages a query, with a prediction-powered interval and beside it the classical
    one, which uses people's grades alone. The unit is the query: those whose every pair people graded, and the rest.

    Raises:
        InputError: the system has no P(relevant), or fewer than three queries graded in whole, or no other.
    """
    if system.predictions is None:
        raise InputError(f"{system.name} has no calibrated P(relevant): give --calibration, or let it cross-validate")
    graded = np.isin(np.arange(len(table.pairs)), table.graded)
    whole = np.array([graded[table.queries == query].all() for query in np.unique(table.queries)])
    p, relevant = system.predictions.p, table.relevant.astype(np.float64)
    means = [_means(column, table.queries) for column in (relevant, p)]
    labels, predictions, rest = means[0][whole], means[1][whole], means[1][~whole]
    if len(labels) < 3 or not len(rest):
        raise InputError(
            f"{len(labels)} queries are graded in whole and {len(rest)} are not: have 3 or more, and others,"
            " from --rest"
        )
    powered = powered_mean(labels, predictions, rest)
    return {
        "system": system.name,
        "queries_graded": len(labels),
        "queries_judged_only": len(rest),
        "share_relevant": powered.interval.estimate,
        "interval": [powered.interval.low, powered.interval.high],
        "people_only": [powered.people_only.low, powered.people_only.high],
    }


def _means(column: NDArray[np.float64], queries: NDArray[np.str_]) -> NDArray[np.float64]:
    return np.array([np.nanmean(column[queries == query]) for query in np.unique(queries)])
