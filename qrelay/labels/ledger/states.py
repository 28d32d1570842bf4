"""Where collections and queries stand: counts, and the final state of every submission."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from qrelay.identity import query_fingerprint
from qrelay.labels.ledger import forgetting, schema
from qrelay.labels.ledger.bulk import in_chunks
from qrelay.labels.ledger.dead_letters import REPLAYED, RESOLVED, WAITING

COMMITTED: Final = "committed"
DEAD: Final = "dead"
FORGOTTEN: Final = "forgotten"
_PAGE = 1000
"""Values in one statement: databases limit the parameters of a statement."""

_queries, _letters = schema.queries.c, schema.dead_letters.c


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """Counts of one collection.

    judgments: measurements. A pair that three judges labelled, and a fused label made of theirs, counts four; a
    re-judgment adds to it. missing_judgments and cached_judgments are parts of it, and prompt_tokens is what all of
    it cost. judged_pairs: (query, passage) pairs with at least one judgment, missing ones included, however many
    judges looked. open_dead_letters: those that wait for an operator.
    """

    collection: str
    queries: int = 0
    judgments: int = 0
    judged_pairs: int = 0
    missing_judgments: int = 0
    cached_judgments: int = 0
    prompt_tokens: int = 0
    open_dead_letters: int = 0


@dataclass(frozen=True, slots=True)
class Submission:
    """One (query_id, text) and where it stands: committed, dead, or replayed (published again and on its
    way). `fingerprint` is `identity.query_fingerprint`; `round` is the latest of which that is so."""

    query_id: str
    fingerprint: str
    state: str
    round: int = 0


def collection_stats(connection: sa.Connection, collection: str) -> list[CollectionStats]:
    """Counts by collection, by name; an empty name means all."""
    counters = (_queries.judgments, _queries.pairs, _queries.missing, _queries.cached, _queries.prompt_tokens)
    sums = [sa.func.sum(counter) for counter in counters]
    counted = sa.select(_queries.collection, sa.func.count(), *sums).group_by(_queries.collection)
    waiting = (
        sa.select(_letters.collection, sa.func.count())
        .where(_letters.state.in_(WAITING))
        .group_by(_letters.collection)
    )
    if collection:
        counted = counted.where(_queries.collection == collection)
        waiting = waiting.where(_letters.collection == collection)
    dead = {name: int(count) for name, count in connection.execute(waiting)}
    found = {
        name: CollectionStats(name, *map(int, counts), open_dead_letters=dead.get(name, 0))  # type: ignore[misc]
        for name, *counts in connection.execute(counted)
    }
    unjudged = {name: CollectionStats(name, open_dead_letters=count) for name, count in dead.items()}
    return [stats for _, stats in sorted({**unjudged, **found}.items())]


def query_states(
    connection: sa.Connection, collection: str, query_ids: Sequence[str] | None, query_round: int = 0
) -> dict[str, str]:
    """query_id -> state in this round or a later one, committed before dead before replayed where its submissions
    differ; forgotten, of those that are asked for, before any."""
    order = (COMMITTED, DEAD, REPLAYED)
    states: dict[str, str] = {}
    for found in submissions(connection, collection, query_ids):
        if found.round < query_round:
            continue
        known = states.get(found.query_id, REPLAYED)
        states[found.query_id] = min(known, found.state, key=order.index)
    gone = forgetting.among(connection, {(collection, each) for each in query_ids or ()})
    return states | {query_id: FORGOTTEN for _, query_id in gone}


def submissions(connection: sa.Connection, collection: str, query_ids: Sequence[str] | None) -> Iterator[Submission]:
    """Every submission, or those of `query_ids`: committed ones by query_id, then others by fingerprint."""
    if query_ids is None:
        yield from _submissions(connection, collection, None)
        return
    for some in in_chunks(query_ids):
        yield from _submissions(connection, collection, some)


def _submissions(connection: sa.Connection, collection: str, ids: Sequence[str] | None) -> Iterator[Submission]:
    for page in query_pages(connection, collection, _PAGE, ids):
        for row in page:
            fingerprint = query_fingerprint(collection, row.query_id, row.text)
            yield Submission(row.query_id, fingerprint, COMMITTED, row.round)
    waits = sa.func.max(sa.case((_letters.state.in_(WAITING), _letters.round)))  # NULL: none does
    chosen = (
        sa.select(_letters.submission, sa.func.min(_letters.query_id), waits, sa.func.max(_letters.round))
        .where(_letters.collection == collection, _letters.state != RESOLVED)
        .group_by(_letters.submission)
        .order_by(_letters.submission)
        .limit(_PAGE)
    )
    if ids is not None:
        chosen = chosen.where(_letters.query_id.in_(ids))
    last = ""
    while rows := connection.execute(chosen.where(_letters.submission > last)).all():
        for fingerprint, query_id, waiting, latest in rows:
            if waiting is None:
                yield Submission(query_id, fingerprint, REPLAYED, latest)
            else:
                yield Submission(query_id, fingerprint, DEAD, waiting)
        last = rows[-1][0]


def query_pages(
    connection: sa.Connection,
    collection: str,
    size: int,
    ids: Sequence[str] | None = None,
    after: str = "",
    changes: tuple[int, int] | None = None,
) -> Iterator[Sequence[Any]]:
    """Rows (query_no, query_id, text, round, attributes, index_version) by query_id, `size` at a time, of the ids
    beyond `after`. `changes`: only queries that changes of these numbers touched last, the first exclusive, the
    second inclusive."""
    chosen = (
        sa.select(
            _queries.query_no,
            _queries.query_id,
            _queries.text,
            _queries.round,
            _queries.attributes,
            _queries.index_version,
        )
        .where(_queries.collection == collection)
        .order_by(_queries.query_id)
        .limit(size)
    )
    if ids is not None:
        chosen = chosen.where(_queries.query_id.in_(ids))
    if changes is not None:
        chosen = chosen.where(_queries.change_no > changes[0], _queries.change_no <= changes[1])
    last = after
    while rows := connection.execute(chosen.where(_queries.query_id > last)).all():
        yield rows
        last = rows[-1].query_id
