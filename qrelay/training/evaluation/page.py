"""An evaluation as a page, whose one script sorts the tables of queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qrelay.reports.page import render
from qrelay.training.evaluation.plots import differences_png, means_png
from qrelay.training.evaluation.reporting import comparisons_in, systems_in

ROWS: Final = 2000
"""Queries shown of each comparison, those that differ most first."""


def page_of(document: Mapping[str, Any]) -> str:
    """The page of a document of `reporting.document_of`."""
    systems = systems_in(document)
    return render(
        "evaluation.html",
        script="sort.js",
        systems=systems,
        facts=document["facts"],
        means=means_png(systems),
        comparisons=[_shown(each) for each in comparisons_in(document)],
    )


def _shown(comparison: Mapping[str, Any]) -> dict[str, Any]:
    queries = comparison["queries"]
    rows: Sequence[Mapping[str, Any]] = [*queries["wins"], *queries["losses"], *queries["ties"]]
    by_size = sorted(rows, key=lambda row: -abs(row["new"] - row["old"]))
    return {**comparison, "plot": differences_png(comparison), "shown": by_size[:ROWS], "total": len(rows)}
