"""The outbox of training: counters, triggers and runs, read and written within a transaction that the caller opened.

A trigger is a decision to train, on disk exactly when the labels are that caused it. It is `pending` until its job
has begun, then `launched`; or `refused`, by a launcher that can never start it, or by an operator. Its counters are
those of its collection when it was decided, so that "since the last trigger" is a difference; a refused one does not
count as the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson
import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.labels.ledger.database import insert_new
from qrelay.labels.ledger.outbox_rows import (
    FAILED,
    LAUNCHED,
    PENDING,
    REFUSED,
    RUNNING,
    SUCCEEDED,
    Counters,
    Run,
    TrainingStatus,
    Trigger,
)

__all__ = (
    "FAILED",
    "LAUNCHED",
    "PENDING",
    "REFUSED",
    "RUNNING",
    "SUCCEEDED",
    "Counters",
    "Run",
    "TrainingStatus",
    "Trigger",
)

_collections, _triggers, _runs = schema.collections.c, schema.triggers.c, schema.training_runs.c


def add_counts(connection: sa.Connection, collection: str, counts: Counters) -> None:
    """Raises the collection's counters. Its row must be there and held by this transaction."""
    connection.execute(
        schema.collections.update()
        .where(_collections.collection == collection)
        .values(
            hard_examples=_collections.hard_examples + counts.hard_examples,
            disagreements=_collections.disagreements + counts.disagreements,
            judged=_collections.judged + counts.judged,
        )
    )


def collection_names(connection: sa.Connection) -> list[str]:
    """Every collection with a change, by name."""
    return list(connection.execute(sa.select(_collections.collection).order_by(_collections.collection)).scalars())


def standing(connection: sa.Connection, collection: str, *, lock: bool = False) -> TrainingStatus | None:
    """Where the collection stands; None: the ledger has nothing of it. `lock`: take its row first and hold it, so
    that nobody else decides until this transaction ends (SQLite: a writer is alone anyway)."""
    chosen = sa.select(schema.collections).where(_collections.collection == collection)
    row = connection.execute(chosen.with_for_update() if lock else chosen).one_or_none()
    if row is None:
        return None
    last = _last_trigger(connection, collection)
    total = Counters(row.hard_examples, row.disagreements, row.judged)
    return TrainingStatus(
        collection,
        row.change_no,
        total,
        last.counters if last else Counters(),
        last.decided_us if last else _first_commit(connection, collection),
        pending_trigger(connection, collection) is not None,
        _running(connection, collection),
    )


def _last_trigger(connection: sa.Connection, collection: str) -> Trigger | None:
    chosen = sa.select(schema.triggers).where(_triggers.collection == collection, _triggers.state != REFUSED)
    row = connection.execute(chosen.order_by(_triggers.change_no.desc()).limit(1)).one_or_none()
    return Trigger.of(row) if row else None


def _first_commit(connection: sa.Connection, collection: str) -> int | None:
    queries = schema.queries.c
    chosen = sa.select(queries.committed_us).where(queries.collection == collection)
    found = connection.execute(chosen.order_by(queries.change_no).limit(1)).scalar()
    return None if found is None else int(found)


def _running(connection: sa.Connection, collection: str) -> int:
    joined = schema.training_runs.join(schema.triggers, _runs.trigger_no == _triggers.trigger_no)
    chosen = sa.select(sa.func.count()).select_from(joined)
    found = connection.execute(chosen.where(_triggers.collection == collection, _runs.state == RUNNING)).scalar()
    return int(found or 0)


def pending_trigger(connection: sa.Connection, collection: str) -> Trigger | None:
    """The collection's pending trigger, of which there is one at most."""
    found = pending_triggers(connection, collection)
    return found[0] if found else None


def pending_triggers(connection: sa.Connection, collection: str = "") -> list[Trigger]:
    """The pending triggers, of a collection or of all, the oldest first."""
    chosen = sa.select(schema.triggers).where(_triggers.state == PENDING)
    if collection:
        chosen = chosen.where(_triggers.collection == collection)
    return [Trigger.of(row) for row in connection.execute(chosen.order_by(_triggers.trigger_no))]


def insert_trigger(
    connection: sa.Connection,
    at: TrainingStatus,
    rule: str,
    numbers: dict[str, Any],
    job_name: str,
    now_us: int,
    allowed: Mapping[str, bool] = MappingProxyType({}),
) -> int | None:
    """The number of the new pending trigger; None where one of this collection and change is there already. The
    caller holds the collection's row and found no pending trigger. `allowed`: see `labels/permission.py`."""
    row = {
        "collection": at.collection,
        "change_no": at.change_no,
        "rule": rule,
        "detail": orjson.dumps({"numbers": numbers, **allowed}).decode(),
        "hard_examples": at.total.hard_examples,
        "disagreements": at.total.disagreements,
        "judged": at.total.judged,
        "job_name": job_name,
        "state": PENDING,
        "decided_us": now_us,
        "attempts": 0,
        "error": "",
    }
    inserted = insert_new(schema.triggers).values(row).returning(_triggers.trigger_no)
    found = connection.execute(inserted).scalar_one_or_none()
    return None if found is None else int(found)


def trigger_at(connection: sa.Connection, collection: str, change_no: int) -> bool:
    """Whether the collection has a trigger, of any state, at this change."""
    chosen = sa.select(_triggers.trigger_no).where(
        _triggers.collection == collection, _triggers.change_no == change_no
    )
    return connection.execute(chosen).first() is not None


def get_trigger(connection: sa.Connection, trigger_no: int, *, lock: bool = False) -> Trigger | None:
    """The trigger of this number. `lock`: hold its row until the transaction ends."""
    chosen = sa.select(schema.triggers).where(_triggers.trigger_no == trigger_no)
    row = connection.execute(chosen.with_for_update() if lock else chosen).one_or_none()
    return Trigger.of(row) if row else None


def claim(connection: sa.Connection, trigger_no: int, place: str) -> bool:
    """Whether a pending trigger is for the launchers of `place` to start: the first place that asks has it for good,
    so that two places, which cannot see each other's jobs, never both start it."""
    trigger = get_trigger(connection, trigger_no, lock=True)
    if trigger is None or trigger.state != PENDING:
        return False
    held = trigger.detail.get("place")
    if held is None:
        detail = orjson.dumps({**trigger.detail, "place": place}).decode()
        connection.execute(schema.triggers.update().where(_triggers.trigger_no == trigger_no).values(detail=detail))
    return held in (None, place)


def record_launch(connection: sa.Connection, trigger: Trigger, launcher: str, place: str, now_us: int) -> bool:
    """Marks the trigger as launched with its run, running since `now_us`; False where that was recorded before.
    Also of a trigger that was refused meanwhile: its job runs."""
    row = {
        "job_name": trigger.job_name,
        "trigger_no": trigger.trigger_no,
        "launcher": launcher,
        "state": RUNNING,
        "started_us": now_us,
        "detail": orjson.dumps({"place": place}).decode(),
    }
    connection.execute(
        schema.triggers.update()
        .where(_triggers.trigger_no == trigger.trigger_no, _triggers.state != LAUNCHED)
        .values(state=LAUNCHED, closed_us=now_us, error="")
    )
    inserted = insert_new(schema.training_runs).values(row).returning(_runs.job_name)
    return connection.execute(inserted).first() is not None


def record_failure(connection: sa.Connection, trigger_no: int, error: str) -> None:
    """One more attempt to launch that failed, and why."""
    chosen = schema.triggers.update().where(_triggers.trigger_no == trigger_no, _triggers.state == PENDING)
    connection.execute(chosen.values(attempts=_triggers.attempts + 1, error=error))


def refuse(connection: sa.Connection, trigger_no: int, why: str, now_us: int) -> bool:
    """Closes a pending trigger without a job; False where it was not pending."""
    chosen = schema.triggers.update().where(_triggers.trigger_no == trigger_no, _triggers.state == PENDING)
    return connection.execute(chosen.values(state=REFUSED, closed_us=now_us, error=why)).rowcount == 1


def finish_run(
    connection: sa.Connection,
    job_name: str,
    state: str,
    exit_code: int | None,
    finished_us: int,
    detail: dict[str, Any],
) -> bool:
    """Records how a running job ended; False where that was recorded before."""
    chosen = schema.training_runs.update().where(_runs.job_name == job_name, _runs.state == RUNNING)
    values = {
        "state": state,
        "exit_code": exit_code,
        "finished_us": finished_us,
        "detail": orjson.dumps(detail).decode(),
    }
    return connection.execute(chosen.values(values)).rowcount == 1


def triggers(connection: sa.Connection, collection: str = "", limit: int = 20) -> list[Trigger]:
    """The latest triggers, of a collection or of all, the latest first."""
    chosen = sa.select(schema.triggers).order_by(_triggers.trigger_no.desc()).limit(limit)
    if collection:
        chosen = chosen.where(_triggers.collection == collection)
    return [Trigger.of(row) for row in connection.execute(chosen)]


def runs(
    connection: sa.Connection, *, collection: str = "", states: Sequence[str] = (), limit: int | None = None
) -> list[Run]:
    """Runs, of a collection and in these states or of all, the latest first."""
    joined = schema.training_runs.join(schema.triggers, _runs.trigger_no == _triggers.trigger_no)
    chosen = sa.select(schema.training_runs, _triggers.collection).select_from(joined)
    if collection:
        chosen = chosen.where(_triggers.collection == collection)
    if states:
        chosen = chosen.where(_runs.state.in_(states))
    rows = connection.execute(chosen.order_by(_runs.trigger_no.desc()).limit(limit))
    return [Run.of(row) for row in rows]
