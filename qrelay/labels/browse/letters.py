"""Dead letters that wait, as a list of queries shows them, the latest first; their originals are not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.labels.browse.queries import MAX_PAGE_SIZE, SHOWN, containing
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.dead_letters import WAITING

_l = schema.dead_letters.c
_DIGITS: Final = 18


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter without its original. committed: the ledger holds a query of its id."""

    letter_no: int
    collection: str
    query_id: str
    text: str
    stage: str
    reason: str
    detail: str
    attempts: int
    failed_us: int
    round: int
    committed: bool
    dead_letter_id: str


def listed(
    connection: sa.Connection, collection: str = "", search: str = "", *, size: int, token: str = ""
) -> tuple[tuple[Letter, ...], str]:
    """One page, and the token of the next one. Empty texts ask for nothing.

    Raises:
        InputError: another size than 1 to MAX_PAGE_SIZE, or a token of none of its pages.
    """
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise InputError(f"a page of {size} dead letters: use 1 to {MAX_PAGE_SIZE}")
    if token and not (token.isascii() and token.isdecimal() and len(token) <= _DIGITS):
        raise InputError(f"{token[:80]!r} is no place in this list: begin with its first page")
    chosen = _select().where(*_conditions(collection, search)).order_by(_l.letter_no.desc()).limit(size + 1)
    if token:
        chosen = chosen.where(_l.letter_no < int(token))
    found = [Letter(*row) for row in connection.execute(chosen)]
    return tuple(found[:size]), str(found[size - 1].letter_no) if len(found) > size else ""


def of_query(connection: sa.Connection, collection: str, query_id: str) -> tuple[Letter, ...]:
    """Those that wait of one query, at most MAX_PAGE_SIZE."""
    here = _l.collection == collection, _l.query_id == query_id, _l.state.in_(WAITING)
    chosen = _select().where(*here).order_by(_l.letter_no.desc()).limit(MAX_PAGE_SIZE)
    return tuple(Letter(*row) for row in connection.execute(chosen))


def counted(connection: sa.Connection, collection: str = "", search: str = "") -> int:
    """How many there are."""
    number = sa.select(sa.func.count()).select_from(schema.dead_letters)
    return int(connection.execute(number.where(*_conditions(collection, search))).scalar_one())


def _select() -> Any:
    queries = schema.queries.c
    committed = sa.exists().where(queries.collection == _l.collection, queries.query_id == _l.query_id)
    return sa.select(
        _l.letter_no, _l.collection, _l.query_id, sa.func.substr(_l.query_text, 1, SHOWN), _l.stage, _l.reason,
        sa.func.substr(_l.detail, 1, SHOWN), _l.attempts, _l.failed_us, _l.round, committed,
        _l.dead_letter_id,
    )  # fmt: skip


def _conditions(collection: str, search: str) -> list[Any]:
    conditions = [_l.state.in_(WAITING), *containing(_l.query_text, _l.query_id, search=search)]
    return conditions + ([_l.collection == collection] if collection else [])
