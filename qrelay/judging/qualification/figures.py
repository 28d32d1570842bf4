"""One system's figures beside people's grades."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qrelay.stats.agreement import auc, auc_within, confusion, kappa
from qrelay.stats.alpha import krippendorff_alpha
from qrelay.stats.calibration import brier, ece, reliability_curve
from qrelay.stats.intervals import cluster_bootstrap

Floats = NDArray[np.float64]


def ranking(relevant: NDArray[np.bool_], score: Floats, queries: NDArray[np.str_]) -> dict[str, Any]:
    """How a score [rows] ranks: AUC with a bootstrap over queries, and within queries."""
    interval = cluster_bootstrap(lambda rows: auc(relevant[rows], score[rows]), queries)
    within, counted = auc_within(relevant, score, queries)
    return {
        "auc": interval.estimate,
        "auc_ci": [interval.low, interval.high],
        "auc_within_query": within,
        "auc_within_query_n": counted,
    }


def decisions(relevant: NDArray[np.bool_], said: NDArray[np.bool_], queries: NDArray[np.str_]) -> dict[str, Any]:
    """How decisions [rows] agree with people's."""
    interval = cluster_bootstrap(lambda rows: kappa(relevant[rows], said[rows]), queries)
    return {"kappa_binary": interval.estimate, "kappa_binary_ci": [interval.low, interval.high]}


def grading(grades: NDArray[np.int64], said: NDArray[np.int64]) -> dict[str, Any]:
    """How grades [rows] agree with people's: kappa with quadratic weights and without, alpha, confusion."""
    scale = list(range(int(min(grades.min(), said.min())), int(max(grades.max(), said.max())) + 1))
    return {
        "kappa_graded": kappa(grades, said, weights="quadratic"),
        "kappa_four_point": kappa(grades, said),
        "alpha": krippendorff_alpha(grades, said),
        "confusion": {"grades": scale, "counts": confusion(grades, said, scale).tolist()},
    }


def calibrated(relevant: NDArray[np.bool_], before: Floats | None, after: Floats | None) -> dict[str, Any]:
    """ECE, Brier and the reliability curve of P(relevant) [rows] before and after the map."""
    found: dict[str, Any] = {"reliability": {}}
    for when, p in (("before", before), ("after", after)):
        found[f"ece_{when}"] = None if p is None else ece(relevant, p)
        found[f"brier_{when}"] = None if p is None else brier(relevant, p)
        curve = [] if p is None else reliability_curve(relevant, p)
        found["reliability"][when] = [list(each) for each in curve]
    return found
