"""The decision as people read it: a row a rule, and the sentence that says why."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from qrelay.output import Rows
from qrelay.training.gate.decide import Decision, Row

_HEADINGS = (
    "",
    "rule",
    "set",
    "metric",
    "queries",
    "baseline",
    "candidate",
    "difference",
    "interval",
    "p",
    "demanded",
)


def decision_table(decision: Decision) -> RenderableType:
    """A rich renderable."""
    against = decision.against or decision.baseline
    rows: list[tuple[str | Text, ...]] = [
        (Text("pass", "green") if row.passed else Text("FAIL", "bold red"), *_cells(row)) for row in decision.rows
    ]
    title = f"{decision.version} against {against}"
    table = Rows(_HEADINGS, rows, title=title, prose=("demanded",), frame=False)
    verdict = Text("passed: ", "bold green") if decision.passed else Text("rejected: ", "bold red")
    return Group(table, verdict.append(decision.why, "default"))


def _cells(row: Row) -> tuple[str, ...]:
    interval = "" if row.interval is None else f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}"
    return (
        row.rule, row.set, row.metric, "" if row.queries is None else str(row.queries), _figure(row.baseline),
        _figure(row.candidate), _figure(row.difference, "+"), interval, _figure(row.p), row.threshold,
    )  # fmt: skip


def _figure(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.4f}"
