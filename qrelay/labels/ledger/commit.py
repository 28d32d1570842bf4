"""The commit of a batch of judged sets, within a transaction that the caller opened.

The first text for a (collection, query_id) wins, and so do its judgments: none is ever updated. That holds between
processes because the unique key decides, not a look before the insert. A set of a round that the query does not have
joins it (`merge.py`); one of a round that it has is a duplicate.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from qrelay.errors import QrelayError, QueryConflict
from qrelay.labels.ledger import bulk, dead_letters, forgetting, retractions, schema
from qrelay.labels.ledger.additions import insert_generations, insert_judgments, insert_passages, number_judges
from qrelay.labels.ledger.changes import begin_changes
from qrelay.labels.ledger.merge import Added, merge
from qrelay.labels.ledger.refresh import refresh
from qrelay.labels.ledger.rows import PreparedSet
from qrelay.types import JudgeIdentity


class CommitStatus(enum.Enum):
    """What became of a judged set that was accepted."""

    COMMITTED = "committed"
    DUPLICATE = "duplicate"
    """This submission was in the ledger already, in this round; nothing changed."""
    FORGOTTEN = "forgotten"
    """Its query was forgotten (`forgetting.py`): nothing of it is stored."""


_Key = tuple[Any, ...]
"""(collection, query_id)."""


@dataclass(slots=True)
class _Held:
    """What the ledger holds of a query: its number, its text, and which rounds are in."""

    query_no: int
    text: str
    rounds: set[int]


def commit_batch(
    connection: sa.Connection,
    batch: Sequence[PreparedSet],
    judge_numbers: dict[JudgeIdentity, int],
    now_us: int,
) -> tuple[list[CommitStatus | QrelayError], list[Added]]:
    """Writes the batch's new queries and rounds; answers each item in order, and says what was added.

    `judge_numbers` is what the caller knows of `judges`; numbers found here are added to it, so that the
    caller must forget them if the transaction does not commit.
    """
    first: dict[_Key, PreparedSet] = {}
    for item in batch:
        first.setdefault(_key(item), item)
    changes = begin_changes(connection, {collection for collection, _ in first})
    gone = forgetting.among(connection, first)
    first = {key: item for key, item in first.items() if key not in gone}
    numbers = _insert_queries(connection, list(first.values()), changes, now_us)
    new = [(numbers[key], item) for key, item in first.items() if key in numbers]
    _insert_sets(connection, new, judge_numbers)
    _without_retracted(connection, new, judge_numbers)
    insert_generations(connection, [_first_generation(number, item, changes, now_us) for number, item in new])
    added = [Added(item.record) for _, item in new]
    written = {id(item) for _, item in new}
    held = _held(connection, [_key(item) for item in batch if id(item) not in written and _key(item) not in gone])
    results: list[CommitStatus | QrelayError] = []
    for item in batch:
        if _key(item) in gone:
            results.append(CommitStatus.FORGOTTEN)
            continue
        result = CommitStatus.COMMITTED if id(item) in written else _again(held[_key(item)], item)
        if result is CommitStatus.COMMITTED and id(item) not in written:
            there, change_no = held[_key(item)], changes[item.query.collection]
            added.append(merge(connection, there.query_no, item, judge_numbers, change_no, now_us))
            there.rounds.add(item.query.round)
        results.append(result)
    pairs = zip(batch, results, strict=True)
    accepted = [(item.submission, item.query.round) for item, result in pairs if isinstance(result, CommitStatus)]
    dead_letters.resolve(connection, accepted, now_us)
    return results, added


def _key(item: PreparedSet) -> _Key:
    return item.query.collection, item.query.query_id


def _again(there: _Held, item: PreparedSet) -> CommitStatus | QrelayError:
    """What becomes of a set whose query is in the ledger; COMMITTED: it is to be merged."""
    if there.text != item.query.text:
        return conflict(item, there.text)
    return CommitStatus.DUPLICATE if item.query.round in there.rounds else CommitStatus.COMMITTED


def _insert_queries(
    connection: sa.Connection, items: Sequence[PreparedSet], changes: Mapping[str, int], now_us: int
) -> dict[_Key, int]:
    """query_no of the queries that were new."""
    if not items:
        return {}
    columns = (*items[0].query_row, "committed_us", "change_no")
    rows = [(*item.query_row.values(), now_us, changes[item.query.collection]) for item in items]
    return bulk.insert_new(connection, schema.queries, columns, rows, ("collection", "query_id"), "query_no")


def _held(connection: sa.Connection, keys: Sequence[_Key]) -> dict[_Key, _Held]:
    """What the ledger holds of these queries, which it does."""
    if not keys:
        return {}
    by_collection: dict[str, list[str]] = {}
    for collection, query_id in keys:
        by_collection.setdefault(collection, []).append(query_id)
    found: dict[_Key, _Held] = {}
    queries, generations = schema.queries.c, schema.generations.c
    joined = schema.queries.join(
        schema.generations,
        sa.and_(generations.query_no == queries.query_no, generations.round.is_not(None)),
        isouter=True,
    )
    columns = queries.query_no, queries.query_id, queries.text, generations.round
    for collection, ids in by_collection.items():
        chosen = sa.select(*columns).select_from(joined)
        for row in connection.execute(chosen.where(queries.collection == collection, queries.query_id.in_(ids))):
            there = found.setdefault((collection, row.query_id), _Held(row.query_no, row.text, set()))
            there.rounds.add(row.round)
    return found


def _insert_sets(
    connection: sa.Connection,
    items: Sequence[tuple[int, PreparedSet]],
    judge_numbers: dict[JudgeIdentity, int],
) -> None:
    if not items:
        return
    packed = [(number, item.packed) for number, item in items]
    bulk.insert_rows(connection, schema.candidate_sets, ("query_no", "packed"), packed)
    insert_passages(connection, [row for _, item in items for row in item.passage_rows])
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


def _without_retracted(
    connection: sa.Connection, items: Sequence[tuple[int, PreparedSet]], judge_numbers: Mapping[JudgeIdentity, int]
) -> None:
    """Summaries were made without knowing whose labels count no more."""
    retracted = retractions.standing(connection)
    if not retracted:
        return
    judges = {judge for judge, number in judge_numbers.items() if number in retracted}
    refresh(connection, [number for number, item in items if not judges.isdisjoint(item.judges)], retracted)


def _first_generation(
    query_no: int, item: PreparedSet, changes: Mapping[str, int], now_us: int
) -> tuple[int, int, int, int, int, int | None, int]:
    change_no = changes[item.query.collection]
    return query_no, 0, change_no, now_us, len(item.judgment_rows), item.query.round, 0


def conflict(item: PreparedSet, stands: str) -> QueryConflict:
    """The error of a set whose query_id `stands` for another text."""
    return QueryConflict(
        f"query_id {item.query.query_id} of collection {item.query.collection} stands for a text of {len(stands)}"
        f" characters and was submitted again with another text, of {len(item.query.text)}: the first stays; give the"
        " other a new query_id"
    )
