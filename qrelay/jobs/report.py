"""Where training stands: the policy's counters a collection, what the next trigger lacks, triggers, runs."""

from __future__ import annotations

from typing import Any, Final

from qrelay.jobs.policy import decide
from qrelay.labels.ledger import outbox
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.outbox import Run, TrainingStatus, Trigger
from qrelay.labels.ledger.times import moment
from qrelay.settings.training import TrainingSettings

SHOWN: Final = 20
"""Triggers and runs in a report, the latest."""


def training_report(ledger: Ledger, settings: TrainingSettings, collection: str = "") -> dict[str, Any]:
    """For one collection or for all; ready for JSON. Times are ISO 8601, UTC; ages are seconds. The counters of a
    collection that the policy is not for are None: its new labels are not counted."""
    now_us = ledger.now_us()
    with ledger.snapshot() as snapshot:
        connection = snapshot.connection
        names = [collection] if collection else outbox.collection_names(connection)
        stand = [outbox.standing(connection, name) for name in names]
        triggers = outbox.triggers(connection, collection, SHOWN)
        runs = outbox.runs(connection, collection=collection, limit=SHOWN)
    return {
        "enabled": settings.enabled,
        "command": list(settings.command),
        "collections": [_collection(each, settings, now_us) for each in stand if each],
        "triggers": [_trigger(each) for each in triggers],
        "runs": [_run(each) for each in runs],
    }


def _collection(at: TrainingStatus, settings: TrainingSettings, now_us: int) -> dict[str, Any]:
    decision = decide(at, settings, now_us)
    covered = settings.covers(at.collection)
    off = "the policy is not for it (sink.training.collections)" if settings.enabled else "the policy is off"
    return {
        "collection": at.collection,
        "policy": covered,
        "change_no": at.change_no,
        "since": _time(at.since_us),
        "new_hard_examples": at.new.hard_examples if covered else None,
        "new_disagreements": at.new.disagreements if covered else None,
        "new_judged": at.new.judged if covered else None,
        "pending": at.pending,
        "running": at.running,
        "waits": ("" if decision.rule else decision.waits) if covered else off,
        "rules": [
            {"rule": each.rule, "have": round(each.have, 4), "needed": each.needed, "lacks": each.lacks}
            for each in (decision.progress if covered else ())
        ],
    }


def _trigger(trigger: Trigger) -> dict[str, Any]:
    return {
        **trigger.facts,
        "state": trigger.state,
        "decided": _time(trigger.decided_us),
        "closed": _time(trigger.closed_us),
        "attempts": trigger.attempts,
        "error": trigger.error,
        **trigger.detail,
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "job": run.job_name,
        "trigger": run.trigger_no,
        "collection": run.collection,
        "launcher": run.launcher,
        "state": run.state,
        "started": _time(run.started_us),
        "finished": _time(run.finished_us),
        "exit_code": run.exit_code,
        **run.detail,
    }


def _time(microseconds_utc: int | None) -> str | None:
    return None if microseconds_utc is None else moment(microseconds_utc).isoformat(timespec="seconds")
