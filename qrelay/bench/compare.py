"""Two reports of one service: ratios of what both measured at the same load, with 95% intervals.

The intervals are over the windows of both runs (see `estimates`). They know nothing of what differs between two runs
as a whole, such as other work on the machine: a difference that matters is worth a second run of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from qrelay.bench.environment import VOLATILE
from qrelay.bench.estimates import Ratio, ratio_interval
from qrelay.bench.probe import CLIENT
from qrelay.bench.report import Level, Report, Window
from qrelay.bench.table import Grid, load
from qrelay.errors import InputError
from qrelay.parsing import flat

SAME: Final = "no difference shown"
_SAME_RATE: Final = 0.01
_BUSY: Final = 0.25
Values = Callable[[Window], float | None]
Whole = Callable[[Level], float | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One metric at one load. ratio: of B to A, None where a side does not know it."""

    load: str
    metric: str
    unit: str
    a: float | None
    b: float | None
    ratio: Ratio | None
    verdict: str
    """Of B: faster or slower (for CPU less or more), `SAME`, or why nothing can be said."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """rows by load; what must be known before believing them; loads that only one report has."""

    service: str
    rows: tuple[Row, ...]
    differing: tuple[str, ...]
    """Environment and settings that differ, as `key: A -> B`."""
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    unit: str
    of_window: Values
    of_level: Whole
    better: str
    """What a ratio above 1 is called, ..."""
    worse: str
    """... and below."""


def compare(a: Report, b: Report) -> Comparison:
    """B against A, at each load that both have: the same concurrency, or a rate within 1%.

    Raises:
        InputError: reports of different services, or without a common load.
    """
    if a.service != b.service:
        raise InputError(f"a report of {a.service} and one of {b.service}: compare two runs of one service")
    pairs = list(_pairs(a.levels, b.levels))
    if not pairs:
        loads = [", ".join(map(load, report.levels)) or "none" for report in (a, b)]
        raise InputError(
            f"no common load (A: {loads[0]}; B: {loads[1]}): run one again with the other's --concurrency and --rates"
        )
    matched = [level for pair in pairs for level in pair]
    return Comparison(
        service=a.service,
        rows=tuple(row for one, other in pairs for row in _rows(one, other)),
        differing=tuple(differences(a, b)),
        only_a=_others(a.levels, matched),
        only_b=_others(b.levels, matched),
    )


def differences(a: Report, b: Report) -> Iterator[str]:
    """Settings and environment that differ, a line each; of load averages only a difference of a quarter of the
    cores."""
    for name, one, other in (("settings", a.settings, b.settings), ("environment", a.environment, b.environment)):
        left, right = (
            dict(flat({name: value for name, value in found.items() if name not in VOLATILE}))
            for found in (one, other)
        )
        for key in sorted(left.keys() | right.keys()):
            if left.get(key) != right.get(key):
                yield f"{name}.{key}: {left.get(key, 'not there')} -> {right.get(key, 'not there')}"
    for key in ("load_average_start", "load_average_end"):
        loads = [(report.environment.get(key) or [0.0])[0] for report in (a, b)]
        if abs(loads[0] - loads[1]) > _BUSY * (a.environment.get("cores_usable") or 1):
            yield f"environment.{key}: {loads[0]} -> {loads[1]}"


def grid(comparison: Comparison) -> Grid:
    """The rows as a table."""
    header = ("load", "metric", "A", "B", "B / A", "95% interval", "verdict")
    rows = [
        (row.load, f"{row.metric} {row.unit}", _figure(row.a), _figure(row.b), *_ratio(row.ratio), row.verdict)
        for row in comparison.rows
    ]
    return Grid(f"{comparison.service}: B against A", header, rows)


def remarks(comparison: Comparison) -> Iterator[str]:
    """What to know before believing the rows, a sentence each."""
    if comparison.differing:
        yield "the runs differ in more than what is compared: " + "; ".join(comparison.differing)
    for name, loads in (("A", comparison.only_a), ("B", comparison.only_b)):
        if loads:
            yield f"only in {name}, not compared: {', '.join(loads)}"
    judged = sum(row.ratio is not None and row.ratio.low is not None for row in comparison.rows)
    yield f"of {judged} intervals about {judged / 20:.1g} exclude 1 by chance; run-to-run differences come on top"


def _pairs(a: Sequence[Level], b: Sequence[Level]) -> Iterator[tuple[Level, Level]]:
    """Each level of A with the first level of B at the same load."""
    for one in a:
        other = next((level for level in b if _same_load(one, level)), None)
        if other is not None:
            yield one, other


def _same_load(one: Level, other: Level) -> bool:
    (kind, x), (other_kind, y) = one.key, other.key
    return kind == other_kind and abs(x - y) <= (0 if kind == "closed" else _SAME_RATE * max(x, y))


def _others(levels: Sequence[Level], matched: Sequence[Level]) -> tuple[str, ...]:
    return tuple(load(level) for level in levels if not any(level is each for each in matched))


def _rows(a: Level, b: Level) -> Iterator[Row]:
    for metric in _METRICS:
        # An open loop that keeps up serves what arrives: its throughput says nothing of the service.
        if metric.name == "throughput" and a.kind == "open" and not (a.saturated or b.saturated):
            continue
        row = _row(metric, a, b)
        if row.a is not None or row.b is not None:
            yield row


def _row(metric: _Metric, a: Level, b: Level) -> Row:
    left, right = metric.of_level(a), metric.of_level(b)
    ratio = None
    if left and right:
        ratio = ratio_interval(_known(metric, b), _known(metric, a), right / left)
    return Row(load(a), metric.name, metric.unit, left, right, ratio, _verdict(metric, ratio))


def _known(metric: _Metric, level: Level) -> list[float]:
    return [value for window in level.windows if (value := metric.of_window(window)) is not None]


def _verdict(metric: _Metric, ratio: Ratio | None) -> str:
    if ratio is None:
        return "not measured in both"
    if ratio.low is None:
        return "too few windows for an interval"
    if not ratio.differs:
        return SAME
    return metric.better if ratio.value > 1 else metric.worse


def _cpu_of_window(window: Window) -> float | None:
    """CPU-seconds of all measured processes, without the load generator's, for a thousand items."""
    spent = [seconds for name, seconds in window.cpu_seconds.items() if name != CLIENT]
    return 1000 * sum(spent) / window.items if spent and window.items else None


def _cpu_of_level(level: Level) -> float | None:
    measured = [used.cpu_seconds_per_1000 for name, used in level.usage.items() if name != CLIENT]
    known = [seconds for seconds in measured if seconds is not None]
    return sum(known) if known else None


_METRICS: Final = (
    _Metric(
        "throughput",
        "items/s",
        lambda window: window.throughput,
        lambda level: level.throughput.value,
        "faster",
        "slower",
    ),
    _Metric(
        "p50",
        "s",
        lambda window: window.latency_s.p50 if window.latency_s else None,
        lambda level: level.latency_s.p50 if level.latency_s else None,
        "slower",
        "faster",
    ),
    _Metric(
        "p99",
        "s",
        lambda window: window.latency_s.p99 if window.latency_s else None,
        lambda level: level.latency_s.p99 if level.latency_s else None,
        "slower",
        "faster",
    ),
    _Metric("CPU per 1,000 items", "s", _cpu_of_window, _cpu_of_level, "more", "less"),
)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


def _ratio(ratio: Ratio | None) -> tuple[str, str]:
    if ratio is None:
        return "-", "-"
    bounds = "-" if ratio.low is None or ratio.high is None else f"{ratio.low:.3f} to {ratio.high:.3f}"
    return f"{ratio.value:.3f}", bounds
