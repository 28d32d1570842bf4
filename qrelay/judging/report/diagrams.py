"""The diagrams of one system, as PNG bytes. Drawn without pyplot, so nothing global changes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI: Final = 130
_BEFORE: Final = {"color": "#9a5b13", "marker": "s", "markerfacecolor": "white", "linestyle": "--"}
_AFTER: Final = {"color": "#1f4e79", "marker": "o", "markerfacecolor": "#1f4e79", "linestyle": "-"}
Point = Sequence[float]


def reliability_png(name: str, system: Mapping[str, Any]) -> bytes:
    """Share of relevant pairs against the mean P(relevant) of each bin, before and after calibration, with Wilson's
    95% interval (1927) of each share, rows taken as independent. system: its entry in the report."""
    curves = system.get("reliability") or {}
    figure, axes = _canvas(5.6, 5.2)
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
    axes.grid(color="#e5e5e5", linewidth=0.6)
    if not points:
        _say(axes, "no probabilities were measured")
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    return _png(figure)


def confusion_png(name: str, system: Mapping[str, Any]) -> bytes:
    """Counts of people's grade (row) and the system's (column), shaded by the share of the row."""
    found = system.get("confusion") or {}
    grades, counts = list(found.get("grades", [])), np.array(found.get("counts", []), float)
    figure, axes = _canvas(1.9 + 0.9 * max(len(grades), 3), 1.5 + 0.8 * max(len(grades), 3))
    axes.set_xlabel("the system's grade")
    axes.set_ylabel("people's grade")
    axes.set_title(_title("Confusion", name, int(counts.sum())))
    axes.set_xticks(range(len(grades)), [str(grade) for grade in grades])
    axes.set_yticks(range(len(grades)), [str(grade) for grade in grades])
    if grades:
        _cells(axes, counts)
    else:
        _say(axes, "no grades were measured")
    return _png(figure)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95% interval of a share of n rows."""
    z2 = NormalDist().inv_cdf(0.975) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = (z2 * (share * (1 - share) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _curve(axes: Axes, points: Sequence[Point], label: str, style: Mapping[str, Any]) -> None:
    p, share, n = (np.array(column, float) for column in zip(*points, strict=True))
    bounds = np.array([wilson(s, k) for s, k in zip(share, n, strict=True)])
    reach = np.clip([share - bounds[:, 0], bounds[:, 1] - share], 0.0, None)
    axes.errorbar(p, share, yerr=reach, label=label, markersize=5, linewidth=1.3, elinewidth=0.8, capsize=2, **style)


def _cells(axes: Axes, counts: Any) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*counts.shape):
        text = f"{int(counts[row, column])}\n{shares[row, column]:.0%}"
        dark = shares[row, column] > 0.55
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "#1a1a1a")


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty diagram, inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure, figure.add_subplot()


def _title(what: str, name: str, n: int) -> str:
    """Names come from configuration: `$` would start a formula."""
    return f"{what} of {name}\n(n = {n:,} pairs)".replace("$", r"\$")


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.4, text, ha="center", transform=axes.transAxes, color="#555555")


def _png(figure: Figure) -> bytes:
    """The same figure gives the same bytes."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()
