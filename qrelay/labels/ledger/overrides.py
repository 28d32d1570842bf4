"""What people decided about a pair: append-only, authored, dated; the latest row of a pair stands.

    with ledger.writing("record overrides") as connection:
        written = add(connection, "medquad", [NewOverride("q1", "d3#0", 2, "0-3", "ana")], ledger.now_us())
    with ledger.snapshot() as snapshot:
        found = page(snapshot.connection, "medquad")

A row without a grade withdraws the pair's override. What stands already, said again by the same author, is not
written again. Every query that gets a row carries the number of the change, so incremental exports see it. How an
override becomes a label: `people.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.labels.ledger import audit_log, retractions, schema
from qrelay.labels.ledger.bulk import in_chunks
from qrelay.labels.ledger.changes import begin_changes
from qrelay.labels.ledger.checks import unfit_for_trec
from qrelay.labels.ledger.names import Names, names_of
from qrelay.labels.ledger.refresh import refresh
from qrelay.labels.ledger.times import moment
from qrelay.scales import peoples_bounds

MAX_PAGE_SIZE: Final = 1000
"""Values in one statement: databases limit the parameters of a statement."""

_overrides, _queries = schema.overrides.c, schema.queries.c


@dataclass(frozen=True, slots=True)
class NewOverride:
    """What a person says of a pair. `grade` is on `scale`, as LOW-HIGH; None withdraws what stands, and `scale` is
    not looked at then."""

    query_id: str
    passage_id: str
    grade: int | None
    scale: str
    author: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Override(NewOverride):
    """A row. `stands`: it is the latest of its pair, and no withdrawal."""

    collection: str = ""
    override_no: int = 0
    set_at: datetime | None = None
    stands: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What became of overrides: rows added, those that stood already, and how many of the added ones are of a passage
    that is no candidate of its query (it can be in qrels; training data needs a text, which the ledger has not)."""

    added: int
    unchanged: int
    not_candidates: int


@dataclass(frozen=True, slots=True)
class OverridePage:
    """One page, oldest first; `next_page_token` is empty on the last page."""

    overrides: tuple[Override, ...]
    next_page_token: str


def check(wanted: NewOverride) -> None:
    """Refuses what cannot be, before the ledger is asked.

    Raises:
        InputError: a grade outside its scale, no author, an id that TREC files cannot hold, or a NUL character.
    """
    pair = f"override of query {wanted.query_id[:80]!r} and passage {wanted.passage_id[:80]!r}"
    if unfit_for_trec(wanted.query_id) or unfit_for_trec(wanted.passage_id):
        raise InputError(f"{pair}: an id is empty or holds whitespace: give the ids as exports show them")
    if not wanted.author.strip():
        raise InputError(f"{pair}: nobody is named as its author: give one")
    if "\0" in wanted.author + wanted.note + wanted.query_id + wanted.passage_id:
        raise InputError(f"{pair} holds a NUL character, which texts in databases cannot hold: remove it")
    if wanted.grade is not None:
        low, high = peoples_bounds(wanted.scale)
        if not low <= wanted.grade <= high:
            raise InputError(f"{pair}: grade {wanted.grade} is outside the scale {wanted.scale}")


def add(
    connection: sa.Connection,
    collection: str,
    wanted: Sequence[NewOverride],
    now_us: int,
    *,
    notes: bool = False,
    act: str = "override",
) -> Written:
    """Records them in their order, all or none. Holds the collection's row from here on (`changes.py`); the change's
    number stays unused where nothing is new. notes: what stands, said again with another note, is new. act: of the
    row in the audit log, which comes where anything is new.

    Raises:
        InputError: see `check`; a query that the ledger does not hold; a document's id for a passage's; a withdrawal
            where no override ever was.
    """
    for each in wanted:
        check(each)
    change_no = begin_changes(connection, {collection})[collection]
    by_query: dict[str, list[NewOverride]] = {}
    for each in wanted:
        by_query.setdefault(each.query_id, []).append(each)
    written = Written(0, 0, 0)
    for ids in in_chunks(by_query):
        numbers = query_numbers(connection, collection, ids)
        _require_known(collection, [query_id for query_id in ids if query_id not in numbers])
        chunk = {numbers[query_id]: by_query[query_id] for query_id in ids}
        written = _sum(written, _add_chunk(connection, chunk, change_no, now_us, notes))
    if written.added:
        pairs = audit_log.ids(f"{each.query_id}/{each.passage_id}" for each in wanted)
        audit_log.record(connection, act, now_us, collection=collection, subject=pairs, count=written.added)
    return written


def query_numbers(connection: sa.Connection, collection: str, ids: Sequence[str]) -> dict[str, int]:
    """query_id -> query_no of those that the ledger holds."""
    found: dict[str, int] = {}
    for some in in_chunks(ids):
        chosen = sa.select(_queries.query_id, _queries.query_no)
        rows = connection.execute(chosen.where(_queries.collection == collection, _queries.query_id.in_(some)))
        found.update((row.query_id, row.query_no) for row in rows)
    return found


def latest(connection: sa.Connection, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    """query_no -> passage_id -> its latest row (grade, scale, author, note), withdrawals too, of at most 500
    queries."""
    found: dict[int, dict[str, Any]] = {}
    for row in _said(connection, numbers):
        found.setdefault(row.query_no, {})[row.passage_id] = row
    return found


def _said(connection: sa.Connection, numbers: Sequence[int]) -> sa.CursorResult[Any]:
    columns = _overrides.query_no, _overrides.passage_id, _overrides.grade, _overrides.scale, _overrides.author
    chosen = sa.select(*columns, _overrides.note).where(_overrides.query_no.in_(numbers))
    return connection.execute(chosen.order_by(_overrides.override_no))


def standing() -> sa.ColumnElement[bool]:
    """The condition on a row of `overrides` that it is the latest of its pair, and no withdrawal."""
    later = schema.overrides.alias("later")
    newer = (
        sa.exists()
        .where(later.c.query_no == _overrides.query_no, later.c.passage_id == _overrides.passage_id)
        .where(later.c.override_no > _overrides.override_no)
    )
    return sa.and_(_overrides.grade.is_not(None), ~newer)


def page(
    connection: sa.Connection,
    collection: str = "",
    *,
    query_id: str = "",
    author: str = "",
    only_standing: bool = False,
    page_size: int = 100,
    page_token: str = "",
) -> OverridePage:
    """One page of rows, oldest first, of everything that is not left empty. `page_size`: 1 to MAX_PAGE_SIZE.

    Raises:
        InputError: another size, or a token that no page returned.
    """
    if not 1 <= page_size <= MAX_PAGE_SIZE:
        raise InputError(f"page_size {page_size}: use 1 to {MAX_PAGE_SIZE}")
    if page_token and not (page_token.isascii() and page_token.isdecimal() and len(page_token) < 19):
        raise InputError(f"page_token {page_token[:80]!r} is not known: use the one of the page before, or none")
    chosen = _rows().where(_overrides.override_no > int(page_token or 0)).limit(page_size + 1)
    asked = ((_queries.collection, collection), (_queries.query_id, query_id), (_overrides.author, author))
    for column, value in asked:
        chosen = chosen.where(column == value) if value else chosen
    rows = connection.execute(chosen.where(standing()) if only_standing else chosen).all()
    token = str(rows[page_size - 1].override_no) if len(rows) > page_size else ""
    return OverridePage(tuple(map(_override_of, rows[:page_size])), token)


def standing_of(
    connection: sa.Connection, collection: str, query_ids: Sequence[str]
) -> dict[tuple[str, str], Override]:
    """(query_id, passage_id) -> the override that stands, of these queries."""
    rows = of_queries(connection, collection, query_ids, standing())
    return {(row.query_id, row.passage_id): row for row in rows}


def of_queries(
    connection: sa.Connection, collection: str, query_ids: Sequence[str], condition: sa.ColumnElement[bool]
) -> Iterator[Override]:
    """The rows of these queries for which the condition holds; of a pair oldest first."""
    for some in in_chunks(query_ids):
        chosen = _rows().where(_queries.collection == collection, _queries.query_id.in_(some), condition)
        yield from map(_override_of, connection.execute(chosen))


def history(connection: sa.Connection, collection: str, query_id: str, passage_id: str = "") -> tuple[Override, ...]:
    """Every row of a pair, oldest first; without a passage_id, of every pair of the query."""
    chosen = _rows().where(_queries.collection == collection, _queries.query_id == query_id)
    if passage_id:
        chosen = chosen.where(_overrides.passage_id == passage_id)
    return tuple(map(_override_of, connection.execute(chosen)))


def _rows() -> Any:
    """Rows with their collection, query_id and whether they stand, oldest first."""
    columns = _queries.collection, _queries.query_id, standing().label("stands")
    joined = schema.overrides.join(schema.queries, _queries.query_no == _overrides.query_no)
    return sa.select(schema.overrides, *columns).select_from(joined).order_by(_overrides.override_no)


def _add_chunk(
    connection: sa.Connection, chunk: Mapping[int, Sequence[NewOverride]], change_no: int, now_us: int, notes: bool
) -> Written:
    """`chunk`: query_no -> what is said of its pairs."""
    names = dict(names_of(connection, list(chunk)))
    _require_passages(chunk, names)
    kept = {number: _Kept() for number in chunk}
    for row in _said(connection, list(chunk)):
        kept[row.query_no].add(row.passage_id, row.grade, row.scale, row.author, row.note)
    common = {"set_us": now_us, "change_no": change_no}
    rows: list[dict[str, Any]] = []
    for number, wanted in chunk.items():
        said = (_row(each, kept[number], notes) for each in wanted)
        rows += [{**row, "query_no": number, **common} for row in said if row is not None]
    touched = sorted({row["query_no"] for row in rows})
    if rows:
        connection.execute(schema.overrides.insert(), rows)
        changed = schema.queries.update().where(_queries.query_no.in_(touched))
        connection.execute(changed.values(change_no=change_no))
        refresh(connection, touched, retractions.standing(connection))
    not_candidates = sum(row["passage_id"] not in names[row["query_no"]].documents for row in rows)
    return Written(len(rows), sum(map(len, chunk.values())) - len(rows), not_candidates)


class _Kept:
    """A query's pairs. latest: passage_id -> (grade, scale, author, note) of its latest row, withdrawals too;
    graders: (passage_id, author) where the author's own latest row has a grade."""

    def __init__(self) -> None:
        self.latest: dict[str, tuple[int | None, str, str, str]] = {}
        self.graders: set[tuple[str, str]] = set()

    def add(self, passage_id: str, grade: int | None, scale: str, author: str, note: str) -> None:
        """A later row."""
        self.latest[passage_id] = grade, scale, author, note
        (self.graders.discard if grade is None else self.graders.add)((passage_id, author))


def _row(wanted: NewOverride, kept: _Kept, notes: bool) -> dict[str, Any] | None:
    """The row that says it, or None where that stands already. `kept` is kept up."""
    before = kept.latest.get(wanted.passage_id)
    if wanted.grade is None and before is None:
        raise InputError(
            f"query {wanted.query_id} and passage {wanted.passage_id} have no override that could be withdrawn:"
            " `qrelay label list` shows those that there are"
        )
    author = wanted.author.strip()
    note = wanted.note if before is None or (notes and wanted.note) else before[3]  # no note is no other note
    after = wanted.grade, before[1] if wanted.grade is None and before else wanted.scale, author, note
    withdrawn = wanted.grade is None and before and before[0] is None
    if after == before or (withdrawn and (wanted.passage_id, author) not in kept.graders):
        return None
    kept.add(wanted.passage_id, *after)
    return {"passage_id": wanted.passage_id, "grade": after[0], "scale": after[1], "author": author,
            "note": wanted.note}  # fmt: skip


def _require_passages(chunk: Mapping[int, Sequence[NewOverride]], names: Mapping[int, Names]) -> None:
    """What was recorded under another id may be withdrawn; nothing is graded under one."""
    for number, wanted in chunk.items():
        for each in wanted:
            if each.grade is not None and (problem := names[number].a_document(each.passage_id)):
                raise InputError(f"query {each.query_id}: {problem}")


def _require_known(collection: str, unknown: Sequence[str]) -> None:
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise InputError(
            f"the ledger holds no query {', '.join(unknown[:3])}{more} in collection {collection}: only what was"
            " committed can be overridden; feed it first"
        )


def _override_of(row: Any) -> Override:
    return Override(
        row.query_id, row.passage_id, row.grade, row.scale, row.author, row.note,
        row.collection, row.override_no, moment(row.set_us), bool(row.stands),
    )  # fmt: skip


def _sum(one: Written, other: Written) -> Written:
    return Written(
        one.added + other.added, one.unchanged + other.unchanged, one.not_candidates + other.not_candidates
    )
