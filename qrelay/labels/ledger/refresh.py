"""Summaries (`summaries.py`) of queries that the ledger holds, computed anew within the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.labels.ledger.bulk import in_chunks
from qrelay.labels.ledger.summaries import Said, Voice, said, summary, voice_of
from qrelay.scales import Scale
from qrelay.types import JudgeIdentity

"""Values in one statement: databases limit the parameters of a statement."""
_queries, _judgments, _overrides = schema.queries.c, schema.judgments.c, schema.overrides.c


def refresh(connection: sa.Connection, numbers: Iterable[int], retracted: Collection[int]) -> None:
    """Computes the summaries of these queries anew. `retracted`: the judges whose labels count no more, by number."""
    wanted = sorted(set(numbers))
    voices = {
        int(number): voice_of(JudgeIdentity(*identity))
        for number, _, *identity in connection.execute(sa.select(schema.judges))
        if number not in retracted
    }
    for some in in_chunks(wanted):
        _refresh(connection, some, voices)


def refresh_all(connection: sa.Connection, retracted: Collection[int]) -> None:
    """The summary of every query: after a migration that brought the columns."""
    refresh(connection, connection.execute(sa.select(_queries.query_no)).scalars(), retracted)


def _refresh(connection: sa.Connection, numbers: Sequence[int], voices: Mapping[int, Voice]) -> None:
    pairs: dict[int, dict[str, list[Said]]] = {number: {} for number in numbers}
    judges: dict[int, set[str]] = {number: set() for number in numbers}
    for row in _labels(connection, numbers):
        number, passage_id, judge_no, grade, expected, p, generation = row
        if voice := voices.get(judge_no):
            label = said(voice, grade if expected is None else expected, p, generation)
            pairs[number].setdefault(passage_id, []).append(label)
            judges[number].add(voice.judge_hash)
    people = _people(connection, numbers)
    rows = [{"number": each, **summary(pairs[each], judges[each], people.get(each, {}))} for each in numbers]
    columns: dict[str, Any] = {name: sa.bindparam(name) for name in rows[0] if name != "number"}
    changed = schema.queries.update().where(_queries.query_no == sa.bindparam("number")).values(columns)
    connection.execute(changed, rows)


def _labels(connection: sa.Connection, numbers: Sequence[int]) -> Iterable[Any]:
    columns = (
        _judgments.query_no, _judgments.passage_id, _judgments.judge_no, _judgments.grade,
        _judgments.expected_relevance, _judgments.p_relevant, _judgments.generation,
    )  # fmt: skip
    return connection.execute(sa.select(*columns).where(_judgments.query_no.in_(numbers)))


def _people(connection: sa.Connection, numbers: Sequence[int]) -> dict[int, dict[str, float]]:
    """query_no -> passage_id -> the grade that stands, as a share of its scale."""
    columns = _overrides.query_no, _overrides.passage_id, _overrides.grade, _overrides.scale
    chosen = sa.select(*columns).where(_overrides.query_no.in_(numbers)).order_by(_overrides.override_no)
    latest = {(row.query_no, row.passage_id): row for row in connection.execute(chosen)}
    found: dict[int, dict[str, float]] = {}
    for (number, passage_id), row in latest.items():
        if row.grade is not None:
            found.setdefault(number, {})[passage_id] = Scale.halved(row.scale).share(row.grade)
    return found
