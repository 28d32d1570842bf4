"""A set of another round of a query that the ledger holds, within a transaction that the caller opened.

Its candidates join the stored ones (`union.py`), its judgments that are not held become the query's next generation,
by the rule of re-judgments (`additions.py`). A round is merged once: its generation names it. One that comes after a
later one is merged too, for its labels are measurements; the later one's scores, index version and trace stay. So
rounds may arrive in any order and leave the same query.

Labels of passages whose text changed between the rounds are left out, so that none stands beside a text that it is
not about; how many is in the generation's row and in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from qrelay.labels.ledger import packing, schema
from qrelay.labels.ledger.additions import (
    add_judgments,
    insert_generations,
    insert_passages,
    new_judgments,
    next_generation,
)
from qrelay.labels.ledger.bulk import in_chunks
from qrelay.labels.ledger.rows import PreparedSet
from qrelay.labels.ledger.union import Side, Union, unite
from qrelay.types import JudgedSet, JudgeIdentity

log = logging.getLogger(__name__)

"""Values in one statement: databases limit the parameters of a statement."""
_queries, _judgments, _overrides = schema.queries.c, schema.judgments.c, schema.overrides.c
_packed, _passages = schema.candidate_sets.c, schema.passages.c


class Added(NamedTuple):
    """A set that a commit wrote. record: makes its record. `passage_ids`: where it joined a query that was there, the
    passages that got their first grade; None: all of them."""

    record: Callable[[], JudgedSet]
    passage_ids: frozenset[str] | None = None


def merge(
    connection: sa.Connection,
    query_no: int,
    item: PreparedSet,
    judge_numbers: dict[JudgeIdentity, int],
    change_no: int,
    now_us: int,
) -> Added:
    """Adds the set to the query, which holds other rounds of the same text. `judge_numbers`: see
    `commit.commit_batch`."""
    judged = _judged(connection, query_no)
    union = _unite(connection, query_no, item, judged)
    _store(connection, query_no, item, union, change_no)
    rows = [(judge, row) for judge, row in new_judgments(connection, query_no, item)
            if row.passage_id not in union.changed]  # fmt: skip
    left_out = sum(row.passage_id in union.changed for row in item.judgment_rows)
    generation = next_generation(connection, query_no)
    add_judgments(connection, query_no, rows, generation, judge_numbers)
    insert_generations(connection, [(query_no, generation, change_no, now_us, len(rows), item.query.round, left_out)])
    if union.changed:
        _warn(item, union.changed, left_out)
    graded = {row.passage_id for _, row in rows if row.grade is not None}
    return Added(
        item.record, frozenset(graded - {passage_id for passage_id, has_grade in judged.items() if has_grade})
    )


def _judged(connection: sa.Connection, query_no: int) -> dict[str, bool]:
    """The query's passages with a judgment -> whether one is a grade."""
    chosen = sa.select(_judgments.passage_id, sa.func.count(_judgments.grade)).where(_judgments.query_no == query_no)
    return {
        passage_id: grades > 0 for passage_id, grades in connection.execute(chosen.group_by(_judgments.passage_id))
    }


def _unite(connection: sa.Connection, query_no: int, item: PreparedSet, judged: Collection[str]) -> Union:
    document = packing.unpack(
        connection.execute(sa.select(_packed.packed).where(_packed.query_no == query_no)).scalar_one()
    )
    stands = connection.execute(
        sa.select(_queries.round, _queries.index_version).where(_queries.query_no == query_no)
    ).one()
    came = Side(packing.unpack(item.packed), item.query.round, item.query_row["index_version"])
    without_text = _without_text(connection, item, document["text_hash"])
    chosen = sa.select(_overrides.passage_id).where(_overrides.query_no == query_no)
    decided = set(connection.execute(chosen).scalars())  # people may grade what came without a text
    told = {p for p, h in zip(document["passage_id"], document["text_hash"], strict=True) if h not in without_text}
    return unite(
        Side(document, stands.round, stands.index_version),
        came,
        without_text=without_text,
        labelled={*judged, *(decided & told)},
    )


def _without_text(connection: sa.Connection, item: PreparedSet, stored: Sequence[str]) -> set[str]:
    """Of the hashes of both sides, those of passages without a text."""
    found = {row.text_hash for row in item.passage_rows if not row.text} | {""}
    hashes = sorted(set(stored) - found)
    for some in in_chunks(hashes):
        chosen = sa.select(_passages.text_hash).where(
            _passages.collection == item.query.collection,
            _passages.text_hash.in_(some),
            _passages.text == "",
        )
        found.update(connection.execute(chosen).scalars())
    return found


def _store(connection: sa.Connection, query_no: int, item: PreparedSet, union: Union, change_no: int) -> None:
    """The union's candidates, with the texts that they name, and the query's row."""
    packed = packing.compress(union.side.document)
    connection.execute(schema.candidate_sets.update().where(_packed.query_no == query_no).values(packed=packed))
    named = set(union.side.document["text_hash"])
    insert_passages(connection, [row for row in item.passage_rows if row.text_hash in named])
    values = {"round": union.side.round, "index_version": union.side.index_version, "change_no": change_no}
    connection.execute(schema.queries.update().where(_queries.query_no == query_no).values(values))


def _warn(item: PreparedSet, changed: Collection[str], left_out: int) -> None:
    log.warning(
        "passages have another text than in an earlier round and keep it: a changed corpus needs a collection of its"
        " own",
        extra={"query_id": item.query.query_id, "collection": item.query.collection, "round": item.query.round,
               "passages": sorted(changed)[:3], "changed": len(changed), "labels_left_out": left_out},
    )  # fmt: skip
