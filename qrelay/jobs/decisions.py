"""The policy at work in the ledger: counts and decides within a commit's transaction, and on a timer in its own.

Every decision is made while holding the collection's row, and is a row of `triggers`: unique by collection and
change, one pending a collection. So replicas that decide at once decide once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import sqlalchemy as sa

from qrelay.errors import ConfigError, InputError, UnknownCollection
from qrelay.jobs.counting import count_sets, without_judges
from qrelay.jobs.launcher import job_name
from qrelay.jobs.policy import MANUAL, decide
from qrelay.labels.ledger import audit_log, outbox, retractions
from qrelay.labels.ledger.changes import begin_changes
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.merge import Added
from qrelay.labels.ledger.outbox import Trigger
from qrelay.labels.mining.rules import MiningRules
from qrelay.labels.permission import NOTHING, Allowed
from qrelay.nearest import did_you_mean, listed
from qrelay.settings.training import TrainingSettings


class Decisions:
    """Decides on training, by the policy of `settings`; hard examples are those of `rules`."""

    def __init__(self, settings: TrainingSettings, rules: MiningRules) -> None:
        self._settings = settings
        self._rules = rules

    def after_commit(self, connection: sa.Connection, sets: Sequence[Added], now_us: int) -> None:
        """Counts the new sets and decides, in the transaction that wrote them: see `ledger.AfterCommit`."""
        retracted = {row.judge_hash for row in retractions.standing(connection).values()}
        counted = without_judges(sets, retracted)
        for collection, group in groupby(sorted(counted, key=_collection), _collection):
            if self._settings.covers(collection):
                outbox.add_counts(connection, collection, count_sets(group, self._rules))
                self._decide(connection, collection, now_us)

    def on_timer(self, ledger: Ledger) -> int:
        """Decides where time alone has made a rule due: an age, the end of quiet hours or of a job. Looks without a
        lock first. Returns how many triggers that made."""
        made = 0
        for collection in self._due(ledger):
            with ledger.writing("decide on training") as connection:
                made += self._decide(connection, collection, ledger.now_us())
        return made

    def _due(self, ledger: Ledger) -> list[str]:
        if not self._settings.enabled:
            return []
        now_us = ledger.now_us()
        with ledger.snapshot() as snapshot:
            names = filter(self._settings.covers, outbox.collection_names(snapshot.connection))
            stand = [outbox.standing(snapshot.connection, name) for name in names]
        return [each.collection for each in stand if each and decide(each, self._settings, now_us).rule]

    def _decide(self, connection: sa.Connection, collection: str, now_us: int) -> bool:
        """Whether a trigger was made."""
        at = outbox.standing(connection, collection, lock=True)
        if at is None:
            return False
        decision = decide(at, self._settings, now_us)
        if not decision.rule:
            return False
        name = job_name(collection, at.change_no, self._settings.command, now_us)
        made = outbox.insert_trigger(connection, at, decision.rule, decision.numbers, name, now_us)
        return made is not None


def trigger_manually(
    ledger: Ledger, collection: str, settings: TrainingSettings, allowed: Allowed = NOTHING
) -> Trigger:
    """A trigger of rule "manual", whatever the policy says; a sink launches it. Its record has what was `allowed`.

    Raises:
        ConfigError: there is no command to run.
        UnknownCollection: the ledger holds nothing of the collection.
        InputError: a trigger of the collection is pending.
    """
    if not settings.command:
        raise ConfigError("there is nothing to run: set sink.training.command to the job's command")
    with ledger.writing("trigger a training") as connection:
        at = outbox.standing(connection, collection, lock=True)
        if at is None:
            held = outbox.collection_names(connection)
            raise UnknownCollection(
                f"the ledger holds nothing of collection {collection!r}; it holds"
                f" {listed(held, 'none yet: feed queries first')}.{did_you_mean(collection, held)}"
            )
        if (pending := outbox.pending_trigger(connection, collection)) is not None:
            raise InputError(
                f"trigger {pending.trigger_no} of {collection} is pending: a sink launches it; `qrelay training"
                f" abandon {pending.trigger_no}` gives it up"
            )
        if outbox.trigger_at(connection, collection, at.change_no):
            begin_changes(connection, {collection})  # a trigger has a change of its own
            at = outbox.standing(connection, collection) or at
        now_us = ledger.now_us()
        name = job_name(collection, at.change_no, settings.command, now_us)
        number = outbox.insert_trigger(connection, at, MANUAL, {}, name, now_us, allowed.fields)
        made = outbox.get_trigger(connection, number) if number is not None else None
        audit_log.record(connection, "start a training", now_us, collection=collection, subject=name)
    assert made is not None, "a trigger's row is not there after its insert: this is a bug"
    return made


def abandon(ledger: Ledger, trigger_no: int) -> str:
    """Gives a trigger up: a pending one is refused, the running job of a launched one counts as failed (nobody stops
    it). For triggers whose machine is gone. Returns the new state.

    Raises:
        InputError: there is no such trigger, or it is closed.
    """
    now_us, why = ledger.now_us(), "abandoned"
    with ledger.writing("abandon a trigger") as connection:
        trigger = outbox.get_trigger(connection, trigger_no, lock=True)
        if trigger is None:
            raise InputError(f"the ledger has no trigger {trigger_no}: `qrelay training status` lists them")
        audit_log.record(
            connection, "abandon a training", now_us, collection=trigger.collection, subject=trigger.job_name
        )
        if outbox.refuse(connection, trigger_no, why, now_us):
            return outbox.REFUSED
        name, detail = trigger.job_name, {**trigger.detail, "reason": why}
        if not outbox.finish_run(connection, name, outbox.FAILED, None, now_us, detail):
            raise InputError(f"trigger {trigger_no} is closed already: there is nothing to abandon")
    return outbox.FAILED


def _collection(added: Added) -> str:
    return added.record().candidate_set.query.collection
