"""Re-judgments: new labels beside those that the ledger holds, within a transaction that the caller opened.

What is new is decided as in `additions.py`; what is added to a query is its next generation.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from qrelay.errors import InputError, MalformedInput, QrelayError
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.additions import add_judgments, insert_generations, new_judgments, next_generation
from qrelay.labels.ledger.changes import begin_changes
from qrelay.labels.ledger.commit import conflict
from qrelay.labels.ledger.packing import unpack
from qrelay.labels.ledger.rows import PreparedSet
from qrelay.types import JudgeIdentity

_queries = schema.queries.c


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
    rows = new_judgments(connection, number, item)
    if rows:
        generation = next_generation(connection, number)
        add_judgments(connection, number, rows, generation, judge_numbers)
        insert_generations(connection, [(number, generation, change_no, now_us, len(rows), None, 0)])
        touched = schema.queries.update().where(_queries.query_no == number)
        connection.execute(touched.values(change_no=change_no))
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
