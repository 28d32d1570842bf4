"""The commit of a batch of judged sets, within a transaction that the caller opened.

The first text for a (collection, query_id) wins, and so do its judgments: nothing is ever updated. That
holds between processes because the unique key decides, not a look before the insert.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa

from qrelay.errors import QrelayError, QueryConflict
from qrelay.identity import judge_digest
from qrelay.types import JudgeIdentity
from services.sink.ledger import dead_letters, schema
from services.sink.ledger.database import insert_new, upsert
from services.sink.ledger.rows import PreparedSet, Row


class CommitStatus(enum.Enum):
    """What became of a judged set that was accepted."""

    COMMITTED = "committed"
    DUPLICATE = "duplicate"
    """This submission was in the ledger already; nothing changed."""


_INSERT_QUERIES = insert_new(schema.queries).returning(
    schema.queries.c.query_no, schema.queries.c.collection, schema.queries.c.query_id
)
_INSERT_SETS = schema.candidate_sets.insert()
_INSERT_PASSAGES = insert_new(schema.passages)
_INSERT_JUDGES = insert_new(schema.judges)
_INSERT_JUDGMENTS = insert_new(schema.judgments)
_INSERT_GENERATIONS = schema.generations.insert()


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


def begin_changes(connection: sa.Connection, collections: Iterable[str]) -> dict[str, int]:
    """collection -> the number of the change that this transaction makes to it. Holds each collection's row until the
    transaction ends; taken in the order of their names, so that two writers cannot wait for each other."""
    table = schema.collections
    found = {}
    for collection in sorted(collections):
        row = {"collection": collection, "change_no": 1, "hard_examples": 0, "disagreements": 0, "judged": 0}
        insert = upsert(table).values(row)
        taken = insert.on_conflict_do_update(
            index_elements=[table.c.collection], set_={"change_no": table.c.change_no + 1}
        ).returning(table.c.change_no)
        found[collection] = int(connection.execute(taken).scalar_one())
    return found


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
    number_judges(connection, {judge for _, item in items for judge in item.judges}, judge_numbers)
    connection.execute(_INSERT_SETS, [{"query_no": number, "packed": item.packed} for number, item in items])
    passages = {(row["collection"], row["text_hash"]): row for _, item in items for row in item.passage_rows}
    if passages:
        # In key order, so that neighbours share pages of the index.
        connection.execute(_INSERT_PASSAGES, [passages[key] for key in sorted(passages)])
    judgments: list[Row] = [
        {**row, "query_no": number, "judge_no": judge_numbers[judge]}
        for number, item in items
        for row, judge in zip(item.judgment_rows, item.judges, strict=True)
    ]
    if judgments:
        connection.execute(_INSERT_JUDGMENTS, judgments)


def _insert_generations(
    connection: sa.Connection,
    items: Sequence[tuple[int, PreparedSet]],
    changes: Mapping[str, int],
    now_us: int,
) -> None:
    rows = [
        {
            "query_no": number,
            "generation": 0,
            "change_no": changes[item.query.collection],
            "added_us": now_us,
            "judgments": len(item.judgment_rows),
        }
        for number, item in items
    ]
    if rows:
        connection.execute(_INSERT_GENERATIONS, rows)


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
