"""Levels one after another: concurrency until throughput is flat, and rates up to and past what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from qrelay.bench.load import Target, closed_loop, open_loop
from qrelay.bench.report import Level
from qrelay.bench.usage import Probe
from qrelay.bench.windows import WindowPolicy
from qrelay.errors import InputError

SHARES: Final = (0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05)
FLAT: Final = 0.03
"""Growth of throughput below which a step of a sweep is not worth it."""
Progress = Callable[[Level], None]


def best_of(levels: Sequence[Level]) -> Level:
    """The level of highest throughput.

    Raises:
        InputError: there are none.
    """
    if not levels:
        raise InputError("no levels: measure at least one")
    return max(levels, key=lambda level: level.throughput.value)


def rates_of(best: Level, shares: Sequence[float] = SHARES) -> list[float]:
    """Requests a second, rising: these shares of what was answered a second at the level `best`.

    Raises:
        InputError: nothing was answered there, or a share is not above 0.
    """
    if best.items == 0 or not best.requests_per_s:
        raise InputError("nothing was answered without an error in the closed loop: fix that, or give rates")
    if not all(share > 0 for share in shares):
        raise InputError(f"shares {list(shares)}: use shares above 0, such as 0.5")
    return [share * best.requests_per_s for share in sorted(shares)]


def capacity_of(levels: Sequence[Level]) -> float | None:
    """Requests a second that closed loops of rising concurrency found to be the most; None where they ended before
    two levels brought no more."""
    flat = _is_flat([level.throughput.value for level in levels], FLAT)
    return best_of(levels).requests_per_s if flat else None


async def sweep_closed(
    target: Target,
    policy: WindowPolicy,
    probe: Probe,
    numbers: Iterator[int],
    *,
    start: int = 1,
    factor: float = 2,
    limit: int = 256,
    flat: float = FLAT,
    progress: Progress | None = None,
) -> list[Level]:
    """Closed loops of `start`, `start * factor`, … requests, at most `limit`: until two levels brought less than
    `flat` over the best before them, or nothing is answered. One may fall: batches that go round together leave gaps.

    Raises:
        InputError: bounds that do not make a sweep.
    """
    if not (1 <= start <= limit and factor > 1 and flat >= 0):
        raise InputError(
            f"a sweep from {start} by {factor} up to {limit}: use 1 <= start <= limit and a factor above 1"
        )
    levels: list[Level] = []
    concurrency = start
    while concurrency <= limit and not _is_flat([level.throughput.value for level in levels], flat):
        levels.append(await closed_loop(target, concurrency, policy, probe, numbers))
        if progress:
            progress(levels[-1])
        concurrency = max(concurrency + 1, round(concurrency * factor))
    return levels


async def sweep_open(
    target: Target,
    rates: Sequence[float],
    policy: WindowPolicy,
    probe: Probe,
    numbers: Iterator[int],
    *,
    seed: int = 0,
    progress: Progress | None = None,
    capacity: float | None = None,
) -> list[Level]:
    """Open loops at these requests a second, in this order: rising rates keep the backlog of a saturated level out of
    the next one. Each level has gaps of its own, all fixed by the seed. capacity: as `open_loop`."""
    levels = []
    for number, rate in enumerate(rates):
        levels.append(await open_loop(target, rate, policy, probe, numbers, seed + number, capacity=capacity))
        if progress:
            progress(levels[-1])
    return levels


def _is_flat(rates: Sequence[float], flat: float) -> bool:
    """Whether a further step of the sweep is not worth it; rates: items/s of the levels so far."""
    return bool(rates) and (rates[-1] == 0 or (len(rates) > 2 and max(rates[-2:]) < (1 + flat) * max(rates[:-2])))
