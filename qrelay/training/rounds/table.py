"""The table at the end: a row a round and slot."""

from __future__ import annotations

from rich.text import Text

from qrelay.output import Rows
from qrelay.training.gate.decide import BETTER
from qrelay.training.job.result import SlotResult
from qrelay.training.rounds.state import Series

_HEADINGS = (
    "round", "labels", "examples", "slot", "version", "dev", "frozen set", "before", "after", "p", "verdict",
)  # fmt: skip
_COLOURS = {"promoted": "green", "passed": "green", "rejected": "red"}


def rounds_table(series: Series) -> Rows:
    """A rich renderable."""
    rows: list[tuple[str | Text, ...]] = []
    for at in series.rounds:
        if not at.slots:
            empty = [""] * (len(_HEADINGS) - 2)
            rows.append((str(at.number), *empty, "training" if at.fed else "judging"))
        rows += [
            (str(at.number), str(each.labels), str(each.queries), each.slot, each.version, _dev(each),
             *_figures(each), _verdict(each))
            for each in at.slots
        ]  # fmt: skip
    title = f"Rounds of {series.collection}"
    return Rows(_HEADINGS, rows, title=title, prose=("dev", "frozen set", "verdict"), frame=False)


def _figures(each: SlotResult) -> tuple[str, str, str, str]:
    """Set, before, after, p: of the rule that says better."""
    for row in each.decision.get("rows", ()):
        if row["rule"] == BETTER and row["baseline"] is not None:
            return (
                f"{row['metric']} {row['set']}",
                f"{row['baseline']:.4f}",
                f"{row['candidate']:.4f}",
                f"{row['p']:.4f}",
            )
    return "", "", "", ""


def _dev(each: SlotResult) -> str:
    """The measure of early stop on the job's dev queries, before and after training."""
    dev = each.metrics.get("dev") or {}
    return f"{dev['before']:.4f} to {dev['after']:.4f}" if {"before", "after"} <= dev.keys() else ""


def _verdict(each: SlotResult) -> Text:
    shown = each.outcome if each.passed else f"{each.outcome}: {each.why}"
    return Text(shown, _COLOURS.get(each.outcome, "yellow"))
