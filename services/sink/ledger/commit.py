"""The commit of a batch of judged sets, within a transaction that the caller opened.

The first text for a (collection, query_id) wins, and so do its judgments: nothing is ever updated. That
holds between processes because the unique key decides, not a look before the insert.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from qrelay.errors import QrelayError, QueryConflict
from qrelay.identity import judge_digest
from qrelay.types import JudgeIdentity
from services.sink.ledger import dead_letters, schema
from services.sink.ledger.bulk import insert_absent, insert_rows
from services.sink.ledger.changes import begin_changes
from services.sink.ledger.database import insert_new, upsert
from services.sink.ledger.rows import JudgmentRow, PassageRow, PreparedSet


class CommitStatus(enum.Enum):
    """What became of a judged set that was accepted."""

    COMMITTED = "committed"
    DUPLICATE = "duplicate"
    """This submission was in the ledger already; nothing changed."""


_BY_ID = (schema.queries.c.collection, schema.queries.c.query_id)
_INSERT_QUERIES = (
    upsert(schema.queries).on_conflict_do_nothing(index_elements=_BY_ID).returning(schema.queries.c.query_no, *_BY_ID)
)
_INSERT_JUDGES = insert_new(schema.judges)
_GRADE, _UTILITY, _REASON = map(JudgmentRow._fields.index, ("grade", "utility", "missing_reason"))


def commit_batch(
    connection: sa.Connection,
    batch: Sequence[PreparedSet],
    judge_numbers: dict[JudgeIdentity, int],
    now_us: int,
) -> list[CommitStatus | QrelayError]:
    """Writes the batch's new queries and answers each item in order.

    `judge_numbers` is what the caller knows of `judges`; numbers found here are added to it, so that the
    caller must forget them if the transaction does not commit.
    """
    first: dict[tuple[str, str], PreparedSet] = {}
    for item in batch:
        first.setdefault((item.query.collection, item.query.query_id), item)
    changes = begin_changes(connection, {collection for collection, _ in first})
    numbers = _insert_queries(connection, list(first.values()), changes, now_us)
    texts = _texts_of(connection, [key for key in first if key not in numbers])
    new = [(numbers[key], item) for key, item in first.items() if key in numbers]
    _insert_sets(connection, new, judge_numbers)
    _insert_generations(connection, new, changes, now_us)
    results: list[CommitStatus | QrelayError] = []
    for item in batch:
        key = (item.query.collection, item.query.query_id)
        stands = texts.get(key) or first[key].query.text
        if stands != item.query.text:
            results.append(conflict(item, stands))
        elif key in numbers and first[key] is item:
            results.append(CommitStatus.COMMITTED)
        else:
            results.append(CommitStatus.DUPLICATE)
    accepted = [i.submission for i, r in zip(batch, results, strict=True) if isinstance(r, CommitStatus)]
    dead_letters.resolve(connection, accepted, now_us)
    return results


def _insert_queries(
    connection: sa.Connection, items: Sequence[PreparedSet], changes: Mapping[str, int], now_us: int
) -> dict[tuple[str, str], int]:
    """(collection, query_id) -> query_no of the queries that were new."""
    rows = [{**item.query_row, "committed_us": now_us, "change_no": changes[item.query.collection]} for item in items]
    inserted = connection.execute(_INSERT_QUERIES, rows)
    return {(collection, query_id): number for number, collection, query_id in inserted}


def _texts_of(connection: sa.Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The committed texts of these (collection, query_id)."""
    by_collection: dict[str, list[str]] = {}
    for collection, query_id in keys:
        by_collection.setdefault(collection, []).append(query_id)
    found: dict[tuple[str, str], str] = {}
    columns = schema.queries.c
    for collection, ids in by_collection.items():
        chosen = sa.select(columns.query_id, columns.text).where(
            columns.collection == collection, columns.query_id.in_(ids)
        )
        found.update({(collection, query_id): text for query_id, text in connection.execute(chosen)})
    return found


def _insert_sets(
    connection: sa.Connection,
    items: Sequence[tuple[int, PreparedSet]],
    judge_numbers: dict[JudgeIdentity, int],
) -> None:
    if not items:
        return
    packed = [(number, item.packed) for number, item in items]
    insert_rows(connection, schema.candidate_sets, ("query_no", "packed"), packed)
    _insert_passages(connection, [row for _, item in items for row in item.passage_rows])
    judges = {id(judge): judge for _, item in items for judge in item.judges}  # few, and slow to hash
    number_judges(connection, set(judges.values()), judge_numbers)
    known = {key: judge_numbers[judge] for key, judge in judges.items()}
    insert_judgments(
        connection,
        [
            (number, known[id(judge)], row)
            for number, item in items
            for row, judge in zip(item.judgment_rows, item.judges, strict=True)
        ],
    )


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


def _insert_passages(connection: sa.Connection, rows: Sequence[PassageRow]) -> None:
    """Those that the ledger lacks. Nobody else adds passages of these collections: the caller holds their rows."""
    new = [*{row[:2]: row for row in rows}.values()]
    # In key order, so that neighbours share pages of the index. Twice by one column is faster than once by both.
    new.sort(key=itemgetter(1))
    new.sort(key=itemgetter(0))
    insert_absent(connection, schema.passages, PassageRow._fields, new)


def _insert_generations(
    connection: sa.Connection,
    items: Sequence[tuple[int, PreparedSet]],
    changes: Mapping[str, int],
    now_us: int,
) -> None:
    columns = ("query_no", "generation", "change_no", "added_us", "judgments")
    rows = [(number, 0, changes[item.query.collection], now_us, len(item.judgment_rows)) for number, item in items]
    insert_rows(connection, schema.generations, columns, rows)


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


def conflict(item: PreparedSet, stands: str) -> QueryConflict:
    """The error of a set whose query_id `stands` for another text."""
    return QueryConflict(
        f"query_id {item.query.query_id} of collection {item.query.collection} stands for {_short(stands)} and was"
        f" submitted again with the text {_short(item.query.text)}: the first stays; give the other a new query_id"
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
