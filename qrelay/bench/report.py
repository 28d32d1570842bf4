"""What one benchmark run found: plain records and their JSON.

Times are seconds, rates are per second, memory is MiB; None: not known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from qrelay.bench.latencies import Quantiles
from qrelay.bench.usage import Histogram, NoProbe, Probe, Reading, Sample, Spread, Usage
from qrelay.errors import InputError, MalformedInput
from qrelay.parsing import json_document

__all__ = [
    "Estimate",
    "Histogram",
    "LateStarts",
    "Level",
    "NoProbe",
    "Probe",
    "Quantiles",
    "Reading",
    "Report",
    "Sample",
    "Spread",
    "Usage",
    "Window",
    "as_json",
    "from_json",
    "read",
]

FORMAT: Final = "qrelay-bench-report"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95% interval; without bounds where too little is known for any."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """One measured stretch of a level. Requests count where they are answered."""

    seconds: float
    requests: int
    items: int
    """Answered without an error."""
    failed: Mapping[str, int] = field(default_factory=dict)
    """Items by reason of the error."""
    refused: int = 0
    """Items that the service refused for load."""
    arrived: int | None = None
    """Requests due in this window; open loop only."""
    latency_s: Quantiles | None = None
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    """By process name."""
    good: int | None = None
    """Requests answered without an error within the policy's limit; None without one."""

    @property
    def throughput(self) -> float:
        """Items answered a second."""
        return self.items / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class LateStarts:
    """How late the load generator itself sent requests of an open loop: a client at its limit shows here. `late`:
    requests that left more than 10 ms after they were due, of `sent`."""

    sent: int
    late: int
    p99_s: float
    max_s: float

    @property
    def client_limited(self) -> bool:
        """Whether more than 1% left late, so that latencies contain the client's own delay."""
        return self.late > 0.01 * self.sent


@dataclass(frozen=True, slots=True)
class Level:
    """One load, held until it was stable. All figures are of all windows together."""

    kind: Literal["closed", "open"]
    concurrency: int | None
    """Requests outstanding at any time; closed loop only."""
    rate: float | None
    """Requests due a second, open loop only."""
    throughput: Estimate
    """Items answered without an error a second."""
    offered: float | None
    """Items due a second as they came, open loop only."""
    latency_s: Quantiles | None
    """Of requests, from the intended start (open loop) or from sending (closed loop) to the answer, failed ones
    included. Open loop: those answered after the last window are in it too, and those never answered with the time
    that they had waited, so that a figure may be too low but never flatters by leaving out."""
    requests: int
    items: int
    failed: Mapping[str, int]
    refused: int
    windows: tuple[Window, ...]
    """After the warm-up, in order."""
    stable: bool
    """Whether the last windows agreed within the policy's tolerance."""
    usage: Mapping[str, Usage] = field(default_factory=dict)
    """By process name."""
    late_starts: LateStarts | None = None
    unanswered: int = 0
    """Requests still without an answer when the time to drain was over."""
    capped: int = 0
    """Requests due but never sent, as the most that may be outstanding were."""
    saturated: bool = False
    """Open loop: less was served than offered, so latency grows for as long as the load lasts."""
    limit_s: float | None = None
    """What a good request takes at most, from the intended start; None where none was stated ..."""
    goodput: Estimate | None = None
    """... and the share of good ones among all that were due, 0 to 1. Refused and failed ones, those never answered
    and those never sent are not good."""
    trace: str = ""
    """Open loop: the recording whose arrivals these were; empty: random ones."""

    @property
    def requests_per_s(self) -> float:
        """Requests answered a second."""
        seconds = sum(window.seconds for window in self.windows)
        return self.requests / seconds if seconds > 0 else 0.0

    @property
    def key(self) -> tuple[str, float]:
        """Which levels of two reports are the same load: kind, and concurrency or rate."""
        return self.kind, float((self.concurrency if self.kind == "closed" else self.rate) or 0.0)


@dataclass(frozen=True, slots=True)
class Report:
    """One run of `qrelay bench`."""

    service: str
    created: str
    """UTC, ISO 8601."""
    command: str
    """As typed, without folders of this machine."""
    settings: Mapping[str, Any]
    """Of the run: policy, data, seed, items a request, and what differs from the service's defaults."""
    environment: Mapping[str, Any]
    levels: tuple[Level, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON: the pipeline's efficiency, disturbances, idle cost, references of bare libraries."""
    notes: tuple[str, ...] = ()
    """Sentences for the reader, such as what limits this run."""

    def best(self) -> Level | None:
        """The closed-loop level of highest throughput; None where there is none."""
        closed = [level for level in self.levels if level.kind == "closed"]
        return max(closed, key=lambda level: level.throughput.value, default=None)


def as_json(report: Report) -> str:
    """The report as JSON, with its format and version."""
    body = _adapter().dump_python(report, mode="json")
    return json.dumps({"format": FORMAT, "version": VERSION, **body}, indent=1, allow_nan=False)


def from_json(text: str | bytes) -> Report:
    """A report that `as_json` wrote, of this version or an older one.

    Raises:
        MalformedInput: no report, or a damaged one.
        InputError: a report of a newer version.
    """
    try:
        body = json_document(text)
    except ValueError as error:
        raise MalformedInput(f"no JSON ({error}): give the report.json of a `qrelay bench` run") from error
    if not isinstance(body, dict) or body.pop("format", None) != FORMAT:
        raise MalformedInput("JSON, but no benchmark report: give the report.json of a `qrelay bench` run")
    version = body.pop("version", None)
    if isinstance(version, int) and version > VERSION:
        raise InputError(f"a report of format {version}, this qrelay reads up to {VERSION}: use a newer qrelay")
    try:
        return _adapter().validate_python(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise MalformedInput(f"a damaged report: {where}: {first['msg']}; run the benchmark again") from error


def read(path: Path) -> Report:
    """The report in a file, or in the folder of a run.

    Raises:
        InputError: there is none, or as `from_json`; the text names the path.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        return from_json(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; give a report.json or the folder of a run") from error
    except InputError as error:
        raise type(error)(f"{file}: {error}") from error


@cache
def _adapter() -> TypeAdapter[Report]:
    return TypeAdapter(Report)
