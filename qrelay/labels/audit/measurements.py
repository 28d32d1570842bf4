"""Every measurement of a collection, counted by the database: the groups are few whatever the ledger holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.reader import Snapshot

WEEK_US: Final = 7 * 24 * 3600 * 1_000_000
BINS: Final = 6
_MAX_PERIODS: Final = 1000
_queries, _judgments = schema.queries.c, schema.judgments.c


@dataclass(frozen=True, slots=True)
class Group:
    """`count` measurements that share all this. `period` counts from 0."""

    judge_no: int
    period: int
    generation: int
    grade: int | None
    missing_reason: str | None
    cached: bool
    count: int


@dataclass(frozen=True, slots=True)
class Measurements:
    """All groups. Periods are `width_us` long from `start_us`, microseconds since 1970 UTC."""

    groups: tuple[Group, ...]
    start_us: int
    width_us: int


def measurements(snapshot: Snapshot, collection: str, bins: int | None = BINS) -> Measurements:
    """The collection's measurements by period of judging: `bins` periods of equal length, or weeks where it is None.

    Raises:
        InputError: more than 1000 weeks, so that a clock was wrong.
    """
    first, last = _span(snapshot, collection)
    width = WEEK_US if bins is None else max(1, -(-(last - first + 1) // bins))
    if (last - first) // width >= _MAX_PERIODS:
        raise InputError(
            f"the labels span {(last - first) // WEEK_US} weeks, which no ledger does: ask for --drift-periods N"
        )
    rows = snapshot.connection.execute(_grouped(snapshot, collection, first, width))
    groups = (Group(no, int(at), gen, grade, why, bool(hit), int(n)) for no, at, gen, grade, why, hit, n in rows)
    return Measurements(tuple(sorted(groups, key=_order)), first, width)


def _grouped(snapshot: Snapshot, collection: str, start_us: int, width_us: int) -> sa.Select[Any]:
    """(judge_no, period, generation, grade, missing_reason, cached, count). The periods are made in a subquery, for a
    parameter within GROUP BY is not the same expression twice to PostgreSQL."""
    names = ("judge_no", "generation", "grade", "missing_reason", "cached")
    period = ((_judgments.judged_us - start_us) // width_us).label("period")
    each = _of(sa.select(period, *(_judgments[name] for name in names)), snapshot, collection).subquery().c
    by = (each.judge_no, each.period, each.generation, each.grade, each.missing_reason, each.cached)
    return sa.select(*by, sa.func.count()).group_by(*by)


def _span(snapshot: Snapshot, collection: str) -> tuple[int, int]:
    chosen = sa.select(sa.func.min(_judgments.judged_us), sa.func.max(_judgments.judged_us))
    first, last = snapshot.connection.execute(_of(chosen, snapshot, collection)).one()
    return int(first or 0), int(last or 0)


def _of(chosen: sa.Select[Any], snapshot: Snapshot, collection: str) -> sa.Select[Any]:
    """Of the collection, and of judges that are not retracted."""
    joined = schema.judgments.join(schema.queries, _judgments.query_no == _queries.query_no)
    counts = _judgments.judge_no.not_in(list(snapshot.retracted))
    return chosen.select_from(joined).where(_queries.collection == collection, counts)


def _order(group: Group) -> tuple[int, int, int, int, str, bool]:
    grade = -(10**9) if group.grade is None else group.grade
    return group.judge_no, group.period, group.generation, grade, group.missing_reason or "", group.cached
