"""Diagrams as PNG bytes. Drawn without pyplot, so nothing global changes; the same figure gives the same bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE: Final = "#1f4e79"
BROWN: Final = "#9a5b13"
COLOURS: Final = (BLUE, BROWN, "#2f6b3c", "#7a2e63", "#555555")
_DPI: Final = 130


def canvas(width: float, height: float, grid: Literal["", "x", "y", "both"] = "") -> tuple[Figure, Axes]:
    """An empty diagram, inches. `grid`: lines across "x", "y" or "both" axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    if grid:
        axes.grid(axis=grid, color="#e5e5e5", linewidth=0.6)
    return figure, axes


def png(figure: Figure) -> bytes:
    """The diagram drawn."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()


def plain(name: str) -> str:
    """A name from data as a label: `$` would start a formula."""
    return name.replace("$", r"\$")


def short(name: str) -> str:
    """`plain`, cut to its last 50 characters."""
    return plain(name if len(name) <= 50 else "…" + name[-49:])
