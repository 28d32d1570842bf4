"""An evaluation's diagrams, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qrelay.reports.plots import COLOURS, canvas, png, short


def means_png(systems: Sequence[Mapping[str, Any]]) -> bytes:
    """Every system's mean of every measure with its 95% interval, side by side. systems: as `Evaluation.as_json`
    with `intervals`."""
    measures = list(systems[0]["means"])
    figure, axes = canvas(1.6 + 0.9 * len(measures), 3.6, "y")
    step = 0.8 / len(systems)
    for number, system in enumerate(systems):
        places = [at + step * (number - (len(systems) - 1) / 2) for at in range(len(measures))]
        colour = COLOURS[number % len(COLOURS)]
        for at, name in zip(places, measures, strict=True):
            value, interval = system["means"].get(name), system["intervals"].get(name)
            if value is None:
                continue
            reach = [[value - interval[0]], [interval[1] - value]] if interval else None
            axes.errorbar([at], [value], yerr=reach, fmt="o", color=colour, capsize=2.5, linewidth=1.2, markersize=4)
        axes.plot([], [], "o", color=colour, label=short(system["system"]))
    axes.set_xticks(range(len(measures)), [short(name) for name in measures])
    axes.set(ylim=(0, None), title="Means, with 95% intervals over queries")
    axes.legend(fontsize=8, frameon=False)
    return png(figure)


def differences_png(comparison: Mapping[str, Any]) -> bytes:
    """Each query's difference by the comparison's first measure, sorted."""
    queries = comparison["queries"]
    rows = [*queries["wins"], *queries["ties"], *queries["losses"]]
    deltas = sorted((row["new"] - row["old"] for row in rows), reverse=True)
    figure, axes = canvas(6.4, 3.0, "y")
    colours = [COLOURS[0] if delta > 0 else COLOURS[1] for delta in deltas]
    axes.bar(range(len(deltas)), deltas, width=1.0, color=colours)
    axes.axhline(0, color="#333333", linewidth=0.8)
    counts = f"{len(queries['wins'])} wins, {len(queries['ties'])} ties, {len(queries['losses'])} losses"
    axes.set(xlabel=f"queries, sorted ({counts})", ylabel=f"difference of {short(queries['measure'])}")
    axes.set_title(short(f"{comparison['new']} against {comparison['old']}"), fontsize=10)
    return png(figure)


def agreement_png(measure: str, found: Mapping[str, Any]) -> bytes:
    """Each system's mean under both qrels. found: one measure of `agreement.agreement`."""
    figure, axes = canvas(4.6, 4.2, "both")
    for number, row in enumerate(found["systems"]):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot([row["a"]], [row["b"]], "o", color=colour)
        axes.annotate(
            short(row["system"]), (row["a"], row["b"]), textcoords="offset points", xytext=(5, 4), fontsize=8
        )
    tau = "none" if found["tau"] is None else f"{found['tau']:.3f}"
    axes.set(xlabel="under qrels a", ylabel="under qrels b", title=short(f"{measure}: Kendall's tau {tau}"))
    axes.margins(0.15)
    return png(figure)
