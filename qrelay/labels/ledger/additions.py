"""What commits, later rounds and re-judgments all write: judges, passages, judgments, generations and counters.

Judgments are append-only, and their key decides what is new: a grade stands for ever, and a judgment that is missing
may get a grade of the same judge beside it, for nothing was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from qrelay.identity import judge_digest
from qrelay.labels.ledger import retractions, schema
from qrelay.labels.ledger.bulk import insert_absent, insert_rows
from qrelay.labels.ledger.database import insert_new
from qrelay.labels.ledger.refresh import refresh
from qrelay.labels.ledger.rows import JudgmentRow, PassageRow, PreparedSet
from qrelay.types import JudgeIdentity

_INSERT_JUDGES = insert_new(schema.judges)
_GRADE, _UTILITY, _REASON = map(JudgmentRow._fields.index, ("grade", "utility", "missing_reason"))
_GENERATION = ("query_no", "generation", "change_no", "added_us", "judgments", "round", "left_out")
_queries, _judgments, _generations = schema.queries.c, schema.judgments.c, schema.generations.c


def insert_judgments(connection: sa.Connection, rows: Sequence[tuple[int, int, JudgmentRow]]) -> None:
    """(query_no, judge_no, row): new judgments. Columns that are NULL throughout are left out: drivers are slow to
    say NULL."""
    plain: list[tuple[Any, ...]] = []
    measured: list[tuple[Any, ...]] = []
    missing: list[tuple[Any, ...]] = []
    for query_no, judge_no, row in rows:
        if row.missing_reason is not None:
            missing.append((query_no, judge_no, *row[:_GRADE], *row[_REASON:]))
        elif row.utility is not None:
            measured.append((query_no, judge_no, *row[:_REASON]))
        else:
            plain.append((query_no, judge_no, *row[:_UTILITY]))
    names = JudgmentRow._fields
    kinds = ((names[:_UTILITY], plain), (names[:_REASON], measured), (names[:_GRADE] + names[_REASON:], missing))
    for columns, chosen in kinds:
        insert_rows(connection, schema.judgments, ("query_no", "judge_no", *columns), chosen)


def insert_passages(connection: sa.Connection, rows: Sequence[PassageRow]) -> None:
    """Those that the ledger lacks. Nobody else adds passages of these collections: the caller holds their rows."""
    new = [*{row[:2]: row for row in rows}.values()]
    # In key order, so that neighbours share pages of the index. Twice by one column is faster than once by both.
    new.sort(key=itemgetter(1))
    new.sort(key=itemgetter(0))
    insert_absent(connection, schema.passages, PassageRow._fields, new)


def number_judges(
    connection: sa.Connection, judges: set[JudgeIdentity], judge_numbers: dict[JudgeIdentity, int]
) -> None:
    """Adds the numbers of `judges` to `judge_numbers`, with a row for those that the ledger does not know."""
    unknown = {judge_digest(judge): judge for judge in judges if judge not in judge_numbers}
    if not unknown:
        return
    fields = ("model", "revision", "quantisation", "prompt_hash", "strategy", "scale", "decoding")
    rows = [
        {"judge_hash": hashed, **{name: getattr(judge, name) for name in fields}}
        for hashed, judge in sorted(unknown.items())
    ]
    connection.execute(_INSERT_JUDGES, rows)
    columns = schema.judges.c
    found = sa.select(columns.judge_no, columns.judge_hash).where(columns.judge_hash.in_(unknown))
    for number, hashed in connection.execute(found):
        judge_numbers[unknown[hashed]] = number


def insert_generations(
    connection: sa.Connection, rows: Sequence[tuple[int, int, int, int, int, int | None, int]]
) -> None:
    """(query_no, generation, change_no, added_us, judgments, round, left_out): see `schema.generations`."""
    insert_rows(connection, schema.generations, _GENERATION, rows)


def next_generation(connection: sa.Connection, query_no: int) -> int:
    """The number of what is added to a query next."""
    chosen = sa.select(sa.func.max(_generations.generation)).where(_generations.query_no == query_no)
    return int(connection.execute(chosen).scalar_one()) + 1


def add_judgments(
    connection: sa.Connection,
    query_no: int,
    rows: Sequence[tuple[JudgeIdentity, JudgmentRow]],
    generation: int,
    judge_numbers: dict[JudgeIdentity, int],
) -> None:
    """Writes (judge, row) as the query's `generation`, and counts them."""
    number_judges(connection, {judge for judge, _ in rows}, judge_numbers)
    added = [(query_no, judge_numbers[judge], row._replace(generation=generation)) for judge, row in rows]
    insert_judgments(connection, added)
    _count(connection, query_no, [row for _, row in rows])
    refresh(connection, [query_no], retractions.standing(connection))


def new_judgments(
    connection: sa.Connection, query_no: int, item: PreparedSet
) -> list[tuple[JudgeIdentity, JudgmentRow]]:
    """(judge, row) of the set's judgments that the query does not hold; see the module."""
    columns = (_judgments.passage_id, _judgments.judgment_key, _judgments.grade)
    held: dict[tuple[str, str], bool] = {}  # (passage_id, judgment_key) -> whether it has a grade
    for there in connection.execute(sa.select(*columns).where(_judgments.query_no == query_no)):
        key = there.passage_id, there.judgment_key
        held[key] = held.get(key, False) or there.grade is not None
    new = []
    for judge, row in zip(item.judges, item.judgment_rows, strict=True):
        key = row.passage_id, row.judgment_key
        if key not in held or (row.grade is not None and not held[key]):
            new.append((judge, row))
    return new


def _count(connection: sa.Connection, query_no: int, added: Sequence[JudgmentRow]) -> None:
    pairs = sa.select(sa.func.count(_judgments.passage_id.distinct())).where(_judgments.query_no == query_no)
    counted = {
        "judgments": _queries.judgments + len(added),
        "pairs": pairs.scalar_subquery(),
        "missing": _queries.missing + sum(row.grade is None for row in added),
        "cached": _queries.cached + sum(row.cached for row in added),
        "prompt_tokens": _queries.prompt_tokens + sum(row.prompt_tokens for row in added),
    }
    connection.execute(schema.queries.update().where(_queries.query_no == query_no).values(counted))
