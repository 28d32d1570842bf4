"""What may go from a ledger, and making its files small again.

Never a judgment, a query, its candidates, an override, an export or a trigger: those are the provenance of training
data, and go only where a query is forgotten (`forgetting.py`). What may go is evidence that has served: the payloads
of dead letters that were closed, the raw replies of judges (the grade stays), the details of missing judgments (the
reason stays), and passages that no query names.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from qrelay.labels.ledger import on_sqlite, schema
from qrelay.labels.ledger.audit_log import audited
from qrelay.labels.ledger.bulk import in_chunks
from qrelay.labels.ledger.changes import hold
from qrelay.labels.ledger.dead_letters import REPLAYED, RESOLVED
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.packing import unpack

DAY_US: Final = 86_400_000_000
_PAGE: Final = 2000
"""Queries (or dead letters) whose rows change in one transaction: writers wait for one of them, not for all."""

_length = sa.func.length
_letters, _judgments, _queries = schema.dead_letters.c, schema.judgments.c, schema.queries.c


@dataclass(frozen=True, slots=True)
class PruneRule:
    """What to prune. Each part is a number of days, or None (False): leave that alone."""

    dead_letters_days: float | None = None
    """Payloads of dead letters that were replayed or resolved longer ago. Letter, reason and times stay."""
    raw_replies_days: float | None = None
    """Raw replies and details of missing judgments that were judged longer ago. Grades and reasons stay."""
    passages: bool = False
    """Texts that no query of their collection names."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows were, or would be, emptied or removed, and how much payload and text they held."""

    dead_letters: int = 0
    dead_letter_bytes: int = 0
    raw_replies: int = 0
    raw_reply_characters: int = 0
    passages: int = 0
    passage_characters: int = 0


def prune(ledger: Ledger, rule: PruneRule, *, dry_run: bool) -> Pruned:
    """Empties and removes what `rule` names, page by page beside other writers; counts only with `dry_run`. What was
    done before an interruption stays done, and the next call goes on.

    Raises:
        BackendUnavailable: the database does not answer, or another writer holds a collection for too long.
    """
    with nullcontext() if dry_run else audited(ledger, "prune", str(rule)):
        return _pruned(ledger, rule, dry_run)


def _pruned(ledger: Ledger, rule: PruneRule, dry_run: bool) -> Pruned:
    now = ledger.now_us()
    letters = (
        (0, 0) if rule.dead_letters_days is None else _prune_letters(ledger, now, rule.dead_letters_days, dry_run)
    )
    replies = (0, 0) if rule.raw_replies_days is None else _prune_replies(ledger, now, rule.raw_replies_days, dry_run)
    passages = _prune_passages(ledger, dry_run) if rule.passages else (0, 0)
    return Pruned(*letters, *replies, *passages)


def _prune_letters(ledger: Ledger, now_us: int, days: float, dry_run: bool) -> tuple[int, int]:
    old = sa.and_(
        _letters.state.in_((REPLAYED, RESOLVED)),
        _letters.closed_us < now_us - int(days * DAY_US),
        _length(_letters.payload) > 0,
    )
    counted = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_length(_letters.payload)), 0)).where(old)
    with ledger.snapshot() as snapshot:
        rows, size = snapshot.connection.execute(counted).one()
    done = dry_run
    while not done:
        chosen = sa.select(_letters.letter_no).where(old).limit(_PAGE)
        emptied = schema.dead_letters.update().where(_letters.letter_no.in_(chosen)).values(payload=b"")
        with ledger.writing("prune dead letters") as connection:
            done = connection.execute(emptied).rowcount == 0
    return int(rows), int(size)


def _prune_replies(ledger: Ledger, now_us: int, days: float, dry_run: bool) -> tuple[int, int]:
    before = now_us - int(days * DAY_US)
    detail = sa.func.coalesce(_judgments.missing_detail, "")
    old = sa.and_(_judgments.judged_us < before, sa.or_(_judgments.raw_reply != "", detail != ""))
    counted = sa.select(
        sa.func.count(), sa.func.coalesce(sa.func.sum(_length(_judgments.raw_reply) + _length(detail)), 0)
    )
    with ledger.snapshot() as snapshot:
        rows, size = snapshot.connection.execute(counted.where(old)).one()
        last = int(snapshot.connection.execute(sa.select(sa.func.max(_queries.query_no))).scalar() or 0)
    emptied = schema.judgments.update().values(
        raw_reply="", missing_detail=sa.case((_judgments.missing_detail.is_not(None), ""))
    )
    for first in () if dry_run or not rows else range(0, last + 1, _PAGE):
        page = _judgments.query_no.between(first, first + _PAGE - 1)
        with ledger.writing("prune raw replies") as connection:
            connection.execute(emptied.where(page, old))
    return int(rows), int(size)


def _prune_passages(ledger: Ledger, dry_run: bool) -> tuple[int, int]:
    with ledger.snapshot() as snapshot:
        names = list(snapshot.connection.execute(sa.select(schema.passages.c.collection).distinct()).scalars())
    counts = [_prune_texts(ledger, name, dry_run) for name in names]
    return sum(rows for rows, _ in counts), sum(size for _, size in counts)


def _prune_texts(ledger: Ledger, collection: str, dry_run: bool) -> tuple[int, int]:
    """One collection's texts that no query names. Holds the collection while it looks, for a commit may bring a query
    that names one of them."""
    columns = schema.passages.c
    with ledger.writing("prune passages") as connection:
        if not dry_run:
            hold(connection, {collection})
        held = connection.execute(sa.select(columns.text_hash).where(columns.collection == collection)).scalars()
        unused = sorted(set(held) - _named(connection, collection))
        size = 0
        for some in in_chunks(unused):
            these = sa.and_(columns.collection == collection, columns.text_hash.in_(some))
            found = connection.execute(
                sa.select(sa.func.sum(_length(columns.title) + _length(columns.text))).where(these)
            )
            size += int(found.scalar() or 0)
            if not dry_run:
                connection.execute(schema.passages.delete().where(these))
    return len(unused), size


def _named(connection: sa.Connection, collection: str) -> set[str]:
    """The text hashes that the collection's candidates name."""
    packed = schema.candidate_sets.c
    joined = schema.candidate_sets.join(schema.queries, packed.query_no == _queries.query_no)
    chosen = sa.select(packed.query_no, packed.packed).select_from(joined).where(_queries.collection == collection)
    found: set[str] = set()
    last = 0
    while rows := connection.execute(
        chosen.where(packed.query_no > last).order_by(packed.query_no).limit(_PAGE)
    ).all():
        for row in rows:
            found.update(unpack(row.packed)["text_hash"])
        last = rows[-1].query_no
    return found


def compact(ledger: Ledger) -> tuple[int, int]:
    """Gives back the space of what was pruned and renews the planner's statistics. Bytes before and after.

    SQLite: VACUUM, which needs the file alone and as much disk again for a while. PostgreSQL: VACUUM ANALYZE of the
    ledger's tables, beside readers and writers; the space is used again, and the files do not shrink.
    """
    before = disk_bytes(ledger)
    without_remains(ledger)
    return before, disk_bytes(ledger)


def without_remains(ledger: Ledger) -> bool:
    """As `compact`. False: a reader keeps SQLite's log, and what was deleted in it, for now."""
    with ledger.administering("compact the ledger") as engine:
        if engine.dialect.name == "sqlite":
            return on_sqlite.compact(engine)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"VACUUM (ANALYZE) {', '.join(schema.metadata.tables)}")
        return True


def disk_bytes(ledger: Ledger) -> int:
    """Bytes that the ledger's tables and indexes take; of SQLite's write-ahead log too."""
    return sum(table_bytes(ledger).values())


def table_bytes(ledger: Ledger) -> dict[str, int]:
    """Table -> bytes with its indexes; on SQLite, which cannot tell tables apart cheaply, file -> bytes."""
    with ledger.administering("measure the ledger") as engine:
        if engine.dialect.name == "sqlite":
            return on_sqlite.file_bytes(engine)
        sizes = sa.select(*[sa.func.pg_total_relation_size(name).label(name) for name in schema.metadata.tables])
        with engine.connect() as connection:
            return {name: int(size) for name, size in connection.execute(sizes).one()._mapping.items()}
