"""What a reader should know before believing the figures, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from qrelay.reports.page import known

FEW_QUERIES: Final = 30
FEW_RELEVANT: Final = 30
WIDE: Final = 0.15
"""Width of an AUC's 95% interval from which two judges can hardly be told apart."""
UNCALIBRATED: Final = 0.1


def plain_warnings(report: Mapping[str, Any], focus: str) -> list[str]:
    """Warnings on the data, and on the system `focus`; empty where nothing is wrong."""
    return [*_on_data(report.get("data", {})), *_on_system(focus, report["systems"][focus])]


def _on_data(data: Mapping[str, Any]) -> Iterator[str]:
    n, queries, relevant = (int(data.get(key) or 0) for key in ("n", "queries", "relevant"))
    if queries < FEW_QUERIES:
        yield f"Only {queries} queries were graded: intervals are rough; {FEW_QUERIES} are better."
    if min(relevant, n - relevant) < FEW_RELEVANT:
        yield (
            f"Of {n} graded pairs {relevant} are relevant: figures rest on the rarer kind, of which "
            f"{FEW_RELEVANT} are the least to trust."
        )


def _on_system(name: str, system: Mapping[str, Any]) -> Iterator[str]:
    if system.get("uses_stage_scores"):
        yield (
            f"{name} reads retrieval scores: its labels lean on the retriever that they would train or compare. Do "
            "not use it in a gate."
        )
    if system.get("missing"):
        yield f"{name} gave no label for {system['missing']} pairs: the figures leave them out."
    if not all(map(known, bounds(system, "auc"))):
        yield f"The AUC of {name} has no interval: too few queries, or only one kind of pair."
    elif bounds(system, "auc")[1] - bounds(system, "auc")[0] > WIDE:
        yield f"The AUC of {name} is known only roughly: grade more queries before choosing between judges by it."
    yield from _on_calibration(name, system)


def _on_calibration(name: str, system: Mapping[str, Any]) -> Iterator[str]:
    before, after = system.get("ece_before"), system.get("ece_after")
    if not known(after):
        yield f"No calibrated probabilities of {name} were measured: do not read its scores as probabilities."
        return
    if float(after or 0.0) > UNCALIBRATED:
        yield f"Even calibrated, probabilities of {name} are off by {after:.2f} on average."
    if known(before) and float(after or 0.0) > float(before or 0.0):
        yield f"Calibration made {name} worse ({before:.3f} before, {after:.3f} after): use it without the map."


def bounds(system: Mapping[str, Any], figure: str) -> tuple[Any, Any]:
    """The interval of a figure, (None, None) where there is none."""
    low, high = system.get(f"{figure}_ci") or (None, None)
    return low, high
