"""Where things lie in the diagrams that the templates draw; units are those of an SVG of SIZE by SIZE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qrelay.judging.report.read import Point, Reliability
from qrelay.stats.intervals import wilson

SIZE: Final = 320
_LEFT: Final = 40
_SIDE: Final = 260
"""Of the square from 0 to 1."""
_TOP: Final = 14


@dataclass(frozen=True, slots=True)
class Dot:
    """A bin: its place, the ends of Wilson's 95% interval of its share, and its figures."""

    x: float
    y: float
    low: float
    high: float
    p: float
    share: float
    n: int


@dataclass(frozen=True, slots=True)
class Curve:
    """Dots before and after calibration, by P(relevant)."""

    before: tuple[Dot, ...]
    after: tuple[Dot, ...]


def reliability(found: Reliability) -> Curve | None:
    """None where no probabilities were measured."""
    curve = Curve(_dots(found.before), _dots(found.after))
    return curve if curve.before or curve.after else None


def across(share: float) -> float:
    """The x of a value from 0 to 1."""
    return round(_LEFT + share * _SIDE, 1)


def up(share: float) -> float:
    """The y of a value from 0 to 1."""
    return round(_TOP + (1 - share) * _SIDE, 1)


def _dots(points: Sequence[Point]) -> tuple[Dot, ...]:
    return tuple(_dot(*point) for point in sorted(points) if point[2] >= 1)


def _dot(p: float, share: float, n: float) -> Dot:
    low, high = wilson(round(share * n), int(n))
    return Dot(across(p), up(share), up(low), up(high), p, share, int(n))
