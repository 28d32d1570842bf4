"""Who graded how much of a collection, and how far people agree: each person's own latest grade of each pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import sqlalchemy as sa

from qrelay.labels.ledger import overrides, schema
from qrelay.labels.ledger.overrides import Override, standing

MOST_PEOPLE: Final = 12
"""In a table of who agrees with whom: those with the most grades."""
_o, _q = schema.overrides.c, schema.queries.c

Pair = tuple[int, str]
"""query_no, passage_id."""
Grades = Mapping[str, Mapping[Pair, int]]
"""Author -> pair -> their latest grade, on one scale; what they took back is not in it."""


@dataclass(frozen=True, slots=True)
class Person:
    """graded: pairs; stands: of these, where their decision is the pair's."""

    name: str
    graded: int
    stands: int


@dataclass(frozen=True, slots=True)
class Two:
    """Two people on the pairs that both graded. kappa: Cohen's; weighted: with quadratic weights; None: fewer than
    two pairs."""

    one: str
    other: str
    pairs: int
    equal: int
    kappa: float | None
    weighted: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """A collection's people. pairs: judged; decided: with a decision that stands."""

    pairs: int
    decided: int
    people: tuple[Person, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """On one scale. pairs: graded by two people or more. alpha: Krippendorff's, ordinal; fleiss: Fleiss' kappa; None
    where nothing varies, or no pair is shared."""

    scale: str
    pairs: int
    alpha: float | None
    fleiss: float | None
    between: tuple[Two, ...]


def progress(connection: sa.Connection, collection: str, scales: Mapping[str, Grades]) -> Progress:
    """How far people are; the busiest first. `scales`: see `by_scale`."""
    counts = sa.select(sa.func.sum(_q.pairs), sa.func.sum(_q.people)).where(_q.collection == collection)
    pairs, decided = connection.execute(counts).one()
    graded: Counter[str] = Counter()
    for grades in scales.values():
        graded.update({author: len(given) for author, given in grades.items()})
    joined = schema.overrides.join(schema.queries, _o.query_no == _q.query_no)
    chosen = sa.select(_o.author, sa.func.count()).select_from(joined).where(_q.collection == collection, standing())
    stands = {author: int(count) for author, count in connection.execute(chosen.group_by(_o.author))}
    people = [Person(name, count, stands.get(name, 0)) for name, count in graded.items()]
    people.sort(key=lambda each: (-each.graded, each.name))
    return Progress(int(pairs or 0), int(decided or 0), tuple(people))


def by_scale(connection: sa.Connection, collection: str) -> dict[str, dict[str, dict[Pair, int]]]:
    """Scale -> the grades on it, scales by how much they were used."""
    latest = sa.func.row_number().over(
        partition_by=(_o.query_no, _o.passage_id, _o.author), order_by=_o.override_no.desc()
    )
    joined = schema.overrides.join(schema.queries, _o.query_no == _q.query_no)
    said = (
        sa.select(_o.query_no, _o.passage_id, _o.author, _o.grade, _o.scale, latest.label("place"))
        .select_from(joined)
        .where(_q.collection == collection)
        .subquery()
    )
    chosen = sa.select(said).where(said.c.place == 1, said.c.grade.is_not(None))
    found: dict[str, dict[str, dict[Pair, int]]] = {}
    for number, passage_id, author, grade, scale, _ in connection.execute(chosen):
        found.setdefault(scale, {}).setdefault(author, {})[number, passage_id] = grade
    used = {scale: sum(map(len, grades.values())) for scale, grades in found.items()}
    return dict(sorted(found.items(), key=lambda item: (-used[item[0]], item[0])))


def grades_of(
    connection: sa.Connection, collection: str, author: str, query_ids: Sequence[str]
) -> dict[tuple[str, str], Override]:
    """(query_id, passage_id) -> the person's own latest grade of every pair of these queries that they graded and
    did not take back."""
    said = overrides.of_queries(connection, collection, query_ids, _o.author == author)
    found = {(each.query_id, each.passage_id): each for each in said}
    return {pair: each for pair, each in found.items() if each.grade is not None}


def agreement(scale: str, grades: Grades) -> Agreement:
    """How far the people agree, of those with the most grades (MOST_PEOPLE)."""
    names = sorted(grades, key=lambda name: (-len(grades[name]), name))[:MOST_PEOPLE]
    counts = Counter(pair for name in names for pair in grades[name])
    shared = sorted(pair for pair, count in counts.items() if count > 1)
    alpha, fleiss = _of_all(grades, names, shared) if shared else (None, None)
    between = tuple(_two(one, other, grades) for one, other in combinations(names, 2))
    return Agreement(scale, len(shared), alpha, fleiss, tuple(each for each in between if each.pairs))


def _of_all(grades: Grades, names: list[str], shared: list[Pair]) -> tuple[float | None, float | None]:
    import numpy as np

    from qrelay.stats.agreement import fleiss_kappa
    from qrelay.stats.alpha import alpha_of

    table = np.array([[grades[name].get(pair, np.nan) for pair in shared] for name in names], dtype=float)
    values = np.unique(table[~np.isnan(table)])
    counts = np.stack([(table == value).sum(0) for value in values], axis=1)
    return _told(alpha_of(table)), _told(fleiss_kappa(counts))


def _two(one: str, other: str, grades: Grades) -> Two:
    from qrelay.stats.agreement import kappa

    both = sorted(grades[one].keys() & grades[other].keys())
    a, b = ([grades[name][pair] for pair in both] for name in (one, other))
    equal = sum(x == y for x, y in zip(a, b, strict=True))
    if len(both) < 2:
        return Two(one, other, len(both), equal, None, None)
    return Two(one, other, len(both), equal, kappa(a, b), kappa(a, b, "quadratic"))


def _told(value: float) -> float | None:
    return None if value != value else value
