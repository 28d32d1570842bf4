"""What one seed does: drawn before it runs, so that it can be read and replayed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from qrelay.types import Query
from tests.simulation.cores import COLLECTION, SERVICES, Moods
from tests.simulation.faults import FAULTS
from tests.simulation.hostile import KINDS, Odd, odd_message
from tests.simulation.network import Weather

FEEDING_S: Final = 6.0
TROUBLE_S: Final = 15.0
_POOL: Final = 40
_SUBJECTS: Final = ("query", "passage", "relevance", "document", "index", "vector", "score", "judge", "ledger")


@dataclass(frozen=True, slots=True)
class Moment:
    """A fault. at: simulated seconds from the start; number: seeds its own draws."""

    at: float
    kind: str
    service: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:.2f} {self.kind} {self.service} {self.seconds:.1f}"


@dataclass
class Plan:
    """See the module. queries, odd: (when, what)."""

    seed: int
    postgresql: bool
    queries: list[tuple[float, Query]]
    odd: list[tuple[float, Odd]]
    moments: list[Moment]
    weather: Weather
    moods: Moods
    broker: dict[str, float]
    store_answer_lost: float
    replicas: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        limits = "PostgreSQL" if self.postgresql else "SQLite"
        return "\n".join(
            (
                f"seed {self.seed}: {len(self.queries)} queries, a ledger with {limits}'s limits, {self.replicas}",
                f"  odd messages: {'; '.join(f'{at:.2f} {odd.kind}' for at, odd in self.odd) or 'none'}",
                f"  faults: {'; '.join(map(str, self.moments)) or 'none'}",
                f"  {self.weather} {self.moods} {self.broker} store_answer_lost={self.store_answer_lost}",
            )
        )


def draw_plan(seed: int, odd_kind: str = "") -> Plan:
    """The plan of a seed. `odd_kind`: draw every odd message of this kind, one of `hostile.KINDS`."""
    draw = random.Random(f"plan {seed}")
    return Plan(
        seed,
        postgresql=draw.random() < 0.5,
        queries=_queries(draw),
        odd=_odd(draw, [odd_kind] if odd_kind else [*KINDS]),
        moments=_moments(draw),
        weather=_weather(draw),
        moods=Moods(*(draw.choice((0.0, 0.0, 0.02, 0.1)) for _ in range(2))),
        broker={name: draw.choice((0.0, 0.0, 0.02, 0.1)) for name in _BROKER},
        store_answer_lost=draw.choice((0.0, 0.0, 0.05)),
        replicas={name: 2 if draw.random() < 0.15 else 1 for name in SERVICES},
    )


_BROKER: Final = ("publish_unconfirmed", "publish_refused", "ack_lost", "duplicate_delivery", "reorder")


def _queries(draw: random.Random) -> list[tuple[float, Query]]:
    found = []
    for number in draw.sample(range(_POOL), draw.randint(10, 13)):
        text = f"how does the {_SUBJECTS[number % 9]} of thing {number} relate to its {_SUBJECTS[number * 7 % 9]}?"
        for query_round in range(2 if draw.random() < 0.1 else 1):
            query = Query(f"q{number:02}", text, COLLECTION, round=query_round)
            found.append((draw.uniform(0.0, FEEDING_S), query))
    return sorted(found, key=lambda each: each[0])


def _odd(draw: random.Random, kinds: list[str]) -> list[tuple[float, Odd]]:
    count = draw.choice((0, 0, 1, 1, 1, 2, 4))
    return [(draw.uniform(0.0, FEEDING_S), odd_message(draw.choice(kinds), draw, n)) for n in range(count)]


def _moments(draw: random.Random) -> list[Moment]:
    kinds = [*FAULTS]
    found = [
        Moment(draw.uniform(0.0, TROUBLE_S), draw.choice(kinds), draw.choice(SERVICES), draw.expovariate(1 / 4))
        for _ in range(draw.choice((0, 1, 2, 4, 8)))
    ]
    return sorted(found, key=lambda each: each.at)


def _weather(draw: random.Random) -> Weather:
    chances = [draw.choice((0.0, 0.0, 0.02, 0.1)) for _ in range(3)]
    return Weather(*chances, delay_s=draw.choice((0.0005, 0.005, 0.05)))
