"""A report as tables of at most 120 columns: markdown for a file, and for a terminal. Every header has its unit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from qrelay.bench.environment import summary
from qrelay.bench.report import Estimate, Level, Quantiles, Report
from qrelay.bench.usage import Usage
from qrelay.output import Rows

if TYPE_CHECKING:
    from rich.console import Console

_NONE: Final = "-"
USAGE: Final = "What the processes used"
WIDTH: Final = 120
"""Columns of a screen or a page: a wider table comes in parts."""
_LONGEST_LIST: Final = 12
_BORDER: Final = 3
_PROSE: Final = 60
"""Characters of a cell from which on it is sentences, which may wrap."""


@dataclass(frozen=True, slots=True)
class Grid:
    """One table: a header and rows of as many cells."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def parts(self, width: int = WIDTH) -> Iterator[Grid]:
        """Itself where it is at most so wide, else some of its columns at a time, the first one in each part."""
        columns = list(zip(self.header, *self.rows, strict=True)) if self.rows else []
        widths = [max(map(len, column)) + _BORDER for column in columns]
        if sum(widths) < width:
            yield self
            return
        taken: list[int] = []
        for column in range(1, len(widths)):
            if taken and widths[0] + sum(widths[each] for each in (*taken, column)) >= width:
                yield self._of([0, *taken])
                taken = []
            taken.append(column)
        yield self._of([0, *taken])

    def _of(self, columns: Sequence[int]) -> Grid:
        header, *rows = ([row[each] for each in columns] for row in (self.header, *self.rows))
        return Grid(self.title, header, rows)

    def without_zeros(self, names: Collection[str]) -> Grid:
        """Itself without those of these columns that hold only zeros."""
        shown = (name not in names or any(row[place] != "0" for row in self.rows)
                 for place, name in enumerate(self.header))  # fmt: skip
        return self._of([place for place, wanted in enumerate(shown) if wanted])


def grids(report: Report) -> Iterator[Grid]:
    """All tables of a report, those without rows left out; wide ones in parts, one after the other."""
    closed = [level for level in report.levels if level.kind == "closed"]
    opened = [level for level in report.levels if level.kind == "open"]
    extras = (_extra(name, value) for name, value in report.extra.items())
    for grid in (_closed(closed), _open(opened), _usage(report.levels), *extras):
        if grid.rows:
            yield from grid.without_zeros(_RARE).parts()


def markdown(report: Report) -> str:
    """The report as a markdown page."""
    lines = [
        f"# {report.service}",
        "",
        f"{summary(report.environment)}; {report.created}",
        "",
        f"    {report.command}",
    ]
    for title, parts in groupby(grids(report), key=lambda grid: grid.title):
        lines += ["", f"## {title}", *(line for grid in parts for line in ("", *markdown_lines(grid)))]
    remarks = [*report.notes, *warnings(report)]
    if remarks:
        lines += ["", *(f"- {remark}" for remark in remarks)]
    return "\n".join(lines) + "\n"


def markdown_lines(grid: Grid) -> list[str]:
    """One table in markdown, without its title; numbers to the right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (grid.header, *grid.rows)]
    rule = ["---", *("---:" for _ in grid.header[1:])]
    return [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]


def show(report: Report, console: Console) -> None:
    """The report on a terminal."""
    console.print(f"[bold]{report.service}[/bold]  {summary(report.environment)}", highlight=False)
    for grid in grids(report):
        show_grid(grid, console)
    for remark in [*report.notes, *warnings(report)]:
        console.print(f"- {remark}", highlight=False, markup=False)


def show_grid(grid: Grid, console: Console) -> None:
    """One table on a terminal."""
    columns = zip(grid.header, *grid.rows, strict=True)
    prose = {name for name, *cells in columns if max(map(len, cells), default=0) > _PROSE}
    console.print(Rows(grid.header, grid.rows, title=grid.title, right={*grid.header[1:]} - prose, prose=prose))


def warnings(report: Report) -> Iterator[str]:
    """What a reader must know before believing a figure, a sentence each."""
    texts: tuple[tuple[Callable[[Level], bool], str], ...] = (
        (lambda level: not level.stable, "not stable: throughput still moved when the last window ended"),
        (
            lambda level: level.saturated,
            "saturated: less was served than offered, so its latency grows for as long as the load lasts",
        ),
        (_client_limited, "limited by the load generator, which sent more than 1% of the requests 10 ms late"),
        (
            lambda level: level.capped > 0,
            "reached the most requests that may be outstanding; what came beyond was not sent",
        ),
    )
    for holds, text in texts:
        found = [load(level) for level in report.levels if holds(level)]
        if found:
            yield f"{', '.join(found)}: {text}"


def load(level: Level) -> str:
    """The level's load in words."""
    if level.kind == "closed":
        return f"{level.concurrency} outstanding"
    return f"{level.rate:.3g} requests/s{' replayed' if level.trace else ''}"


def state(level: Level) -> str:
    """Whether its figures hold: stable, not stable, saturated, or replayed."""
    held = "replayed" if level.trace else "stable" if level.stable else "not stable"
    return "saturated" if level.saturated else held


def number(value: float | None) -> str:
    """Three significant digits, whole from 100 on; a dash where it is not known."""
    if value is None:
        return _NONE
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _client_limited(level: Level) -> bool:
    return level.late_starts is not None and level.late_starts.client_limited


def _closed(levels: Sequence[Level]) -> Grid:
    header = ("outstanding", "items/s", "95% interval", *_LATENCY, *_outcome_header(levels))
    rows = [
        (
            f"{level.concurrency}",
            number(level.throughput.value),
            _interval(level.throughput),
            *_latency(level.latency_s),
            *_outcome(level, levels),
        )
        for level in levels
    ]
    return Grid("Closed loop", header, rows)


def _open(levels: Sequence[Level]) -> Grid:
    header = ("due/s", "offered/s", "served/s", "95% interval", *_LATENCY, "unanswered", *_outcome_header(levels))
    rows = [
        (
            number(level.rate),
            number(level.offered),
            number(level.throughput.value),
            _interval(level.throughput),
            *_latency(level.latency_s),
            f"{level.unanswered:,}",
            *_outcome(level, levels),
        )
        for level in levels
    ]
    return Grid("Open loop, latency from the intended start", header, rows)


_LATENCY: Final = ("p50 ms", "p95 ms", "p99 ms", "max ms")
_RARE: Final = ("unanswered", "failed items", "refused items")
"""Columns that are shown where something stands in them."""


def _latency(found: Quantiles | None) -> list[str]:
    values = (found.p50, found.p95, found.p99, found.max) if found else (None,) * len(_LATENCY)
    return [number(_thousand(value)) for value in values]


def _outcome_header(levels: Sequence[Level]) -> list[str]:
    limits = sorted({level.limit_s for level in levels if level.limit_s})
    return [
        "requests",
        "failed items",
        "refused items",
        *([f"within {_spans(limits)}"] if limits else []),
        "state (windows)",
    ]


def _spans(limits: Sequence[float]) -> str:
    return ", ".join(f"{1000 * each:g} ms" if each < 1 else f"{each:g} s" for each in limits)


def _outcome(level: Level, levels: Sequence[Level]) -> list[str]:
    failed = ", ".join(f"{count:,} {reason}" for reason, count in sorted(level.failed.items())) or "0"
    limited = any(each.limit_s for each in levels)
    good = [f"{level.goodput.value:.1%}" if level.goodput else _NONE] if limited else []
    return [f"{level.requests:,}", failed, f"{level.refused:,}", *good, f"{state(level)} ({len(level.windows)})"]


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return _NONE
    return f"{number(estimate.low)} to {number(estimate.high)}"


def _usage(levels: Sequence[Level]) -> Grid:
    header = ("load", "process", "CPU-s/1,000 items", "peak MiB", "batch", "queue p50, p99 ms", "batch ms", "item ms")
    rows = [(load(level), name, *_used(used)) for level in levels for name, used in level.usage.items()]
    return Grid(USAGE, header, rows)


def _used(used: Usage) -> list[str]:
    """CPU, memory, mean batch, time in the queue, computing a batch and an item."""
    queue, compute = used.queue_s, used.compute_s_per_batch
    waited = [number(_thousand(each)) for each in ((queue.p50, queue.p99) if queue else ())]
    return [
        number(used.cpu_seconds_per_1000),
        number(used.peak_rss_mib),
        number(used.mean_batch),
        ", ".join(waited) or _NONE,
        number(_thousand(compute.mean if compute else None)),
        number(_thousand(used.compute_s_per_item)),
    ]


def _thousand(value: float | None) -> float | None:
    return None if value is None else 1000 * value


def _extra(name: str, value: Any) -> Grid:
    """Plain JSON as a table: records side by side, anything else as keys and values."""
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        flat = [dict(_flat(row)) for row in value]
        header = list(dict.fromkeys(key for row in flat for key in row))
        return Grid(name, header, [[row.get(key, _NONE) for key in header] for row in flat])
    return Grid(name, ("what", "value"), [(key or name, text) for key, text in _flat(value)])


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple):
        long = len(value) > _LONGEST_LIST
        yield prefix, f"{len(value)} values, see report.json" if long else ", ".join(map(_plain, value))
    else:
        yield prefix, _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, float) or value is None:
        return number(value)
    return str(value)
