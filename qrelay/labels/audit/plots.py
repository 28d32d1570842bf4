"""The audit's diagrams, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qrelay.labels.audit.figures import JUDGED_AT
from qrelay.reports.plots import BLUE, BROWN, canvas, plain, png

_MARKS: Final = "osD^vP"


def diagrams(report: Mapping[str, Any]) -> dict[str, bytes]:
    """title -> PNG of each diagram that the report has something for."""
    checks = report["checks"]
    found: dict[str, bytes] = {}
    if report["figures"]["false_negative_rate"]["value"] is not None:
        found["False negatives"] = false_negatives_png(report)
    for hashed, periods in checks["drift"]["judges"].items():
        if len(periods) > 1:
            found[f"Grades of judge {hashed[:12]}"] = drift_png(hashed, periods, checks["drift"]["periods"])
    if checks["judged_at"]:
        found["Judged at k"] = judged_png(checks["judged_at"])
    sources = checks["sources"]
    if sources["negatives_by_reason"]:
        found["Negatives by reason"] = bars_png("Negatives by reason", sources["negatives_by_reason"], "negatives")
    if any(sources["positives_by_rank"].values()):
        found["Positives by rank"] = bars_png("Positives by rank", sources["positives_by_rank"], "positives")
    return found


def false_negatives_png(report: Mapping[str, Any]) -> bytes:
    """The rate in all and by reason, with 95% intervals."""
    by_reason = report["checks"]["false_negatives"]["by_reason"]
    rows = [("all", report["figures"]["false_negative_rate"]), *by_reason.items()]
    rows = [(name, row) for name, row in rows if row["value"] is not None][::-1]
    figure, axes = canvas(5.6, 1.6 + 0.5 * len(rows), "x")
    for at, (_, row) in enumerate(rows):
        reach = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
        axes.errorbar([row["value"]], [at], xerr=reach, fmt="o", color=BLUE, capsize=3, linewidth=1.3)
    axes.set_yticks(range(len(rows)), [plain(f"{name} (n = {row['n']})") for name, row in rows])
    axes.set(ylim=(-0.6, len(rows) - 0.4), xlim=(0, None), xlabel="share that the second label calls relevant")
    axes.set_title("False negatives, with 95% intervals")
    return png(figure)


def drift_png(hashed: str, periods: Sequence[Mapping[str, Any]], starts: Sequence[str]) -> bytes:
    """Shares of grades by period, stacked."""
    from matplotlib import colormaps

    figure, axes = canvas(5.6, 3.8)
    grades = list(periods[0]["grades"]) if periods else []
    bottoms = [0.0] * len(periods)
    for i, grade in enumerate(grades):
        heights = [row["grades"][grade] / row["graded"] for row in periods]
        color = colormaps["Blues"](0.15 + 0.75 * i / max(1, len(grades) - 1))
        axes.bar(range(len(periods)), heights, bottom=bottoms, color=color, label=grade, width=0.8)
        bottoms = [low + high for low, high in zip(bottoms, heights, strict=True)]
    names = [f"{starts[row['period']][5:16].replace('T', chr(10))}\nn = {row['graded']:,}" for row in periods]
    axes.set_xticks(range(len(periods)), names, fontsize=8)
    axes.set(ylim=(0, 1), ylabel="share of graded measurements", xlabel="period from (UTC)")
    axes.set_title(f"Grades of judge {hashed[:12]}")
    axes.legend(title="grade", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    return png(figure)


def judged_png(systems: Mapping[str, Mapping[str, Any]]) -> bytes:
    """judged@k by system."""
    figure, axes = canvas(5.6, 3.8, "both")
    for i, (system, row) in enumerate(systems.items()):
        shares = [row[str(k)] for k in JUDGED_AT]
        axes.plot(JUDGED_AT, shares, marker=_MARKS[i % len(_MARKS)], label=plain(system), linewidth=1.3)
    axes.set_xticks(JUDGED_AT)
    axes.set(ylim=(0, 1.03), xlabel="k", ylabel="graded share of the top k", title="Judged at k, mean over queries")
    axes.legend(frameon=False, fontsize=9)
    return png(figure)


def bars_png(title: str, counts: Mapping[str, int], what: str) -> bytes:
    """Counts by name."""
    figure, axes = canvas(5.6, 3.2)
    bars = axes.bar(range(len(counts)), list(counts.values()), color=BROWN, width=0.7)
    axes.bar_label(bars, fmt="{:,.0f}", fontsize=8)
    axes.set_xticks(range(len(counts)), [plain(name) for name in counts], fontsize=8)
    axes.set(ylabel=what, title=title)
    axes.margins(y=0.12)
    return png(figure)
