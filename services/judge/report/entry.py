"""One system's entry of a report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qrelay.errors import InputError


def measure_system(
    labels_binary: ArrayLike,
    grades: ArrayLike,
    raw_score: ArrayLike,
    p_before: ArrayLike | None,
    p_after: ArrayLike | None,
    predicted_binary: ArrayLike,
    predicted_grade: ArrayLike,
    groups: ArrayLike,
) -> dict[str, Any]:
    """The figures of one system beside people's labels; every column is [n], one value a pair.

    labels_binary, grades: people's. raw_score: what ranks, nan where the system's label is missing: such rows are
    left out and counted in "missing". p_before, p_after: P(relevant) before and after calibration, None where there
    is none. predicted_*: the system's decisions. groups: query ids. Intervals: 95%, bootstrap over queries.

    What the figures cannot know ("inputs", "uses_stage_scores", "tokens") the caller adds.

    Raises:
        InputError: columns that do not fit, or no row with a score.
    """
    from services.judge.measure.figures import calibrated, decisions, grading, ranking

    score = np.asarray(raw_score, np.float64)
    columns = [labels_binary, grades, predicted_binary, predicted_grade, groups]
    y, people, said, grade, queries = (_same(each, len(score)) for each in columns)
    there = np.flatnonzero(~np.isnan(score))
    if not len(there):
        raise InputError("no row has a score: the system judged none of the pairs, see why its labels are missing")
    before, after = (
        None if p is None else np.asarray(_same(p, len(score))[there], float) for p in (p_before, p_after)
    )
    y, said = y[there].astype(bool), said[there].astype(bool)
    return {
        **ranking(y, score[there], queries[there]),
        **decisions(y, said, queries[there]),
        **grading(people[there], grade[there]),
        **calibrated(y, before, after),
        "missing": len(score) - len(there),
    }


def _same(column: ArrayLike, rows: int) -> Any:
    found = np.asarray(column)
    if found.shape != (rows,):
        raise InputError(f"a column of shape {found.shape} beside {rows} scores: give every column one value a row")
    return found
