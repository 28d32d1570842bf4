"""Qualification: what each judge may be used for, decided from figures on pairs that people graded.

A judge's labels train its student, the retriever. So the first demand on training labels is that the judge knows at
least what the student's best score knows: its AUC, overall and paired over queries, is not below it (lower bound of
the difference at least -`MARGIN`), nor is its AUC within queries, where the student learns. Beyond that:

    positives   what it calls relevant agrees with people: binary kappa >= `KAPPA`
    negatives   there is a threshold of P(relevant) below which few passages are relevant: the share's upper 95% bound
                is at most `FALSE_NEGATIVES` of the base rate; `NEGATIVE_BELOW` is the sink's own threshold
    gate        it can compare models: AUC >= `GATE_AUC` without leaning on the scores of the models it compares

`qualified` when its labels hold as they come, `calibrated_only` when they hold only through a fitted map (figures are
then of queries the map was not fitted on), else `not_qualified` with the figure that fell short. Without graded pairs
nothing is known, and that is the verdict: `unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qrelay.judging.qualification.systems import Evaluation, System
from qrelay.judging.qualification.table import Table
from qrelay.stats.agreement import kappa
from qrelay.stats.intervals import clopper_pearson

USES: Final = ("positives", "negatives", "gate")
QUALIFIED: Final = "qualified"
CALIBRATED_ONLY: Final = "calibrated_only"
NOT_QUALIFIED: Final = "not_qualified"
UNKNOWN: Final = "unknown"

MARGIN: Final = 0.02
KAPPA: Final = 0.4
NEGATIVE_BELOW: Final = 0.4
FALSE_NEGATIVES: Final = 0.5
THRESHOLDS: Final = (0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02)
GATE_AUC: Final = 0.8

Verdict = dict[str, Any]


def verdicts(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """System name -> its judge hash and a verdict a use, each with reason and numbers. Retrieval scores get none. A
    judge that a fitted map was applied to is there twice: as it is, and as "NAME, calibrated" with the map's hash."""
    found: dict[str, dict[str, Any]] = {}
    for name, system in evaluation.systems.items():
        if name in evaluation.table.stages:
            continue
        single = name in evaluation.table.labels
        first, *calibrated = system.judge_hashes or (None,)
        found[name] = {"judge": first, **_uses(evaluation, system, own=single)}
        mapped = {f"{name}, calibrated": hashed for hashed in calibrated}
        by_map = _uses(evaluation, system, own=False)
        found |= {shown: {"judge": hashed, **by_map} for shown, hashed in mapped.items()}
    return found


def _uses(evaluation: Evaluation, system: System, *, own: bool) -> dict[str, Verdict]:
    """The verdicts on a system's labels; own: as the judge gives them, else only as a map makes them."""
    knows = _knows_enough(evaluation, system)
    return {
        "positives": knows or _positives(evaluation, system, own=own),
        "negatives": knows or _negatives(evaluation, system, own=own),
        "gate": _gate(system, own=own),
    }


def unknown() -> Verdict:
    """The verdict without graded pairs."""
    return {"verdict": UNKNOWN, "reason": "no annotated pairs", "numbers": {}}


def _knows_enough(evaluation: Evaluation, system: System) -> Verdict | None:
    """Why its labels must not train, or None."""
    against = next((each for each in evaluation.comparisons if each["a"] == system.name), None)
    if against is None:
        return None
    best = evaluation.systems[evaluation.best_stage].metrics
    numbers = {
        "auc": system.metrics["auc"],
        f"auc {against['b']}": best["auc"],
        "difference_low": against["ci"][0],
        "auc_within_query": system.metrics["auc_within_query"],
        f"auc_within_query {against['b']}": best["auc_within_query"],
    }
    if against["difference"] < 0 or not against["ci"][0] >= -MARGIN:
        return _verdict(
            NOT_QUALIFIED,
            f"it may know less than its student: AUC {system.metrics['auc']:.3f}, {against['b']} {best['auc']:.3f} "
            f"(difference {against['difference']:+.3f}, at worst {against['ci'][0]:+.3f})",
            numbers,
        )
    if system.metrics["auc_within_query"] < best["auc_within_query"] - MARGIN:
        return _verdict(
            NOT_QUALIFIED,
            f"within a query it knows less than its student: AUC {system.metrics['auc_within_query']:.3f}, "
            f"{against['b']} {best['auc_within_query']:.3f}",
            numbers,
        )
    return None


def _positives(evaluation: Evaluation, system: System, *, own: bool) -> Verdict:
    raw = _own_kappa(evaluation.table, system.name) if own else None
    mapped = system.metrics["kappa_binary"] if system.predictions else None
    numbers = {"kappa_raw": raw, "kappa_calibrated": mapped, "kappa_needed": KAPPA}
    return _best_of(
        raw is not None and raw >= KAPPA, mapped is not None and mapped >= KAPPA, "kappa with people", numbers
    )


def _own_kappa(table: Table, name: str) -> float | None:
    """Binary kappa of a judge's own decisions with people's, over what it labelled; None where that is nothing."""
    rows = table.graded[~np.isnan(table.p_relevant(name)[table.graded])]
    return kappa(table.relevant[rows], table.own_decision(name)[rows]) if len(rows) else None


def _negatives(evaluation: Evaluation, system: System, *, own: bool) -> Verdict:
    table, rows = evaluation.table, evaluation.table.graded
    relevant = table.relevant[rows]
    most = FALSE_NEGATIVES * float(relevant.mean())
    raw = _safe(relevant, table.p_relevant(system.name)[rows], most) if own else None
    mapped = _safe(relevant, system.predictions.p[rows], most) if system.predictions else None
    numbers = {"base_rate": float(relevant.mean()), "most": most, "raw": raw, "calibrated": mapped}
    if raw and raw["below"] >= NEGATIVE_BELOW:
        return _verdict(QUALIFIED, _shown_safe(raw), numbers)
    if mapped:
        advice = "" if mapped["below"] >= NEGATIVE_BELOW else f"; set sink.negative_threshold to {mapped['below']}"
        return _verdict(CALIBRATED_ONLY, f"with a calibration map, {_shown_safe(mapped)}{advice}", numbers)
    return _verdict(NOT_QUALIFIED, "at every threshold too many of its negatives may be relevant", numbers)


def _safe(relevant: NDArray[np.bool_], p: NDArray[np.float64], most: float) -> dict[str, float] | None:
    """The highest threshold of P(relevant) below which the share of relevant rows is at most `most` by its upper
    Clopper-Pearson bound: the threshold, the rows below it, their share that is relevant, and the bound."""
    for below in THRESHOLDS:
        chosen = relevant[np.nan_to_num(p, nan=1.0) < below]
        n, k = len(chosen), int(chosen.sum())
        high = clopper_pearson(k, n).high
        if high <= most:
            return {"below": below, "n": n, "rate": k / n, "high": high}
    return None


def _shown_safe(found: Mapping[str, float]) -> str:
    return (
        f"{found['rate']:.1%} of the {found['n']} passages below P(relevant) {found['below']} are relevant (at most "
        f"{found['high']:.1%})"
    )


def _gate(system: System, *, own: bool) -> Verdict:
    numbers = {"auc": system.metrics["auc"], "auc_needed": GATE_AUC}
    if system.uses_stage_scores:
        return _verdict(NOT_QUALIFIED, "its labels lean on the scores of the systems that a gate compares", numbers)
    if not system.metrics["auc"] >= GATE_AUC:  # also refuses nan: grades of one class say nothing
        return _verdict(NOT_QUALIFIED, f"AUC {system.metrics['auc']:.3f} is not at least {GATE_AUC}", numbers)
    return _verdict(QUALIFIED if own else CALIBRATED_ONLY, f"AUC {system.metrics['auc']:.3f}", numbers)


def _best_of(raw: bool, mapped: bool, what: str, numbers: Mapping[str, Any]) -> Verdict:
    if raw:
        return _verdict(QUALIFIED, f"{what} holds for its labels as they come", numbers)
    if mapped:
        return _verdict(CALIBRATED_ONLY, f"{what} holds with a calibration map, not without", numbers)
    return _verdict(NOT_QUALIFIED, f"{what} falls short", numbers)


def _verdict(verdict: str, reason: str, numbers: Mapping[str, Any]) -> Verdict:
    return {"verdict": verdict, "reason": reason, "numbers": dict(numbers)}
