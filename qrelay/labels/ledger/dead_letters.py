"""Dead letters in the ledger: what could not be processed, kept whole until somebody replays it.

    open ──begin_replay──► replaying ──finish_replay──► replayed
      │                        │                            │
      └── its query committed ─┴── in its round or a later ─┴──► resolved

`replaying` is written before the originals are published and `replayed` after, so that a crash between the
two leaves dead letters that the next replay takes again: at least once, and the ledger's first-commit rule
makes that once. A message that dies again after a replay reopens its dead letter (same id, later failure).

These functions work inside a transaction that the caller opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, Final

import orjson
import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.identity import query_fingerprint
from qrelay.labels.ledger import forgetting, schema
from qrelay.labels.ledger.bulk import in_chunks, is_empty
from qrelay.labels.ledger.changes import hold
from qrelay.labels.ledger.database import upsert
from qrelay.labels.ledger.rows import Row, evidence
from qrelay.labels.ledger.times import microseconds, moment
from qrelay.types import DeadLetter

OPEN: Final = "open"
REPLAYING: Final = "replaying"
REPLAYED: Final = "replayed"
RESOLVED: Final = "resolved"
WAITING: Final = (OPEN, REPLAYING)
"""The states of a dead letter that still waits for an operator."""

_letters = schema.dead_letters.c
_TEXTS = (_letters.query_id, _letters.query_text, _letters.detail, _letters.subject, _letters.headers)
_SIZE = sum((4 * sa.func.length(text) for text in _TEXTS), sa.func.length(_letters.payload))
"""Bytes of a letter, at most: a character has four."""
_TOKEN = re.compile("[0-9]{1,18}")
"""Ids in one statement: databases limit the parameters of a statement."""
_RESOLVE = schema.dead_letters.update().where(
    _letters.submission.in_(sa.bindparam("wanted", expanding=True)),
    _letters.round <= sa.bindparam("latest"),
    _letters.state != RESOLVED,
)


@dataclass(frozen=True, slots=True)
class DeadLetterEntry:
    """A dead letter with where it stands: `state` is one of the constants above, `closed_at` is when it
    was replayed or resolved."""

    letter: DeadLetter
    state: str
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """One page of dead letters, oldest first; `next_page_token` is empty on the last page."""

    entries: tuple[DeadLetterEntry, ...]
    next_page_token: str


def record(connection: sa.Connection, letters: Sequence[DeadLetter], now_us: int) -> None:
    """Stores each dead letter once by its id. One whose submission is committed is stored as resolved, one whose
    query was forgotten is not stored."""
    hold(connection, {evidence(letter.collection) for letter in letters})  # or a commit could pass unseen
    gone = forgetting.among(connection, {_key(letter) for letter in letters})
    letters = [letter for letter in letters if _key(letter) not in gone]
    if not letters:
        return
    committed = _committed(connection, letters)
    rows = [_row(letter, letter.dead_letter_id in committed, now_us) for letter in letters]
    table = schema.dead_letters
    insert = upsert(table)
    news = (
        "reason",
        "detail",
        "attempts",
        "failed_us",
        "subject",
        "headers",
        "payload",
        "stage",
        "state",
        "closed_us",
    )
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=[table.c.dead_letter_id],
            set_={name: insert.excluded[name] for name in news},
            where=sa.and_(
                sa.or_(table.c.state == REPLAYING, table.c.state == REPLAYED),
                insert.excluded.failed_us > table.c.failed_us,
            ),
        ),
        rows,
    )


def _key(letter: DeadLetter) -> tuple[str, str]:
    return evidence(letter.collection), evidence(letter.query_id)


def _committed(connection: sa.Connection, letters: Sequence[DeadLetter]) -> set[str]:
    """The ids of those whose very submission (id and text) is in the ledger, in their round or a later one."""
    by_query: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in letters:
        by_query.setdefault(_key(letter), []).append(letter)
    queries = schema.queries.c
    found: set[str] = set()
    for (collection, query_id), same in by_query.items():
        stands = connection.execute(
            sa.select(queries.text, queries.round).where(
                queries.collection == collection, queries.query_id == query_id
            )
        ).one_or_none()
        if stands is not None:
            served = (each for each in same if each.query_text == stands.text and each.round <= stands.round)
            found.update(letter.dead_letter_id for letter in served)
    return found


def _row(letter: DeadLetter, committed: bool, now_us: int) -> Row:
    return {
        "dead_letter_id": evidence(letter.dead_letter_id),
        "submission": query_fingerprint(letter.collection, letter.query_id, letter.query_text),
        "stage": evidence(letter.stage),
        "collection": evidence(letter.collection),
        "query_id": evidence(letter.query_id),
        "query_text": evidence(letter.query_text),
        "reason": evidence(letter.reason),
        "detail": evidence(letter.detail),
        "attempts": letter.attempts,
        "failed_us": microseconds(letter.failed_at),
        "subject": evidence(letter.subject),
        "headers": orjson.dumps(dict(letter.headers), option=orjson.OPT_SORT_KEYS).decode(),
        "payload": letter.payload,
        "state": RESOLVED if committed else OPEN,
        "closed_us": now_us if committed else None,
        "round": letter.round,
    }


def resolve(connection: sa.Connection, submissions: Iterable[tuple[str, int]], now_us: int) -> None:
    """Closes the dead letters of these submissions (`query_fingerprint`s), each up to its round: their queries are
    in the ledger."""
    if is_empty(connection, schema.dead_letters):
        return
    by_round: dict[int, list[str]] = {}
    for submission, query_round in submissions:
        by_round.setdefault(query_round, []).append(submission)
    for latest, wanted in sorted(by_round.items()):
        connection.execute(_RESOLVE, {"wanted": wanted, "latest": latest, "state": RESOLVED, "closed_us": now_us})


def page(
    connection: sa.Connection, collection: str, include_closed: bool, page_size: int, page_token: str, max_bytes: int
) -> DeadLetterPage:
    """One page, in the order of recording: of `page_size` letters and `max_bytes` at most, but one letter at least.
    An empty `collection` means all.

    Raises:
        InputError: the token is not one that a page returned.
    """
    if page_token and not _TOKEN.fullmatch(page_token):
        raise InputError(f"page_token {page_token!r} is not known: use next_page_token of the page before, or none")
    chosen = sa.select(_letters.letter_no, _SIZE).where(_letters.letter_no > int(page_token or 0))
    if collection:
        chosen = chosen.where(_letters.collection == collection)
    if not include_closed:
        chosen = chosen.where(_letters.state.in_(WAITING))
    found = connection.execute(chosen.order_by(_letters.letter_no).limit(page_size + 1)).all()
    totals = accumulate(size for _, size in found)
    fitting = sum(1 for count, total in enumerate(totals) if count < page_size and (not count or total <= max_bytes))
    numbers = [number for number, _ in found[:fitting]]
    return DeadLetterPage(
        tuple(_entry(row) for row in _rows(connection, numbers)), str(numbers[-1]) if fitting < len(found) else ""
    )


def _rows(connection: sa.Connection, numbers: Sequence[int]) -> Iterator[Any]:
    """These letters, one chunk of them in memory."""
    for some in in_chunks(numbers):
        wanted = _letters.letter_no.in_(some)
        yield from connection.execute(sa.select(schema.dead_letters).where(wanted).order_by(_letters.letter_no))


def get(connection: sa.Connection, dead_letter_id: str) -> DeadLetterEntry | None:
    """The dead letter of this id, or None."""
    row = connection.execute(
        sa.select(schema.dead_letters).where(_letters.dead_letter_id == dead_letter_id)
    ).one_or_none()
    return None if row is None else _entry(row)


def waiting(connection: sa.Connection) -> list[str]:
    """The ids of all dead letters that wait, oldest first."""
    chosen = sa.select(_letters.dead_letter_id).where(_letters.state.in_(WAITING)).order_by(_letters.letter_no)
    return list(connection.execute(chosen).scalars())


def begin_replay(connection: sa.Connection, ids: Sequence[str] | None) -> list[DeadLetterEntry]:
    """Marks the waiting dead letters among `ids` (None: all) as replaying and returns them, oldest first."""
    ids = waiting(connection) if ids is None else ids
    rows: list[Any] = []
    for some in in_chunks(ids):
        chosen = sa.select(schema.dead_letters).where(_letters.state.in_(WAITING))
        rows += connection.execute(chosen.where(_letters.dead_letter_id.in_(some)))
    rows.sort(key=lambda row: int(row.letter_no))
    _set_state(connection, [row.letter_no for row in rows], WAITING, REPLAYING, None)
    return [_entry(row) for row in rows]


def finish_replay(connection: sa.Connection, ids: Sequence[str], now_us: int) -> None:
    """Marks as replayed those of `ids` that are still replaying."""
    numbers: list[int] = []
    for some in in_chunks(ids):
        chosen = sa.select(_letters.letter_no).where(_letters.dead_letter_id.in_(some))
        numbers += connection.execute(chosen).scalars()
    _set_state(connection, numbers, (REPLAYING,), REPLAYED, now_us)


def _set_state(
    connection: sa.Connection, numbers: Sequence[int], before: Sequence[str], after: str, closed_us: int | None
) -> None:
    for some in in_chunks(numbers):
        connection.execute(
            schema.dead_letters.update()
            .where(_letters.letter_no.in_(some), _letters.state.in_(before))
            .values(state=after, closed_us=closed_us)
        )


def _entry(row: Any) -> DeadLetterEntry:
    letter = DeadLetter(
        dead_letter_id=row.dead_letter_id,
        stage=row.stage,
        collection=row.collection,
        query_id=row.query_id,
        query_text=row.query_text,
        reason=row.reason,
        detail=row.detail,
        attempts=row.attempts,
        failed_at=moment(row.failed_us),
        subject=row.subject,
        headers=orjson.loads(row.headers),
        payload=bytes(row.payload),
        round=row.round,
    )
    return DeadLetterEntry(letter, row.state, None if row.closed_us is None else moment(row.closed_us))
