"""Re-judgments: new labels beside those that the ledger holds, within a transaction that the caller opened.

Append-only as a commit is: no row is changed, and the judgment's key decides what is new. A grade stands for ever; a
judgment that is missing may get a grade of the same judge beside it, for nothing was measured. What is added to a
query is its next generation: one above the highest that any of its labels has.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from qrelay.errors import InputError, MalformedInput, QrelayError
from qrelay.types import JudgeIdentity
from services.sink.ledger import schema
from services.sink.ledger.changes import begin_changes
from services.sink.ledger.commit import conflict, insert_judgments, number_judges
from services.sink.ledger.packing import unpack
from services.sink.ledger.rows import JudgmentRow, PreparedSet

_queries, _judgments = schema.queries.c, schema.judgments.c


def rejudge_batch(
    connection: sa.Connection, batch: Sequence[PreparedSet], judge_numbers: dict[JudgeIdentity, int], now_us: int
) -> list[int | QrelayError]:
    """Adds each set's new judgments and answers each, in order, with how many there were, or its error.

    The connection must hold the write lock: what is new is decided by what the query holds. `judge_numbers`: see
    `commit.commit_batch`.
    """
    changes = begin_changes(connection, {item.query.collection for item in batch})
    return [_add(connection, item, judge_numbers, changes[item.query.collection], now_us) for item in batch]


def _add(
    connection: sa.Connection,
    item: PreparedSet,
    judge_numbers: dict[JudgeIdentity, int],
    change_no: int,
    now_us: int,
) -> int | QrelayError:
    number = _query_number(connection, item)
    if isinstance(number, QrelayError):
        return number
    if (changed := _changed_passages(connection, number, item)) is not None:
        return changed
    rows = _new_rows(connection, number, item)
    if rows:
        number_judges(connection, {judge for judge, _ in rows}, judge_numbers)
        insert_judgments(connection, [(number, judge_numbers[judge], row) for judge, row in rows])
        added = [row for _, row in rows]
        _record(connection, number, added, change_no, now_us)
        _count(connection, number, added, change_no)
    return len(rows)


def _query_number(connection: sa.Connection, item: PreparedSet) -> int | QrelayError:
    query = item.query
    found = connection.execute(
        sa.select(_queries.query_no, _queries.text).where(
            _queries.collection == query.collection, _queries.query_id == query.query_id
        )
    ).one_or_none()
    if found is None:
        return InputError(
            f"query {query.query_id} of collection {query.collection} is not in the ledger: only what was committed"
            " can be judged again; feed it first"
        )
    return int(found.query_no) if found.text == query.text else conflict(item, found.text)


def _changed_passages(connection: sa.Connection, number: int, item: PreparedSet) -> MalformedInput | None:
    """The error of labels that are of no candidate of the query, or of another text under its passage_id."""
    packed = schema.candidate_sets.c
    stored = connection.execute(sa.select(packed.packed).where(packed.query_no == number)).scalar_one()
    committed, sent = _text_hashes(stored), _text_hashes(item.packed)
    judged = {row.passage_id for row in item.judgment_rows}
    other = sorted(passage_id for passage_id in judged if sent[passage_id] != committed.get(passage_id))
    if not other:
        return None
    return MalformedInput(
        f"re-judgment of query {item.query.query_id}: {', '.join(other[:3])} is no candidate of it in the ledger, or"
        " has another title or text there: judge the sets that ListJudgedSets gives"
    )


def _text_hashes(packed: bytes) -> dict[str, str]:
    document = unpack(packed)
    return dict(zip(document["passage_id"], document["text_hash"], strict=True))


def _new_rows(connection: sa.Connection, number: int, item: PreparedSet) -> list[tuple[JudgeIdentity, JudgmentRow]]:
    """(judge, row) of the judgments that the query does not hold, as its next generation."""
    columns = (_judgments.passage_id, _judgments.judgment_key, _judgments.grade, _judgments.generation)
    held: dict[tuple[str, str], bool] = {}  # (passage_id, judgment_key) -> whether it has a grade
    generation = 0
    for there in connection.execute(sa.select(*columns).where(_judgments.query_no == number)):
        key = there.passage_id, there.judgment_key
        held[key] = held.get(key, False) or there.grade is not None
        generation = max(generation, there.generation)
    new = []
    for judge, row in zip(item.judges, item.judgment_rows, strict=True):
        key = row.passage_id, row.judgment_key
        graded = row.grade is not None
        if key not in held or (graded and not held[key]):
            new.append((judge, row._replace(generation=generation + 1)))
    return new


def _record(
    connection: sa.Connection, number: int, added: Sequence[JudgmentRow], change_no: int, now_us: int
) -> None:
    row = {"query_no": number, "generation": added[0].generation, "change_no": change_no, "added_us": now_us,
           "judgments": len(added)}  # fmt: skip
    connection.execute(schema.generations.insert(), row)


def _count(connection: sa.Connection, number: int, added: Sequence[JudgmentRow], change_no: int) -> None:
    pairs = sa.select(sa.func.count(_judgments.passage_id.distinct())).where(_judgments.query_no == number)
    counted = {
        "judgments": _queries.judgments + len(added),
        "pairs": pairs.scalar_subquery(),
        "missing": _queries.missing + sum(row.grade is None for row in added),
        "cached": _queries.cached + sum(row.cached for row in added),
        "prompt_tokens": _queries.prompt_tokens + sum(row.prompt_tokens for row in added),
        "change_no": change_no,
    }
    connection.execute(schema.queries.update().where(_queries.query_no == number).values(counted))
