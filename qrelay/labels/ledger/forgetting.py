"""Forgetting queries in the ledger. Functions within a transaction that the caller opened.

    mark ──► (the other stores) ──► erase ──► (compaction) ──► finish

`mark` leaves a tombstone: a hash of collection and query id, and the numbers of the query's first and last change,
which name the exports that may hold it. From then on no commit and no dead letter of the query is stored. `erase`
deletes its rows. Every step may be taken again; `finish` says that all were. A tombstone's finished_us is NULL until
`erase`, then 0 until `finish`, so that compaction can go on when nobody knows the query's id any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from qrelay.identity import forgotten_hash
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.bulk import in_chunks, is_empty
from qrelay.labels.ledger.changes import hold
from qrelay.labels.ledger.database import insert_new

"""Values in one statement: databases limit the parameters of a statement."""
_OF_A_QUERY: Final = (schema.judgments, schema.overrides, schema.generations, schema.candidate_sets, schema.queries)
"""Tables with a query_no, `queries` last."""
_forgotten, _queries, _letters = schema.forgotten.c, schema.queries.c, schema.dead_letters.c
_exports, _judgments = schema.exports.c, schema.judgments.c
_AMONG: Final = sa.select(_forgotten.query).where(_forgotten.query.in_(sa.bindparam("wanted", expanding=True)))
"""Made once: every commit asks."""
_Key = tuple[str, str]
"""(collection, query_id)."""
_ERASED: Final = 0
"""finished_us of a query that is gone from the tables, and whose bytes may still be there."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the ledger holds of a query: its text, and the keys of its judgments."""

    query_id: str
    text: str
    judgment_keys: frozenset[str]


def among(connection: sa.Connection, keys: Collection[_Key]) -> set[_Key]:
    """Those of the queries that were forgotten."""
    if is_empty(connection, schema.forgotten):
        return set()
    hashes = {forgotten_hash(*key): key for key in keys}
    found = (connection.execute(_AMONG, {"wanted": part}).scalars() for part in in_chunks(hashes))
    return {hashes[row] for part in found for row in part}


def hashes(connection: sa.Connection, collection: str) -> Iterator[str]:
    """The tombstones of a collection."""
    yield from connection.execute(sa.select(_forgotten.query).where(_forgotten.collection == collection)).scalars()


def begun(connection: sa.Connection, collection: str) -> set[str]:
    """The tombstones of queries whose forgetting did not come to its end."""
    open_ones = sa.or_(_forgotten.finished_us.is_(None), _forgotten.finished_us == _ERASED)
    return set(
        connection.execute(
            sa.select(_forgotten.query).where(_forgotten.collection == collection, open_ones)
        ).scalars()
    )


def erased(connection: sa.Connection, collection: str) -> set[str]:
    """Those of them that are gone from the ledger's tables."""
    chosen = sa.select(_forgotten.query).where(_forgotten.collection == collection)
    return set(connection.execute(chosen.where(_forgotten.finished_us == _ERASED)).scalars())


def held(connection: sa.Connection, collection: str, ids: Iterable[str]) -> list[Held]:
    """What the ledger holds of these queries."""
    chosen = sa.select(_queries.query_no, _queries.query_id, _queries.text)
    rows = list(_rows(connection, chosen.where(_queries.collection == collection), _queries.query_id, ids))
    keys: dict[int, set[str]] = {row.query_no: set() for row in rows}
    of_them = sa.select(_judgments.query_no, _judgments.judgment_key)
    for number, key in _rows(connection, of_them, _judgments.query_no, keys):
        keys[number].add(key)
    return [Held(row.query_id, row.text, frozenset(keys[row.query_no])) for row in rows]


def ids_of_texts(connection: sa.Connection, collection: str, texts: Iterable[str]) -> set[str]:
    """Queries, and those of dead letters, with one of these texts."""
    wanted = list(texts)
    queries = sa.select(_queries.query_id).where(_queries.collection == collection)
    letters = sa.select(_letters.query_id).where(_letters.collection == collection, _letters.query_id != "")
    return {
        *_column_of(connection, queries, _queries.text, wanted),
        *_column_of(connection, letters, _letters.query_text, wanted),
    }


def ids_before(connection: sa.Connection, collection: str, before_us: int) -> set[str]:
    """Queries committed, and those of dead letters that failed, before a time."""
    queries = sa.select(_queries.query_id).where(_queries.collection == collection, _queries.committed_us < before_us)
    letters = sa.select(_letters.query_id).where(
        _letters.collection == collection, _letters.query_id != "", _letters.failed_us < before_us
    )
    return {*connection.execute(queries).scalars(), *connection.execute(letters).scalars()}


def letters_of(connection: sa.Connection, collection: str, ids: Iterable[str]) -> Iterator[Any]:
    """Rows (letter_no, query_id, query_text, payload) of the queries' dead letters."""
    chosen = sa.select(*_letters["letter_no", "query_id", "query_text", "payload"])
    yield from _rows(connection, chosen.where(_letters.collection == collection), _letters.query_id, ids)


def nameless_letters(connection: sa.Connection) -> Iterator[Any]:
    """Rows (letter_no, payload, detail) of dead letters about no query: nobody could read them."""
    chosen = sa.select(*_letters["letter_no", "payload", "detail"])
    yield from connection.execute(chosen.where(_letters.query_id == "").order_by(_letters.letter_no))


def mark(connection: sa.Connection, collection: str, ids: Iterable[str], now_us: int) -> None:
    """Leaves a tombstone of each query; one that has one is to be finished again."""
    hold(connection, {collection})
    touched = _changes(connection, collection, ids := list(ids))
    rows = [
        {"query": forgotten_hash(collection, each), "collection": collection, "forgotten_us": now_us,
         "first_change": touched.get(each, (0, 0))[0], "last_change": touched.get(each, (0, 0))[1]}
        for each in sorted(ids)
    ]  # fmt: skip
    for row in rows:
        connection.execute(insert_new(schema.forgotten), row)
    again = schema.forgotten.update().values(finished_us=None)
    for part in in_chunks([row["query"] for row in rows]):
        connection.execute(again.where(_forgotten.query.in_(part)))


def _changes(connection: sa.Connection, collection: str, ids: Iterable[str]) -> dict[str, tuple[int, int]]:
    """query_id -> its first and last change."""
    generations = schema.generations.c
    joined = schema.queries.join(schema.generations, generations.query_no == _queries.query_no, isouter=True)
    first = sa.func.coalesce(sa.func.min(generations.change_no), _queries.change_no)
    chosen = sa.select(_queries.query_id, first, _queries.change_no).select_from(joined)
    grouped = chosen.where(_queries.collection == collection).group_by(
        _queries.query_no, _queries.query_id, _queries.change_no
    )
    return {row[0]: (int(row[1]), int(row[2])) for row in _rows(connection, grouped, _queries.query_id, ids)}


def erase(connection: sa.Connection, collection: str, ids: Iterable[str], letters: Iterable[int]) -> None:
    """Deletes the queries with all that hangs on them, their dead letters, and the dead letters of these numbers."""
    hold(connection, {collection})
    chosen = sa.select(_queries.query_no).where(_queries.collection == collection)
    numbers = list(_column_of(connection, chosen, _queries.query_id, ids := list(ids)))
    for table in _OF_A_QUERY:
        for part in in_chunks(numbers):
            connection.execute(table.delete().where(table.c.query_no.in_(part)))
    of_collection = schema.dead_letters.delete().where(_letters.collection == collection)
    for names in in_chunks(ids):
        connection.execute(of_collection.where(_letters.query_id.in_(names)))
    for part in in_chunks(letters):
        connection.execute(schema.dead_letters.delete().where(_letters.letter_no.in_(part)))
    finish(connection, [forgotten_hash(collection, each) for each in ids], _ERASED)


def finish(connection: sa.Connection, tombstones: Iterable[str], now_us: int) -> None:
    """Every store is done with the queries of these."""
    done = schema.forgotten.update().values(finished_us=now_us)
    for part in in_chunks(tombstones):
        connection.execute(done.where(_forgotten.query.in_(part)))


def allow(connection: sa.Connection, collection: str, ids: Iterable[str]) -> int:
    """Takes the tombstones away, so that the queries may come again. How many there were."""
    gone = {query_id for _, query_id in among(connection, {(collection, each) for each in ids})}
    if not gone:
        return 0  # a name that nobody has gets no row
    hold(connection, {collection})
    parts = in_chunks([forgotten_hash(collection, each) for each in gone])
    return sum(connection.execute(schema.forgotten.delete().where(_forgotten.query.in_(part))).rowcount
               for part in parts)  # fmt: skip


def changes_of(connection: sa.Connection, collection: str, ids: Iterable[str]) -> list[tuple[int, int]]:
    """First and last change of each forgotten query that was ever committed."""
    chosen = sa.select(_forgotten.query, _forgotten.first_change, _forgotten.last_change)
    rows = _rows(connection, chosen, _forgotten.query, [forgotten_hash(collection, each) for each in ids])
    stored = _changes(connection, collection, ids)
    return [*((row.first_change, row.last_change) for row in rows if row.last_change), *stored.values()]


def exports_with(connection: sa.Connection, collection: str, changes: Sequence[tuple[int, int]]) -> list[Any]:
    """The exports of the collection whose changes overlap some of these: which may hold the queries."""
    rows = connection.execute(sa.select(schema.exports).where(_exports.collection == collection)
                              .order_by(_exports.export_no)).all()  # fmt: skip
    return [row for row in rows if overlap(changes, row.from_change, row.to_change)]


def overlap(changes: Iterable[tuple[int, int]], from_change: int, to_change: int | None) -> bool:
    """Whether a query was touched beyond `from_change` up to `to_change`; None: whenever."""
    return any(last > from_change and (to_change is None or first <= to_change) for first, last in changes)


def _rows(connection: sa.Connection, chosen: Any, column: Any, values: Iterable[Any]) -> Iterator[Any]:
    for part in in_chunks(values):
        yield from connection.execute(chosen.where(column.in_(part)))


def _column_of(connection: sa.Connection, chosen: Any, column: Any, values: Iterable[Any]) -> Iterator[Any]:
    return (row[0] for row in _rows(connection, chosen, column, values))
