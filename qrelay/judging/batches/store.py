"""The store of batches and their requests: two tables more in the judgment cache's database, `batches` and
`batch_requests`, on PostgreSQL with `qrelay_` before. They are made when a judge first asks by batches."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from qrelay.chunks import chunks
from qrelay.errors import BackendUnavailable
from qrelay.files import held
from qrelay.identity import digest
from qrelay.judging.cache_sql import SqlCache, _column, _Moment, _postgres
from qrelay.llm.batch.limits import BYTES_A_TOKEN
from qrelay.llm.batch.records import Batch, BatchState, Found, Line, Pile, Request, RequestState, Target

_PART: Final = 500
_LOCKS: Final = 7_191_523
"""First half of PostgreSQL's advisory locks of drivers."""


class SqlBatches(SqlCache):
    """See `BatchStore`. A connection of its own to the cache's database; a power cut takes back no commit."""

    def __init__(self, address: str) -> None:
        """As the cache's."""
        super().__init__(address)
        self._address = address
        if self._sqlite:
            with self._using() as db:
                db.exec_driver_sql("PRAGMA synchronous=FULL")

    def _define(self, prefix: str) -> None:
        super()._define(prefix)
        target = ("account", "path", "model")
        self._batches = sa.Table(
            prefix + "batches",
            self._metadata,
            sa.Column("name", sa.Text, primary_key=True),
            *(_column(each) for each in (*target, "state", "file_id", "batch_id", "status", "note")),
            *(_column(each, sa.BigInteger()) for each in ("requests", "bytes", "tokens", "done", "failed")),
            _column("cancel", sa.Boolean()),
            _column("planned_at", _Moment()),
            *(sa.Column(each, _Moment()) for each in ("tried_at", "ended_at")),
        )
        self._requests = sa.Table(
            prefix + "batch_requests",
            self._metadata,
            sa.Column("request_key", sa.Text, primary_key=True),
            *(_column(each) for each in (*target, "state", "batch", "reason")),
            *(_column(each, sa.Integer()) for each in ("bytes", "tries", "status")),
            *(_column(each, sa.LargeBinary()) for each in ("body", "answer")),
            _column("asked_at", _Moment()),
            sa.Column("settled_at", _Moment()),
        )
        sa.Index(f"{prefix}batch_requests_state", self._requests.c.state, self._requests.c.account)
        sa.Index(f"{prefix}batch_requests_batch", self._requests.c.batch)

    @contextmanager
    def driving(self, account: str) -> Iterator[bool]:
        """By a lock file beside a SQLite file, or by an advisory lock of a connection to PostgreSQL."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._lock_of(digest(account)))
            except _Busy:
                yield False
                return
            yield True

    @contextmanager
    def _lock_of(self, account: str) -> Iterator[None]:
        if self._sqlite:
            with held(Path(f"{self._address}.{account[:12]}.lock"), _Busy()):
                yield
            return
        name, connect = _postgres(self._address)
        engine = sa.create_engine(name, creator=connect, poolclass=sa.NullPool)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            if not db.scalar(sa.select(sa.func.pg_try_advisory_lock(_LOCKS, int(account[:7], 16)))):
                raise _Busy
            yield

    def find(self, keys: Sequence[str], retry_before: datetime) -> dict[str, Found]:
        """See BatchStore."""
        row = self._requests.c
        columns = (row.request_key, row.state, row.asked_at, row.batch, row.status, row.answer, row.reason)
        stale = sa.and_(row.state == RequestState.FAILED, row.settled_at < retry_before)
        found: dict[str, Found] = {}
        with self._using() as db:
            for part in chunks(keys, _PART):
                for key, state, since, batch, status, answer, reason in db.execute(
                    sa.select(*columns).where(row.request_key.in_(part), sa.not_(stale))
                ):
                    read = zlib.decompress(answer) if answer else b""
                    found[key] = Found(RequestState(state), since, batch, status, read, reason)
        return found

    def add(self, requests: Sequence[Request], now: datetime) -> None:
        """See BatchStore."""
        if not requests:
            return
        values = [
            {"request_key": each.key, **_target(each.target), "state": RequestState.WAITING, "batch": "",
             "reason": "", "bytes": len(each.body) + _AROUND, "tries": 0, "status": 0,
             "body": zlib.compress(each.body), "answer": b"", "asked_at": now}
            for each in sorted(requests, key=lambda each: each.key)
        ]  # fmt: skip
        new = self._insert(self._requests)
        again = {name: new.excluded[name] for name in ("state", "batch", "reason", "tries", "asked_at", "body")}
        statement = new.on_conflict_do_update(
            index_elements=["request_key"], set_=again, where=self._requests.c.state == RequestState.FAILED
        )
        with self._using(write=True) as db:
            db.execute(statement, values)

    def piles(self, account: str) -> list[Pile]:
        """See BatchStore."""
        row = self._requests.c
        target = (row.account, row.path, row.model)
        counts = (sa.func.count(), sa.func.sum(row.bytes), sa.func.min(row.asked_at, type_=_Moment()))
        wanted = sa.select(*target, *counts).where(self._waiting(account)).group_by(*target).order_by(*target)
        with self._using() as db:
            return [Pile(Target(*each[:3]), each[3], int(each[4]), each[5]) for each in db.execute(wanted).all()]

    def _waiting(self, account: str) -> sa.ColumnElement[bool]:
        return sa.and_(self._requests.c.state == RequestState.WAITING, self._requests.c.account == account)

    def plan(self, batch: Batch, most: int, most_bytes: int) -> Batch | None:
        """See BatchStore."""
        row, target = self._requests.c, batch.target
        wanted = (
            sa.select(row.request_key, row.bytes)
            .where(self._waiting(target.account), row.path == target.path, row.model == target.model)
            .order_by(row.asked_at, row.request_key)
            .limit(most)
            .with_for_update()
        )
        with self._using(write=True) as db:
            chosen = _within(db.execute(wanted).all(), most_bytes)
            if not chosen:
                return None
            size = sum(chosen.values())
            planned = replace(batch, requests=len(chosen), bytes=size, tokens=size // BYTES_A_TOKEN)
            db.execute(self._batches.insert(), _row(planned))
            for part in chunks(list(chosen), _PART):
                db.execute(
                    sa.update(self._requests)
                    .where(row.request_key.in_(part))
                    .values(state=RequestState.SENT, batch=batch.name)
                )
        return planned

    def lines(self, name: str) -> Iterator[tuple[str, bytes]]:
        """See BatchStore."""
        row, last = self._requests.c, ""
        wanted = sa.select(row.request_key, row.body).where(row.batch == name, row.state == RequestState.SENT)
        while True:
            with self._using() as db:
                page = db.execute(wanted.where(row.request_key > last).order_by(row.request_key).limit(_PART)).all()
            yield from ((key, zlib.decompress(body)) for key, body in page)
            if not page:
                return
            last = page[-1][0]

    def update(self, name: str, **changes: object) -> None:
        """See BatchStore."""
        with self._using(write=True) as db:
            db.execute(sa.update(self._batches).where(self._batches.c.name == name).values(**changes))

    def answer(self, name: str, lines: Sequence[Line], now: datetime) -> int:
        """See BatchStore. The request's own text is no longer kept."""
        row = self._requests.c
        new = 0
        with self._using(write=True) as db:
            for each in lines:
                statement = sa.update(self._requests).where(
                    row.request_key == each.key, row.batch == name, row.state == RequestState.SENT
                )
                new += db.execute(
                    statement.values(
                        state=RequestState.ANSWERED, status=each.status, answer=zlib.compress(each.body), body=b"",
                        settled_at=now,
                    )
                ).rowcount  # fmt: skip
        return new

    def end(self, batch: Batch, reason: str, now: datetime, *, tries: int | None, spent: bool) -> tuple[int, int]:
        """See BatchStore."""
        row = self._requests.c
        left = sa.and_(row.batch == batch.name, row.state == RequestState.SENT)
        tired = sa.true() if tries is None else row.tries + int(spent) >= tries
        failed = sa.update(self._requests).where(left, tired)
        again = sa.update(self._requests).where(left)
        with self._using(write=True) as db:
            given_up = db.execute(failed.values(state=RequestState.FAILED, reason=reason, settled_at=now)).rowcount
            waiting = db.execute(
                again.values(state=RequestState.WAITING, reason=reason, tries=row.tries + int(spent))
            ).rowcount
            db.execute(
                sa.update(self._batches)
                .where(self._batches.c.name == batch.name)
                .values(state=BatchState.ENDED, note=reason, ended_at=now, tokens=batch.tokens)
            )
        return waiting, given_up

    def open(self, account: str) -> list[Batch]:
        """See BatchStore."""
        row = self._batches.c
        return self._found(
            sa.select(self._batches)
            .where(row.account == account, row.state != BatchState.ENDED)
            .order_by(row.planned_at, row.name)
        )

    def recent(self, limit: int = 50) -> list[Batch]:
        """See BatchStore."""
        return self._found(sa.select(self._batches).order_by(self._batches.c.planned_at.desc()).limit(limit))

    def _found(self, wanted: Any) -> list[Batch]:
        with self._using() as db:
            return [_batch(row._mapping) for row in db.execute(wanted).all()]

    def forget(self, before: datetime) -> int:
        """Remove answers and failures from before, and batches that ended then. How many requests."""
        request, batch = self._requests.c, self._batches.c
        with self._using(write=True) as db:
            gone = db.execute(sa.delete(self._requests).where(request.settled_at < before)).rowcount
            db.execute(sa.delete(self._batches).where(batch.ended_at < before))
        return gone

    def erase_texts(self, holds: Callable[[bytes], bool], *, dry_run: bool = False) -> tuple[int, list[str]]:
        """Remove requests whose body or answer `holds` knows: how many, and the endpoint's names of the files and
        batches that they were sent in."""
        row, batch, chosen = self._requests.c, self._batches.c, dict[str, str]()
        with self._using() as db:
            rows = db.execution_options(yield_per=_PART).execute(
                sa.select(row.request_key, row.batch, row.body, row.answer)
            )
            for key, name, *blobs in rows:
                if any(blob and holds(zlib.decompress(blob)) for blob in blobs):
                    chosen[key] = name
            sent = db.execute(sa.select(batch.file_id, batch.batch_id).where(batch.name.in_(set(chosen.values()))))
            there = sorted({each for pair in sent for each in pair if each})
        for part in () if dry_run else chunks(list(chosen), _PART):
            with self._using(write=True) as db:
                db.execute(sa.delete(self._requests).where(row.request_key.in_(part)))
        return len(chosen), there


_AROUND: Final = 192
"""Bytes of a line beside its body."""


class _Busy(BackendUnavailable):
    """Another process drives."""

    def __init__(self) -> None:
        super().__init__("another process drives the batches of this account")


def _within(rows: Sequence[Any], most_bytes: int) -> dict[str, int]:
    """key -> bytes of the first rows that fit together; one that is too large goes alone."""
    chosen: dict[str, int] = {}
    left = most_bytes
    for key, size in rows:
        if left <= 0 or (size > left and chosen):
            break
        chosen[key] = size
        left -= size
    return chosen


def _target(target: Target) -> dict[str, str]:
    return {"account": target.account, "path": target.path, "model": target.model}


def _row(batch: Batch) -> dict[str, Any]:
    fields = {name: getattr(batch, name) for name in Batch.__slots__ if name != "target"}
    return {**fields, **_target(batch.target)}


def _batch(row: Mapping[Any, Any]) -> Batch:
    own = {name: row[name] for name in Batch.__slots__ if name != "target"}
    own["state"] = BatchState(own["state"])
    return Batch(target=Target(row["account"], row["path"], row["model"]), **own)
