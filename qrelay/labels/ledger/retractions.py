"""Retracted judges: whose labels count no more. Append-only, authored, dated; the latest row of a judge counts.

    with ledger.writing("retract a judge") as connection:
        made = retract(connection, "3f2a…", author="ana", reason="its prompt had a fault", now_us=ledger.now_us())

No judgment is changed or deleted: readers leave a retracted judge's labels out (`reader.Snapshot`), so that another
judge's label of the same pair counts in its place. Every query that has a label of the judge carries the number of
the change, so incremental exports see the retraction, and see it undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson
import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.audit_log import record
from qrelay.labels.ledger.bulk import is_empty
from qrelay.labels.ledger.changes import begin_changes
from qrelay.labels.ledger.refresh import refresh
from qrelay.labels.ledger.times import moment

_rows, _judges = schema.judge_retractions.c, schema.judges.c
_queries, _judgments = schema.queries.c, schema.judgments.c
_NUMBERED: Final = (
    sa.select(schema.judge_retractions, _judges.judge_hash)
    .join(schema.judges, _rows.judge_no == _judges.judge_no)
    .order_by(_rows.retraction_no)
)
"""Made once: every commit asks."""


@dataclass(frozen=True, slots=True)
class Retraction:
    """A row. `retracted` False: the judge's labels count again. `changes`: collection -> the change that it is."""

    judge_hash: str
    retracted: bool
    author: str
    reason: str
    set_at: datetime
    changes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Touched:
    """What a retraction, or its undoing, touched. `judge_hash`: whole; `changed` False: it stood already."""

    judge_hash: str
    changed: bool
    labels: int = 0
    queries: int = 0
    collections: tuple[str, ...] = ()


def retract(connection: sa.Connection, judge: str, *, author: str, reason: str, now_us: int) -> Touched:
    """Labels of the judge count no more. `judge`: its hash, or a beginning that one judge has.

    Raises:
        InputError: no such judge, or several; nobody is named as the author.
    """
    return _decide(connection, judge, True, author, reason, now_us)


def restore(connection: sa.Connection, judge: str, *, author: str, reason: str, now_us: int) -> Touched:
    """Undoes `retract`; arguments and errors as there."""
    return _decide(connection, judge, False, author, reason, now_us)


def standing(connection: sa.Connection) -> dict[int, Retraction]:
    """judge_no -> its latest row, of the judges that are retracted."""
    if is_empty(connection, schema.judge_retractions):
        return {}
    found = dict(numbered(connection))  # the later of a judge wins
    return {number: row for number, row in found.items() if row.retracted}


def history(connection: sa.Connection) -> list[Retraction]:
    """Every row, oldest first."""
    return [row for _, row in numbered(connection)]


def numbered(connection: sa.Connection) -> list[tuple[int, Retraction]]:
    """Every row with the number of its judge, oldest first."""
    return [(int(row.judge_no), _of(row)) for row in connection.execute(_NUMBERED)]


def standing_at(connection: sa.Connection, collection: str, change_no: int) -> set[int]:
    """The judges that were retracted for an export of the collection up to this change."""
    found: dict[int, bool] = {}
    for number, row in numbered(connection):
        if row.changes.get(collection, 0) <= change_no:
            found[number] = row.retracted
    return {number for number, retracted in found.items() if retracted}


def judge_named(connection: sa.Connection, wanted: str) -> tuple[int, str]:
    """(number, hash) of the judge whose hash begins so.

    Raises:
        InputError: none has, or several have.
    """
    rows = connection.execute(
        sa.select(_judges.judge_no, _judges.judge_hash, _judges.model, _judges.strategy).order_by(_judges.judge_hash)
    ).all()
    found = [row for row in rows if wanted and row.judge_hash.startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(f"{row.judge_hash[:12]} ({row.strategy}, {row.model})" for row in found or rows) or "none"
        raise InputError(
            f"{wanted[:80]!r} names {len(found)} judges of the ledger: give the beginning of one of {known}"
        )
    return int(found[0].judge_no), str(found[0].judge_hash)


def _decide(connection: sa.Connection, judge: str, retracted: bool, author: str, reason: str, now_us: int) -> Touched:
    if not author.strip():
        raise InputError("nobody is named as the author of the decision: give one")
    _alone(connection)
    number, judge_hash = judge_named(connection, judge)
    if (number in standing(connection)) == retracted:
        return Touched(judge_hash, False)
    labels, by_collection = _labelled(connection, number)
    changes = begin_changes(connection, by_collection)
    mine = sa.select(_judgments.query_no).where(_judgments.judge_no == number)
    for collection, change_no in changes.items():
        touched = _queries.collection == collection, _queries.query_no.in_(mine)
        connection.execute(schema.queries.update().where(*touched).values(change_no=change_no))
    row = {"judge_no": number, "retracted": retracted, "author": author.strip(), "reason": reason, "set_us": now_us,
           "changes": orjson.dumps(changes, option=orjson.OPT_SORT_KEYS).decode()}  # fmt: skip
    connection.execute(schema.judge_retractions.insert(), row)
    refresh(connection, connection.execute(mine.distinct()).scalars(), standing(connection))
    record(
        connection, "retract a judge" if retracted else "restore a judge", now_us, subject=judge_hash, count=labels
    )
    return Touched(judge_hash, True, labels, sum(by_collection.values()), tuple(sorted(by_collection)))


def _labelled(connection: sa.Connection, judge_no: int) -> tuple[int, dict[str, int]]:
    """(labels of the judge, collection -> queries with one)."""
    joined = schema.judgments.join(schema.queries, _judgments.query_no == _queries.query_no)
    counted = sa.select(_queries.collection, sa.func.count(), sa.func.count(_judgments.query_no.distinct()))
    rows = connection.execute(
        counted.select_from(joined).where(_judgments.judge_no == judge_no).group_by(_queries.collection)
    ).all()
    return sum(int(row[1]) for row in rows), {str(row[0]): int(row[2]) for row in rows}


def _alone(connection: sa.Connection) -> None:
    """No commit passes until the transaction ends: a label that it brought would be missed. SQLite's writers are
    alone anyway."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"LOCK TABLE {schema.collections.name} IN EXCLUSIVE MODE")


def _of(row: Any) -> Retraction:
    return Retraction(
        row.judge_hash, bool(row.retracted), row.author, row.reason, moment(row.set_us), orjson.loads(row.changes)
    )
