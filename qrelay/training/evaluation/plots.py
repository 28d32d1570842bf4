"""The report's diagrams, as PNG bytes. Drawn without pyplot, so nothing global changes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI: Final = 130
_COLOURS: Final = ("#1f4e79", "#9a5b13", "#2f6b3c", "#7a2e63", "#555555")
_GRID: Final = "#e5e5e5"


def means_png(systems: Sequence[Mapping[str, Any]]) -> bytes:
    """Every system's mean of every measure with its 95% interval, side by side. systems: as `Evaluation.as_json`
    with `intervals`."""
    measures = list(systems[0]["means"])
    figure, axes = _canvas(1.6 + 0.9 * len(measures), 3.6)
    step = 0.8 / len(systems)
    for number, system in enumerate(systems):
        places = [at + step * (number - (len(systems) - 1) / 2) for at in range(len(measures))]
        colour = _COLOURS[number % len(_COLOURS)]
        for at, name in zip(places, measures, strict=True):
            value, interval = system["means"].get(name), system["intervals"].get(name)
            if value is None:
                continue
            reach = [[value - interval[0]], [interval[1] - value]] if interval else None
            axes.errorbar([at], [value], yerr=reach, fmt="o", color=colour, capsize=2.5, linewidth=1.2, markersize=4)
        axes.plot([], [], "o", color=colour, label=_plain(system["system"]))
    axes.set_xticks(range(len(measures)), [_plain(name) for name in measures])
    axes.set(ylim=(0, None), title="Means, with 95% intervals over queries")
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def differences_png(comparison: Mapping[str, Any]) -> bytes:
    """Each query's difference by the comparison's first measure, sorted."""
    queries = comparison["queries"]
    rows = [*queries["wins"], *queries["ties"], *queries["losses"]]
    deltas = sorted((row["new"] - row["old"] for row in rows), reverse=True)
    figure, axes = _canvas(6.4, 3.0)
    colours = [_COLOURS[0] if delta > 0 else _COLOURS[1] for delta in deltas]
    axes.bar(range(len(deltas)), deltas, width=1.0, color=colours)
    axes.axhline(0, color="#333333", linewidth=0.8)
    counts = f"{len(queries['wins'])} wins, {len(queries['ties'])} ties, {len(queries['losses'])} losses"
    axes.set(xlabel=f"queries, sorted ({counts})", ylabel=f"difference of {_plain(queries['measure'])}")
    axes.set_title(_plain(f"{comparison['new']} against {comparison['old']}"), fontsize=10)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    return _png(figure)


def agreement_png(measure: str, found: Mapping[str, Any]) -> bytes:
    """Each system's mean under both qrels. found: one measure of `agreement.agreement`."""
    figure, axes = _canvas(4.6, 4.2)
    for number, row in enumerate(found["systems"]):
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot([row["a"]], [row["b"]], "o", color=colour)
        axes.annotate(
            _plain(row["system"]), (row["a"], row["b"]), textcoords="offset points", xytext=(5, 4), fontsize=8
        )
    tau = "none" if found["tau"] is None else f"{found['tau']:.3f}"
    axes.set(xlabel="under qrels a", ylabel="under qrels b", title=_plain(f"{measure}: Kendall's tau {tau}"))
    axes.grid(color=_GRID, linewidth=0.6)
    axes.margins(0.15)
    return _png(figure)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """In inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _plain(text: str) -> str:
    """Without matplotlib's mathematics, and short."""
    return (text if len(text) <= 50 else "…" + text[-49:]).replace("$", r"\$")
