"""Seeds one after another."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.simulation.installation import Parts
from tests.simulation.plan import draw_plan
from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a seed came to.

    findings: what is wrong. digest: of every event. dead: sound queries that ended as dead letters. settled_s:
    simulated seconds from the last fault until everything was settled. seconds: what it took.
    """

    seed: int
    findings: tuple[str, ...]
    digest: str
    events: int
    steps: int
    queries: int
    dead: int
    settled_s: float
    seconds: float


def run_seed(
    seed: int, *, odd: str = "", parts: Parts | None = None, say: Callable[[str], None] | None = None
) -> Outcome:
    """One seed. `odd`: see `plan.draw_plan`; `parts`: see `mutations.py`; `say` hears every event."""
    plan, began = draw_plan(seed, odd), time.perf_counter()
    if say:
        say(str(plan))
    world = World(plan, parts, say)
    findings = tuple(world.run().findings)
    return Outcome(
        seed, findings, world.digest, world.events, world.steps, len(plan.queries), world.checker.dead,
        world.settled_s,
        time.perf_counter() - began,
    )  # fmt: skip


def run_seeds(seeds: Iterable[int], *, odd: str = "", parts: Parts | None = None) -> Iterator[Outcome]:
    """Each seed's outcome as it is there."""
    with _quiet():
        for seed in seeds:
            yield run_seed(seed, odd=odd, parts=parts)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without logs, of which a broken world writes many, and with the garbage collector as services have it."""
    disabled, thresholds = logging.root.manager.disable, gc.get_threshold()
    logging.disable(logging.CRITICAL)
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        logging.disable(disabled)
        gc.set_threshold(*thresholds)
