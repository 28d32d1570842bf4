"""Strategies: how to ask for a judgment. Adding one: a module, and a line in `make_strategy`'s table."""

from __future__ import annotations

from collections.abc import Callable

from services.judge.strategies.base import Strategy
from services.judge.strategies.binary import binary
from services.judge.strategies.graded import graded

_STRATEGIES: dict[str, Callable[[str, float], Strategy]] = {
    "binary": lambda _, min_mass: binary(min_mass),
    "graded": graded,
}


def make_strategy(name: str, scale: str, *, min_mass: float) -> Strategy:
    """The strategy `name` ("binary", "graded") on `scale` ("0-3", "1-4"; binary has its own)."""
    return _STRATEGIES[name](scale, min_mass)
