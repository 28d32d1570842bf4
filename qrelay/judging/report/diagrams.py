"""The diagrams of one system, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qrelay.reports.plots import BLUE, BROWN, canvas, plain, png
from qrelay.stats.intervals import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BEFORE: Final = {"color": BROWN, "marker": "s", "markerfacecolor": "white", "linestyle": "--"}
_AFTER: Final = {"color": BLUE, "marker": "o", "markerfacecolor": BLUE, "linestyle": "-"}
Point = Sequence[float]


def reliability_png(name: str, system: Mapping[str, Any]) -> bytes:
    """Share of relevant pairs against the mean P(relevant) of each bin, before and after calibration, with Wilson's
    95% interval (1927) of each share, rows taken as independent. system: its entry in the report."""
    curves = system.get("reliability") or {}
    figure, axes = canvas(5.6, 5.2, "both")
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, label="perfect")
    for label, points, style in (
        ("before calibration", curves.get("before"), _BEFORE),
        ("after calibration", curves.get("after"), _AFTER),
    ):
        if points:
            _curve(axes, points, f"{label} ({len(points)} bins)", style)
    points = curves.get("after") or curves.get("before") or []
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xlabel("mean P(relevant) of the bin")
    axes.set_ylabel("share that people found relevant")
    axes.set_title(_title("Reliability", name, sum(int(n) for *_, n in points)))
    if not points:
        _say(axes, "no probabilities were measured")
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    return png(figure)


def confusion_png(name: str, system: Mapping[str, Any]) -> bytes:
    """Counts of people's grade (row) and the system's (column), shaded by the share of the row."""
    found = system.get("confusion") or {}
    grades, counts = list(found.get("grades", [])), np.array(found.get("counts", []), float)
    figure, axes = canvas(1.9 + 0.9 * max(len(grades), 3), 1.5 + 0.8 * max(len(grades), 3))
    axes.set_xlabel("the system's grade")
    axes.set_ylabel("people's grade")
    axes.set_title(_title("Confusion", name, int(counts.sum())))
    axes.set_xticks(range(len(grades)), [str(grade) for grade in grades])
    axes.set_yticks(range(len(grades)), [str(grade) for grade in grades])
    if grades:
        _cells(axes, counts)
    else:
        _say(axes, "no grades were measured")
    return png(figure)


def _curve(axes: Axes, points: Sequence[Point], label: str, style: Mapping[str, Any]) -> None:
    p, share, n = (np.array(column, float) for column in zip(*points, strict=True))
    bounds = np.array([wilson(round(s * k), int(k)) for s, k in zip(share, n, strict=True)])
    reach = np.clip([share - bounds[:, 0], bounds[:, 1] - share], 0.0, None)
    axes.errorbar(p, share, yerr=reach, label=label, markersize=5, linewidth=1.3, elinewidth=0.8, capsize=2, **style)


def _cells(axes: Axes, counts: Any) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*counts.shape):
        text = f"{int(counts[row, column])}\n{shares[row, column]:.0%}"
        dark = shares[row, column] > 0.55
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "#1a1a1a")


def _title(what: str, name: str, n: int) -> str:
    return f"{what} of {plain(name)}\n(n = {n:,} pairs)"


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.4, text, ha="center", transform=axes.transAxes, color="#555555")
