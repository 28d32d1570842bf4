"""Nugget scores: the share of a query's nuggets that a text supports.

    all, vital, weighted   a partly supported nugget counts 0.5; weighted: an okay nugget weighs half a vital one
    *_strict               a partly supported nugget counts 0
    expected               as `all`, by the probabilities instead of the likeliest assignment

A text whose nuggets were not all assigned has no score, and neither has one whose query has no such nuggets: missing,
never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from qrelay.judging.nuggets.records import OKAY, VITAL, Assigned, Assignment
from qrelay.types import Missing

MEASURES: Final = ("all", "all_strict", "vital", "vital_strict", "weighted", "weighted_strict", "expected")
_CREDIT: Final = {"support": 1.0, "partial_support": 0.5, "not_support": 0.0}
_WEIGHTS: Final[Mapping[str, Mapping[str, float]]] = {
    "all": {VITAL: 1.0, OKAY: 1.0, "": 1.0},
    "vital": {VITAL: 1.0, OKAY: 0.0},
    "weighted": {VITAL: 1.0, OKAY: 0.5},
}
"""By importance; where one is unknown and has no weight, there is no such score."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A text's scores by measure; None: there is none. missing: why all are None."""

    query_id: str
    run_id: str
    text_id: str
    values: Mapping[str, float | None]
    missing: Missing | None = None


def scored(found: Assignment) -> Scored:
    """The scores of one text."""
    missing = found.missing or next((each.missing for each in found.nuggets if not each.assignment), None)
    ids = (found.query_id, found.run_id, found.text_id)
    if missing or not found.nuggets:
        return Scored(*ids, dict.fromkeys(MEASURES), missing or Missing("skipped", "no nuggets"))
    values: dict[str, float | None] = {}
    for name, weights in _WEIGHTS.items():
        values[name] = _mean(found.nuggets, weights, strict=False)
        values[f"{name}_strict"] = _mean(found.nuggets, weights, strict=True)
    return Scored(*ids, {**values, "expected": _expected(found.nuggets)})


def means(rows: Iterable[Scored]) -> dict[str, dict[str, float | None]]:
    """run -> the mean of each measure over its texts that have one."""
    runs: dict[str, list[Scored]] = {}
    for each in rows:
        runs.setdefault(each.run_id, []).append(each)
    return {run: {name: _known_mean(each.values[name] for each in held) for name in MEASURES}
            for run, held in sorted(runs.items())}  # fmt: skip


def _mean(nuggets: Iterable[Assigned], weights: Mapping[str, float], *, strict: bool) -> float | None:
    held = [(weights.get(each.nugget.importance), each) for each in nuggets]
    known = [(weight, each) for weight, each in held if weight is not None]
    total = sum(weight for weight, _ in known)
    if len(known) < len(held) or not total:
        return None
    return sum(weight * _credit(each.assignment, strict) for weight, each in known) / total


def _credit(assignment: str, strict: bool) -> float:
    credit = _CREDIT[assignment]
    return float(int(credit)) if strict else credit


def _expected(nuggets: Iterable[Assigned]) -> float | None:
    held = [each.probabilities for each in nuggets]
    if not all(held):
        return None
    return fmean(sum(grade * p for grade, p in enumerate(each)) / (len(each) - 1) for each in held)


def _known_mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
