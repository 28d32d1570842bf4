"""The judgments that a range of changes brought, and what people decided then: as an export of that time read them.

Of each query that a change of the range touched: every judgment of the export's judges whose generation is not
younger than the range, but those of judges that were retracted then. `counted`: its label is the one of its pair that
the export took (`labels/choice.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import sqlalchemy as sa

from qrelay.labels.choice import in_order
from qrelay.labels.ledger import people, retractions, schema
from qrelay.labels.ledger.reader import LABEL_COLUMNS, JudgeRow, Label, Snapshot
from qrelay.labels.ledger.times import moment
from qrelay.labels.lineage.covered import Covered

_PAGE: Final = 256
_queries, _judgments, _generations = schema.queries.c, schema.judgments.c, schema.generations.c
_overrides = schema.overrides.c


def judgments(
    snapshot: Snapshot, wanted: Covered, query_id: str = "", *, after: str = "", page: int = _PAGE
) -> Iterator[dict[str, Any]]:
    """By query_id, passage_id, and within a pair in the order in which labels count. One query's with `query_id`;
    those of queries behind `after`. page: queries that are read at a time."""
    last = snapshot.change_no(wanted.collection) if wanted.to_change is None else wanted.to_change
    judges = _judges(snapshot, wanted, last)
    for found in _pages(snapshot.connection, wanted, last, query_id, after, page):
        names = {row.query_no: row.query_id for row in found}
        rows = [*_judged(snapshot.connection, names, judges, last)]
        if wanted.people:
            rows += _decided(snapshot.connection, names, judges, last)
        rows.sort(key=lambda row: (names[row["query_no"]].encode(), row["label"].passage_id.encode()))
        for _, pair in groupby(rows, key=lambda row: (row["query_no"], row["label"].passage_id)):
            yield from _pair(list(pair), names, judges)


def counts(snapshot: Snapshot, wanted: Covered) -> dict[str, Any]:
    """How many of them there are; see `qrelay.models.registry.ledgerside.LedgerSide.counts`."""
    found: dict[str, dict[str, int]] = {}
    queries, last, total = 0, None, 0
    for row in judgments(snapshot, wanted):
        each = found.setdefault(row["judge"], {"measurements": 0, "graded": 0, "missing": 0, "counted": 0})
        each["measurements"] += 1
        each["missing" if row["grade"] is None else "graded"] += 1
        each["counted"] += row["counted"]
        queries, total, last = queries + (row["query_id"] != last), total + 1, row["query_id"]
    return {"queries": queries, "judgments": total, "judges": dict(sorted(found.items()))}


def _judges(snapshot: Snapshot, wanted: Covered, last: int) -> dict[int, JudgeRow]:
    """Those whose labels the export read."""
    then = retractions.standing_at(snapshot.connection, wanted.collection, last)
    every = snapshot.judges(retracted=True)
    return {
        no: judge
        for no, judge in every.items()
        if no not in then and (not wanted.judges or judge.judge_hash in wanted.judges)
    }


def _pages(
    connection: sa.Connection, wanted: Covered, last: int, query_id: str, after: str, page: int
) -> Iterator[Sequence[Any]]:
    """(query_no, query_id) of the queries that a change of the range touched."""
    chosen = (
        sa.select(_queries.query_no, _queries.query_id)
        .where(_queries.collection == wanted.collection, _touched(connection, wanted, last))
        .order_by(_queries.query_id)
        .limit(page)
    )
    if query_id:
        chosen = chosen.where(_queries.query_id == query_id)
    while rows := connection.execute(chosen.where(_queries.query_id > after)).all():
        yield rows
        after = rows[-1].query_id


def _touched(connection: sa.Connection, wanted: Covered, last: int) -> sa.ColumnElement[bool]:
    """The condition on a query that labels of it were added, decided by people, retracted or restored in the
    range."""
    first = wanted.from_change
    retracted = [
        number
        for number, row in retractions.numbered(connection)
        if first < row.changes.get(wanted.collection, 0) <= last
    ]
    of_query = _judgments.query_no == _queries.query_no
    return sa.or_(
        sa.exists().where(
            _generations.query_no == _queries.query_no, _generations.change_no > first, _generations.change_no <= last
        ),
        sa.exists().where(
            _overrides.query_no == _queries.query_no, _overrides.change_no > first, _overrides.change_no <= last
        ),
        sa.exists().where(of_query, _judgments.judge_no.in_(retracted)),
    )


def _judged(
    connection: sa.Connection, names: Mapping[int, str], judges: Mapping[int, JudgeRow], last: int
) -> Iterator[dict[str, Any]]:
    joined = schema.judgments.join(
        schema.generations,
        sa.and_(_generations.query_no == _judgments.query_no, _generations.generation == _judgments.generation),
    )
    columns = (
        *LABEL_COLUMNS,
        _judgments.judgment_key,
        _judgments.judged_us,
        _generations.change_no,
    )
    of_queries = _judgments.query_no.in_(list(names)), _generations.change_no <= last
    for row in connection.execute(sa.select(*columns).select_from(joined).where(*of_queries)):
        if row.judge_no in judges:
            label = Label(*tuple[Any, ...](row)[1 : len(LABEL_COLUMNS)])
            yield {"query_no": row.query_no, "label": label, "author": "", "key": row.judgment_key,
                   "at_us": row.judged_us, "change": row.change_no}  # fmt: skip


def _decided(
    connection: sa.Connection, names: Mapping[int, str], judges: Mapping[int, JudgeRow], last: int
) -> list[dict[str, Any]]:
    """What stood of people's decisions after the range's last change."""
    chosen = sa.select(schema.overrides).where(_overrides.query_no.in_(list(names)), _overrides.change_no <= last)
    latest = {(row.query_no, row.passage_id): row
              for row in connection.execute(chosen.order_by(_overrides.override_no))}  # fmt: skip
    found = []
    for row in latest.values():
        if row.grade is None or (number := people.pseudo_judge(row.scale)[0]) not in judges:
            continue
        label = Label(row.passage_id, number, row.grade, None, None, None, None, None, 0)
        found.append({"query_no": row.query_no, "label": label, "author": row.author, "key": "",
                      "at_us": row.set_us, "change": row.change_no})  # fmt: skip
    return found


def _pair(
    rows: Sequence[dict[str, Any]], names: Mapping[int, str], judges: Mapping[int, JudgeRow]
) -> Iterator[dict[str, Any]]:
    by_label = {id(row["label"]): row for row in rows}
    for place, label in enumerate(in_order([row["label"] for row in rows], judges)):
        row, judge = by_label[id(label)], judges[label.judge_no]
        yield {
            "query_id": names[row["query_no"]],
            "passage_id": label.passage_id,
            "judgment_key": row["key"],
            "judge": judge.judge_hash,
            "grade": label.grade,
            "scale": judge.identity.scale,
            "missing": label.missing_reason,
            "p_relevant": label.p_relevant,
            "generation": label.generation,
            "change": row["change"],
            "judged_at": moment(row["at_us"]).isoformat(),
            "author": row["author"],
            "counted": place == 0,
        }
