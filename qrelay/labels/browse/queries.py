"""Lists of queries, a page at a time.

    page = listed(connection, Wanted(collection="docs", differ=0.3, sort="disagreement"), size=50)
    page = listed(connection, wanted, size=50, token=page.next)

Pages go by the key of their first and last row, so the millionth query costs what the first one does, and what is
written meanwhile moves no row to another page. A token is of one order of sorting and carries nothing else.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.dead_letters import WAITING
from qrelay.labels.ledger.summaries import HASH_LETTERS

MAX_PAGE_SIZE: Final = 200
MAX_SEARCH: Final = 200
"""Characters of a search."""
SHOWN: Final = 300
"""Characters of a query's text that a list shows."""
_q, _letters = schema.queries.c, schema.dead_letters.c
_ORDERS: Final[dict[str, tuple[tuple[sa.Column[Any], ...], bool]]] = {
    "id": ((_q.collection, _q.query_id), False),
    "newest": ((_q.query_no,), True),
    "disagreement": ((_q.disagreement, _q.query_no), True),
    "uncertainty": ((_q.uncertainty, _q.query_no), True),
    "apart": ((_q.people_apart, _q.query_no), True),
    "missing": ((_q.missing, _q.query_no), True),
    "graded": ((_q.people, _q.query_no), True),
}
SORTS: Final = tuple(_ORDERS)
GRADED: Final = ("", "yes", "no")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which queries. Empty and 0 ask for nothing. search: words that id or text hold, all of them, ASCII letters in
    either case; differ, unsure, apart: least disagreement of judges, uncertainty, distance of a person from the
    judges, 0 to 1; missing: with a missing label; graded: "yes" or "no", by people; judge: the first letters of a
    hash."""

    collection: str = ""
    search: str = ""
    differ: float = 0.0
    unsure: float = 0.0
    apart: float = 0.0
    missing: bool = False
    graded: str = ""
    round: int | None = None
    judge: str = ""
    sort: str = "id"


@dataclass(frozen=True, slots=True)
class Row:
    """A query in a list; `text` is cut to SHOWN characters. Measures: see `ledger/summaries.py`."""

    query_no: int
    collection: str
    query_id: str
    text: str
    committed_us: int
    round: int
    judgments: int
    pairs: int
    missing: int
    people: int
    disagreement: float
    uncertainty: float
    people_apart: float
    dead: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in their order; `next` and `before` are tokens, "" where nothing lies there."""

    rows: tuple[Row, ...]
    next: str
    before: str


def listed(connection: sa.Connection, wanted: Wanted, *, size: int, token: str = "") -> Page:
    """One page.

    Raises:
        InputError: another size than 1 to MAX_PAGE_SIZE, an order that there is not, a token of none of its pages.
    """
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise InputError(f"a page of {size} queries: use 1 to {MAX_PAGE_SIZE}")
    back, key = place_in(token, wanted.sort)
    columns, descending = _order(wanted.sort)
    found = _rows(connection, _matching(_select(), wanted), columns, descending != back, key, size + 1)
    rows, more = found[:size], len(found) > size
    if back:
        rows.reverse()
    before, after = (more, True) if back else (bool(key), more)
    return Page(
        tuple(rows),
        _token(wanted.sort, rows[-1], back=False) if rows and after else "",
        _token(wanted.sort, rows[0], back=True) if rows and before else "",
    )


def counted(connection: sa.Connection, wanted: Wanted) -> int:
    """How many queries there are."""
    number = sa.select(sa.func.count()).select_from(schema.queries)
    return int(connection.execute(_matching(number, wanted)).scalar_one())


def beside(connection: sa.Connection, wanted: Wanted, row: Row) -> tuple[Row | None, Row | None]:
    """The queries before and after this one in the list, which it need not be in."""
    found = []
    for back in (True, False):
        page = listed(connection, wanted, size=1, token=_token(wanted.sort, row, back=back))
        found.append(page.rows[0] if page.rows else None)
    return found[0], found[1]


def row_of(connection: sa.Connection, collection: str, query_id: str) -> Row | None:
    """One query's row; None where there is none."""
    chosen = _select().where(_q.collection == collection, _q.query_id == query_id)
    found = connection.execute(chosen).one_or_none()
    return None if found is None else Row(*found)


def place_in(token: str, sort: str) -> tuple[bool, list[Any]]:
    """(whether it goes backwards, the key) of a token of a list in this order; (False, []) of none. Raises
    InputError: it is none of such a list."""
    columns, _ = _order(sort)
    if not token:
        return False, []
    try:
        of_sort, back, *key = orjson.loads(base64.urlsafe_b64decode(token))
        kinds = [column.type.python_type for column in columns]
        if of_sort == sort and [*map(type, key)] == kinds:
            return bool(back), key
    except (binascii.Error, ValueError, TypeError):
        pass
    raise InputError(f"{token[:80]!r} is no place in this list: begin with its first page")


def containing(column: sa.ColumnElement[str], *others: sa.ColumnElement[str], search: str) -> list[Any]:
    """Conditions that each word of the search is in one of the columns. Raises InputError: too long a search."""
    if len(search) > MAX_SEARCH:
        raise InputError(f"a search of {len(search)} characters: {MAX_SEARCH} are the most")
    return [sa.or_(*(each.icontains(word, autoescape=True) for each in (column, *others))) for word in search.split()]


def _order(sort: str) -> tuple[tuple[sa.Column[Any], ...], bool]:
    if sort not in _ORDERS:
        raise InputError(f"no order {sort[:40]!r}: use one of {', '.join(SORTS)}")
    return _ORDERS[sort]


def _select() -> Any:
    letters = sa.exists().where(
        _letters.collection == _q.collection, _letters.query_id == _q.query_id, _letters.state.in_(WAITING)
    )
    return sa.select(
        _q.query_no, _q.collection, _q.query_id, sa.func.substr(_q.text, 1, SHOWN), _q.committed_us, _q.round,
        _q.judgments, _q.pairs, _q.missing, _q.people, _q.disagreement, _q.uncertainty, _q.people_apart, letters,
    )  # fmt: skip


def _matching(chosen: Any, wanted: Wanted) -> Any:
    least = (_q.disagreement, wanted.differ), (_q.uncertainty, wanted.unsure), (_q.people_apart, wanted.apart)
    conditions: list[Any] = containing(_q.text, _q.query_id, search=wanted.search)
    conditions += [column >= value for column, value in least if value > 0]
    conditions += [_q.collection == wanted.collection] if wanted.collection else []
    conditions += [_q.missing > 0] if wanted.missing else []
    conditions += [_q.round == wanted.round] if wanted.round is not None else []
    conditions += [_q.people > 0] if wanted.graded == "yes" else [_q.people == 0] if wanted.graded == "no" else []
    conditions += [_q.judges.contains(f" {wanted.judge[:HASH_LETTERS]}", autoescape=True)] if wanted.judge else []
    return chosen.where(*conditions)


def _rows(
    connection: sa.Connection, chosen: Any, columns: Sequence[Any], descending: bool, key: Sequence[Any], size: int
) -> list[Row]:
    if key:
        values = [sa.literal(value, column.type) for value, column in zip(key, columns, strict=True)]
        here, there = sa.tuple_(*columns), sa.tuple_(*values)
        chosen = chosen.where(here < there if descending else here > there)
    order = [column.desc() if descending else column.asc() for column in columns]
    return [Row(*row) for row in connection.execute(chosen.order_by(*order).limit(size))]


def _token(sort: str, row: Row, *, back: bool) -> str:
    names = [column.name for column in _ORDERS[sort][0]]
    said = orjson.dumps([sort, back, *(getattr(row, name) for name in names)])
    return base64.urlsafe_b64encode(said).decode()
