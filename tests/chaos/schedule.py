"""What breaks, and when: drawn from the seed before anything starts, so that a seed can be replayed.

The queries are fed in as many portions as there are steps: a portion, a moment, then the fault, so that each fault
meets work. Processes are scheduled by the machine, so a replay breaks the same things in the same order around the
same queries, not at the same instruction; the named points are what hits an instruction.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

SERVICES = ("retriever", "reranker", "judge", "sink")
QUEUES = ("queries", "retrieved", "reranked", "judged")


@dataclass(frozen=True, slots=True)
class Step:
    """One fault. `delay_s`: seconds after its portion of queries was fed; `nth`: for named points, the pass that
    kills; `victim`, `queue`: for faults that take one; `length`: 0 to 1, how long of what the kind allows."""

    kind: str
    delay_s: float
    nth: int
    victim: str
    queue: str
    length: float

    def __str__(self) -> str:
        return f"{self.kind}(+{self.delay_s}s n={self.nth} {self.victim} {self.queue} {self.length})"


def draw(seed: int, kinds: Sequence[str], steps: int) -> list[Step]:
    """The schedule of a seed: `steps` of these kinds, no kind twice before each was drawn once."""
    random_steps = random.Random(seed)
    chosen: list[str] = []
    while len(chosen) < steps:
        chosen += random_steps.sample(sorted(kinds), min(len(kinds), steps - len(chosen)))
    return [
        Step(
            kind,
            round(random_steps.uniform(0.0, 0.8), 2),
            random_steps.randint(1, 4),
            random_steps.choice(SERVICES),
            random_steps.choice(QUEUES),
            round(random_steps.random(), 2),
        )
        for kind in chosen
    ]
