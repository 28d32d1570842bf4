"""The curves of a report as PNG bytes: latency against load, and throughput against concurrency.

Colours are of Okabe and Ito's set, which colour-blind people tell apart; every line has a marker of its own too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from qrelay.bench.environment import summary
from qrelay.bench.report import Level, Quantiles, Report
from qrelay.reports.plots import canvas, plain, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREY: Final = "#666666"
_BLUE: Final = "#0072B2"
_FEW_TICKS: Final = 20
_QUANTILES: Final[tuple[tuple[str, str, str, Callable[[Quantiles], float]], ...]] = (
    ("p99", "#D55E00", "^", lambda latency: latency.p99),
    ("p95", "#E69F00", "s", lambda latency: latency.p95),
    ("p50", _BLUE, "o", lambda latency: latency.p50),
)


def diagrams(report: Report) -> dict[str, bytes]:
    """File name -> PNG of each curve that the report has levels for."""
    closed = [level for level in report.levels if level.kind == "closed"]
    opened = [level for level in report.levels if level.kind == "open"]
    found = {}
    if closed:
        found["throughput.png"] = throughput_png(report, closed)
        found["latency-closed.png"] = latency_closed_png(report, closed)
    if opened:
        found["latency-open.png"] = latency_open_png(report, opened)
    return found


def throughput_png(report: Report, levels: Sequence[Level]) -> bytes:
    """Items a second against requests outstanding, with the 95% intervals."""
    figure, axes = _canvas(report, "throughput against concurrency")
    levels = sorted(levels, key=lambda level: level.concurrency or 0)
    x, y = [level.concurrency or 0 for level in levels], [level.throughput.value for level in levels]
    low = [level.throughput.value - _or(level.throughput.low, level.throughput.value) for level in levels]
    high = [_or(level.throughput.high, level.throughput.value) - level.throughput.value for level in levels]
    axes.errorbar(x, y, yerr=[low, high], color=_BLUE, capsize=3, linewidth=1.4, label="mean, 95% interval", zorder=2)
    _points(axes, x, y, levels, _BLUE, "o")
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [str(value) for value in x])
    axes.minorticks_off()
    axes.set(xlabel="requests outstanding", ylabel="throughput (items/s)", ylim=(0, None))
    return _finish(figure, axes, levels)


def latency_closed_png(report: Report, levels: Sequence[Level]) -> bytes:
    """Latency quantiles against the throughput that came with them; concurrency beside each."""
    figure, axes = _canvas(report, "latency against throughput, closed loop")
    levels = sorted(levels, key=lambda level: level.concurrency or 0)
    _latencies(axes, levels, [level.throughput.value for level in levels])
    for level in levels:
        if level.latency_s:
            at = (level.throughput.value, 1000 * level.latency_s.p50)
            axes.annotate(str(level.concurrency), at, (-6, 4), textcoords="offset points", ha="right", fontsize=7)
    axes.set(xlabel="throughput (items/s); small figures: requests outstanding", xlim=(0, None))
    return _finish(figure, axes, levels)


def latency_open_png(report: Report, levels: Sequence[Level]) -> bytes:
    """Latency quantiles against the load offered, and where the closed loop found the most."""
    figure, axes = _canvas(report, "latency against load, open loop")
    levels = sorted(levels, key=lambda level: level.offered or 0.0)
    _latencies(axes, levels, [level.offered or 0.0 for level in levels])
    best = report.best()
    if best and best.throughput.value > 0:
        axes.axvline(
            best.throughput.value, color=_GREY, linestyle=":", linewidth=1.2, label="most of the closed loop"
        )
    axes.set(xlabel="offered load (items/s), Poisson arrivals", xlim=(0, None))
    return _finish(figure, axes, levels)


def _latencies(axes: Axes, levels: Sequence[Level], x: Sequence[float]) -> None:
    from matplotlib.ticker import NullFormatter

    for name, color, marker, of in _QUANTILES:
        known = [
            (at, 1000 * of(level.latency_s), level) for at, level in zip(x, levels, strict=True) if level.latency_s
        ]
        xs, ys = [at for at, *_ in known], [value for _, value, _ in known]
        axes.plot(xs, ys, color=color, linewidth=1.4, zorder=2)
        axes.plot([], [], color=color, marker=marker, markersize=5, linewidth=1.4, label=name)
        _points(axes, xs, ys, [level for *_, level in known], color, marker)
    axes.set_yscale("log")
    axes.set_ylabel("latency (ms)")
    axes.yaxis.set_major_formatter("{x:g}")
    bottom, top = axes.get_ylim()
    # Within one decade the ticks at 2, 3, … would be the only ones, and unreadable as powers of ten.
    axes.yaxis.set_minor_formatter("{x:g}" if top / bottom < _FEW_TICKS else NullFormatter())
    axes.tick_params(axis="y", which="minor", labelsize=8)


def _points(
    axes: Axes, x: Sequence[float], y: Sequence[float], levels: Sequence[Level], color: str, marker: str
) -> None:
    """Filled where the level held, hollow where it was not stable or was saturated."""
    for at, value, level in zip(x, y, levels, strict=True):
        face = color if _held(level) else "white"
        axes.plot([at], [value], marker=marker, markersize=5, color=color, markerfacecolor=face, zorder=3)


def _held(level: Level) -> bool:
    return level.stable and not level.saturated


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _canvas(report: Report, what: str) -> tuple[Figure, Axes]:
    figure, axes = canvas(7.0, 4.4)
    figure.suptitle(plain(f"{report.service}: {what}"), fontsize=11)
    axes.set_title(plain(summary(report.environment)), fontsize=7, color=_GREY)
    axes.grid(color="#e5e5e5", linewidth=0.6, which="both")
    axes.set_axisbelow(True)
    return figure, axes


def _finish(figure: Figure, axes: Axes, levels: Sequence[Level]) -> bytes:
    if not all(map(_held, levels)):
        style: dict[str, Any] = {"linestyle": "none", "marker": "o", "markerfacecolor": "white", "color": _GREY}
        axes.plot([], [], label="hollow: not stable, or saturated", **style)
    axes.legend(frameon=False, fontsize=8)
    return png(figure)
