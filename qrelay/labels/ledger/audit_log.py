"""Who changed what: one row a mutating act, which nobody changes or deletes.

    with ledger.writing("record an override") as connection:
        ...
        record(connection, "override", ledger.now_us(), collection="docs", subject="q1 d3#0", count=1)

The row is written in the transaction of the act, so neither is there without the other. Who acts is the principal of
the call or request (`qrelay.security.identity.who`), in a command the user of its process. `subject` names queries,
passages, versions or judges by their ids, never a text. Triggers in the database refuse to change or delete a row.
What the queue commits leaves no row: it is nobody's act, and has its own provenance.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from qrelay.errors import InputError, QrelayError
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.rows import PreparedSet
from qrelay.labels.ledger.times import moment
from qrelay.labels.outcome import DONE, Told
from qrelay.security.identity import who
from qrelay.settings.secrets import masked

if TYPE_CHECKING:
    from qrelay.labels.ledger.ledger import Ledger

MAX_PAGE_SIZE: Final = 1000
log = logging.getLogger(__name__)
_SHOWN: Final = 20
"""Ids that a row names; `count` says how many there are."""
_CHARS: Final = 1000
_rows = schema.audit_log.c

_REFUSAL: Final = "the audit log keeps what is in it"
_APPEND_ONLY: Final = {
    "sqlite": tuple(
        f"CREATE TRIGGER audit_log_no_{act} BEFORE {event} BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        for act, event in (
            ("update", "UPDATE ON audit_log"),
            ("delete", "DELETE ON audit_log"),
            ("replace", "INSERT ON audit_log WHEN EXISTS (SELECT 1 FROM audit_log WHERE entry_no = NEW.entry_no)"),
        )
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$",
        "CREATE TRIGGER audit_log_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse()",
    ),
}


def make_append_only(connection: sa.Connection) -> None:
    """Once, after the table was made: the database refuses to change or delete a row of it."""
    for statement in _APPEND_ONLY[connection.dialect.name]:
        connection.exec_driver_sql(statement)


@dataclass(frozen=True, slots=True)
class Act:
    """A row. kind: of who: service, person or local. outcome: how it ended (`qrelay.labels.outcome`), or why it
    failed."""

    entry_no: int
    at: datetime
    who: str
    kind: str
    act: str
    collection: str
    subject: str
    count: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Page:
    """Acts, the latest first; `next_page_token` is empty on the last page."""

    acts: tuple[Act, ...]
    next_page_token: str


def record(
    connection: sa.Connection,
    act: str,
    now_us: int,
    *,
    collection: str = "",
    subject: str = "",
    count: int = 1,
    outcome: str = DONE,
) -> None:
    """Adds a row. act: a word of the table in docs/security.md. subject: ids. count: how many things it touched."""
    principal = who()
    values = {
        "at_us": now_us,
        "who": _text(principal.name),
        "kind": principal.kind.value,
        "act": act,
        "collection": _text(collection),
        "subject": _text(subject),
        "touched": count,
        "outcome": _text(outcome),
    }
    connection.execute(schema.audit_log.insert(), values)


def record_sets(
    connection: sa.Connection, act: str, batch: Sequence[PreparedSet], changed: Sequence[bool], now_us: int
) -> None:
    """A row for each collection of the sets that changed anything."""
    by_collection: dict[str, list[str]] = {}
    for item, is_changed in zip(batch, changed, strict=True):
        if is_changed:
            by_collection.setdefault(item.query.collection, []).append(item.query.query_id)
    for collection, queries in by_collection.items():
        record(connection, act, now_us, collection=collection, subject=ids(queries), count=len(queries))


@contextmanager
def audited(ledger: Ledger | None, act: str, subject: str) -> Iterator[Told]:
    """Around an act that changes something else than the ledger, or more than one transaction: its row comes after
    it, done or failed. None: there is no ledger to write to. The act is over by then, so a row that cannot be written
    is logged, and the act's own outcome stands."""
    told, outcome = Told(), "interrupted"
    try:
        yield told
        outcome = told.outcome
    except Exception as error:
        outcome = f"failed: {_shown(error)}"
        raise
    finally:
        if ledger is not None:
            _record_after(ledger, act, subject, outcome)


def _record_after(ledger: Ledger, act: str, subject: str, outcome: str) -> None:
    try:
        with ledger.writing("record an act in the audit log") as connection:
            record(connection, act, ledger.now_us(), subject=subject, outcome=outcome)
    except QrelayError as error:
        log.warning("not in the audit log: %s %s, %s: %s", act, subject, outcome, masked(str(error)))


def _shown(error: Exception) -> str:
    """Why an act failed, without a secret; an error that is not ours may hold a text, so only its kind is told."""
    return str(masked(str(error))) if isinstance(error, QrelayError) else type(error).__name__


def ids(found: Iterable[str]) -> str:
    """Ids as a row's subject has them."""
    listed = list(dict.fromkeys(found))
    more = [f"and {len(listed) - _SHOWN} more"] if len(listed) > _SHOWN else []
    return " ".join([*listed[:_SHOWN], *more])


def page(connection: sa.Connection, *, act: str = "", collection: str = "", size: int = 100, token: str = "") -> Page:
    """One page, the latest first. act, collection: only such rows; "": all.

    Raises:
        InputError: a token that no page returned, or a size below 1.
    """
    if size < 1 or (token and not (token.isdecimal() and len(token) < 19)):
        raise InputError("give a page size of 1 or more, and the token of the page before, or none")
    chosen = sa.select(schema.audit_log).order_by(_rows.entry_no.desc()).limit(min(size, MAX_PAGE_SIZE) + 1)
    for column, wanted in ((_rows.act, act), (_rows.collection, collection)):
        chosen = chosen.where(column == wanted) if wanted else chosen
    found = connection.execute(chosen.where(_rows.entry_no < int(token)) if token else chosen).all()
    return _page([_act(row) for row in found], min(size, MAX_PAGE_SIZE))


def _page(acts: Sequence[Act], size: int) -> Page:
    return Page(tuple(acts[:size]), str(acts[size - 1].entry_no) if len(acts) > size else "")


def _act(row: sa.Row[tuple[object, ...]]) -> Act:
    who_acted = (row.who, row.kind)
    return Act(
        row.entry_no, moment(row.at_us), *who_acted, row.act, row.collection, row.subject, row.touched, row.outcome
    )


def _text(text: str) -> str:
    """What a database can hold, on one line."""
    return " ".join(text.replace("\0", "\ufffd").split())[:_CHARS]
