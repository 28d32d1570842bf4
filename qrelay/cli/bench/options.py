"""Options that the benchmark's commands share, and how their values are written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click

from qrelay.bench.disturb import SERVICES, SIGNALS, Disturbance
from qrelay.bench.targets.services import CHANNELS
from qrelay.bench.trace import Trace, read_trace
from qrelay.bench.windows import WindowPolicy
from qrelay.cli.options import Decorator, config_option, json_option

_UNITS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
QUICK: Final = WindowPolicy(
    window_s=1.0, warm_up_s=0.5, stable_windows=2, tolerance=0.2, max_windows=3, min_requests=5, longest_s=10.0,
    drain_s=5.0,
)  # fmt: skip
"""A look, not a measurement."""


def seconds(text: str) -> float:
    """Seconds of `20ms`, `5s`, `2m` or `1.5` (seconds).

    Raises:
        ValueError: anything else; the text says what is allowed.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    if not found or found[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a duration: write 20ms, 5s, 2m or a number of seconds")
    return float(found[1]) * _UNITS[found[2]]


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in click's newest stubs
    """Seconds, written as `20ms`, `5s`, `2m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click."""
        try:
            return value if isinstance(value, float) else seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic only in click's newest stubs
    """Numbers above 0 with commas between, or one of some words, as a tuple of floats or the word."""

    def __init__(self, example: str, *words: str, whole: bool = False) -> None:
        """`whole`: only whole numbers."""
        self.name = "|".join(("numbers", *words))
        self._example, self._words, self._whole = example, words, whole

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...] | str:
        """See click."""
        if not isinstance(value, str) or value in self._words:
            return value  # type: ignore[no-any-return]  # a default
        try:
            found = tuple(float(int(part) if self._whole else float(part)) for part in value.split(","))
        except ValueError:
            found = ()
        if not found or not all(0 < each < float("inf") for each in found):
            kind = "whole numbers" if self._whole else "numbers"
            words = "".join(f", or {word}" for word in self._words)
            self.fail(
                f"{value!r}: give {kind} above 0 with commas between, such as {self._example}{words}", param, ctx
            )
        return found


class ServiceTimes(click.ParamType):  # type: ignore[type-arg]  # generic only in click's newest stubs
    """`20ms`, which is the judge's, or `judge=20ms,reranker=2ms`: seconds by service."""

    name = "times"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        """See click."""
        if isinstance(value, dict):
            return value
        try:
            parts = [part.partition("=") for part in value.split(",")]
            return {name if equals else "judge": seconds(time if equals else name) for name, equals, time in parts}
        except ValueError as error:
            self.fail(f"{error}; for several services judge=20ms,reranker=2ms", param, ctx)


class Disturbances(click.ParamType):  # type: ignore[type-arg]  # generic only in click's newest stubs
    """`kill:judge@10s,drain:judge@25s`, as a tuple in the order of time."""

    name = "disturbances"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Disturbance, ...]:
        """See click."""
        if isinstance(value, tuple):
            return value
        found = []
        for part in value.split(","):
            action, _, rest = part.strip().partition(":")
            service, _, at = rest.partition("@")
            try:
                at_s = seconds(at)
            except ValueError:
                at_s = 0.0
            if action not in SIGNALS or service not in SERVICES or at_s <= 0:
                self.fail(f"{part!r}: write kill:judge@10s or drain:judge@25s, several with commas", param, ctx)
            found.append(Disturbance(action, service, at_s))
        return tuple(sorted(found, key=lambda each: each.at_s))


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What load to put on. Empty tuples: found by a sweep; rates None: no open loop."""

    concurrency: tuple[int, ...]
    rates: tuple[float, ...] | None
    policy: WindowPolicy
    quick: bool
    seed: int
    trace: Trace | None = None


def load_plan(given: dict[str, Any]) -> LoadPlan:
    """The plan of the options of `load_options`; takes them out of `given`.

    Raises:
        InputError: windows that cannot be, or a trace that is none.
        UsageError: options that exclude each other.
    """
    quick, file, speed = given.pop("quick"), given.pop("trace"), given.pop("speed")
    if file and given["rates"] not in ("auto", "none"):
        raise click.UsageError("--trace says when requests are due, and so does --rates: give one of them")
    if not file and speed != 1:
        raise click.UsageError("--speed is that of a --trace: give one, or leave it out")
    base = QUICK if quick else WindowPolicy()
    changed = {
        "window_s": given.pop("window"),
        "warm_up_s": given.pop("warm_up"),
        "max_windows": given.pop("max_windows"),
        "limit_s": given.pop("limit"),
    }
    fields = asdict(base)
    fields |= {name: value for name, value in changed.items() if value is not None}
    fields["longest_s"] = max(fields["longest_s"], fields["window_s"])
    fields["stable_windows"] = max(2, min(fields["stable_windows"], fields["max_windows"]))
    concurrency, rates = given.pop("concurrency"), given.pop("rates")
    return LoadPlan(
        concurrency=() if concurrency == "auto" else tuple(int(each) for each in concurrency),
        rates=None if rates == "none" else () if rates == "auto" else rates,
        policy=WindowPolicy(**fields),
        quick=quick,
        seed=given.pop("seed"),
        trace=read_trace(file, speed) if file else None,
    )


def load_options(rates: str = "auto") -> Decorator:
    """What load, and for how long. `rates`: the default."""
    return _together(
        click.option("--concurrency", type=Numbers("1,2,4", "auto", whole=True), default="auto", show_default=True,
                     help="Closed loop: requests outstanding at any time; auto: double it until throughput is flat."),
        click.option("--rates", type=Numbers("10,50,100", "auto", "none"), default=rates, show_default=True,
                     help="Open loop: requests a second; auto: shares of the closed loop's best."),
        click.option("--trace", type=click.Path(path_type=Path, dir_okay=False, exists=True),
                     help="Open loop instead: requests arrive as recorded, a time a line (seconds, or ISO 8601)."),
        click.option("--speed", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True,
                     help="Play the trace this many times as fast."),
        click.option("--limit", type=Duration(),
                     help="Report goodput: the share of requests answered without an error within this."),
        click.option("--window", type=Duration(), help="Length of one window.  [default: 5s]"),
        click.option("--warm-up", type=Duration(), help="Discarded before each level.  [default: 5s]"),
        click.option("--max-windows", type=click.IntRange(min=2), help="Maximum windows of a level.  [default: 12]"),
        click.option("--quick", is_flag=True, help="Use short windows, for a first look; the report says so."),
        click.option("--seed", type=click.IntRange(0), default=1, show_default=True,
                     help="Seed of the generated items and of the gaps between arrivals."),
    )  # fmt: skip


def output_options() -> Decorator:
    """Where the report goes."""
    folder = click.Path(path_type=Path, file_okay=False)
    return _together(
        click.option("--out", type=folder, help="Folder of the report.  [default: bench-<what>-<time>]"),
        json_option(),
    )


def start_options() -> Decorator:
    """With what settings services are started here."""
    return _together(
        config_option(),
        click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False),
                     help="Data folder of what is started here: index, ledger.  [default: temporary]"),
    )  # fmt: skip


def request_options() -> Decorator:
    """How a service is asked."""
    return _together(
        click.option("--items-per-request", type=click.IntRange(1), default=1, show_default=True,
                     help="Items in one request: 1 shows latency, more shows throughput."),
        click.option("--channels", type=click.IntRange(1, 64), default=CHANNELS, show_default=True,
                     help="Connections to the service, used in turn."),
        click.option("--timeout", type=Duration(), default="120s", show_default=True, help="Deadline of a request."),
    )  # fmt: skip


def file_option(name: str, text: str) -> Decorator:
    """An option that names a file which is there."""
    return click.option(name, type=click.Path(path_type=Path, dir_okay=False, exists=True), help=text)


def _together(*decorators: Decorator) -> Decorator:
    def apply(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply
