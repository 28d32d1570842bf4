"""The outbox: counters and decisions are on disk exactly when the labels are that caused them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from qrelay.errors import ConfigError, InputError, UnknownCollection
from qrelay.jobs.decisions import Decisions, abandon, trigger_manually
from qrelay.labels.ledger import outbox
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.labels.ledger.outbox import Counters, TrainingStatus, Trigger
from qrelay.labels.mining.rules import MiningRules
from qrelay.settings.training import TrainingSettings
from qrelay.types import JudgeIdentity, Missing
from tests.labels.builders import JUDGE, graded, judged_set, later

Open = Callable[..., Ledger]
HARD = [graded(3), graded(0)]  # one hard example, two judged pairs, no disagreement


def settings(**fields: Any) -> TrainingSettings:
    return TrainingSettings(enabled=True, command=("train",), **fields)


class Clock:
    """A clock that is set by hand, in seconds after `builders.NOW`."""

    seconds = 0.0

    def __call__(self) -> datetime:
        return later(self.seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(ledger_url: str, clock: Clock) -> Iterator[Open]:
    ledgers = []

    def open_ledger(policy: TrainingSettings | None = None, **fields: Any) -> Ledger:
        decisions = Decisions(policy or settings(**fields), MiningRules())
        ledgers.append(Ledger.open(ledger_url, clock=clock, after_commit=decisions.after_commit))
        return ledgers[-1]

    yield open_ledger
    for ledger in ledgers:
        ledger.close()


def triggers(ledger: Ledger, collection: str = "docs") -> list[Trigger]:
    with ledger.snapshot() as snapshot:
        return outbox.triggers(snapshot.connection, collection)[::-1]


def stand(ledger: Ledger, collection: str = "docs") -> TrainingStatus:
    with ledger.snapshot() as snapshot:
        found = outbox.standing(snapshot.connection, collection)
    assert found is not None
    return found


def commit(ledger: Ledger, *ids: str, collection: str = "docs") -> None:
    results = ledger.commit([judged_set(i, outcomes=HARD, collection=collection) for i in ids])
    assert all(isinstance(result, CommitStatus) for result in results), results


def close_pending(ledger: Ledger) -> None:
    """As a launch of every pending trigger whose job ended at once."""
    for trigger in triggers(ledger, ""):
        with ledger.writing("test") as connection:
            outbox.record_launch(connection, trigger, "test", "here", ledger.now_us())
            outbox.finish_run(connection, trigger.job_name, outbox.SUCCEEDED, 0, ledger.now_us(), {})


def test_a_trigger_holds_the_counters_and_the_change_that_caused_it(opened: Open) -> None:
    ledger = opened(min_new_hard_examples=3)
    commit(ledger, "q1", "q2")
    assert triggers(ledger) == [] and stand(ledger).new == Counters(2, 0, 4)
    commit(ledger, "q3")
    (found,) = triggers(ledger)
    assert (found.rule, found.change_no, found.state) == ("min_new_hard_examples", 2, "pending")
    assert found.counters == Counters(3, 0, 6)
    assert found.detail["numbers"] == {"min_new_hard_examples": {"have": 3, "needed": 3}}
    assert stand(ledger).new == Counters(), "since the last trigger"


def test_a_duplicate_counts_once(opened: Open) -> None:
    ledger = opened(min_new_hard_examples=99)
    commit(ledger, "q1")
    commit(ledger, "q1", "q1", "q2", "q2")
    assert stand(ledger).total == Counters(2, 0, 4)


def test_a_later_round_counts_the_pairs_that_it_adds(opened: Open) -> None:
    ledger = opened(min_new_hard_examples=99)
    commit(ledger, "q1")
    before = stand(ledger).total
    again = judged_set("q1", outcomes=[*HARD, graded(0), Missing("timeout")])
    query = replace(again.candidate_set.query, round=1)
    ledger.commit([replace(again, candidate_set=replace(again.candidate_set, query=query))])
    assert stand(ledger).total == before + Counters(1, 0, 1), "its positive came with the round before, and counted"


def test_a_commit_that_is_rolled_back_counts_and_decides_nothing(ledger_url: str) -> None:
    decisions = Decisions(settings(min_new_hard_examples=1), MiningRules())

    def then_fail(connection: sa.Connection, sets: Any, now_us: int) -> None:
        decisions.after_commit(connection, sets, now_us)
        raise InputError("the transaction ends here")

    ledger = Ledger.open(ledger_url, after_commit=then_fail)
    assert [type(each) for each in ledger.commit([judged_set("q1", outcomes=HARD)])] == [InputError]
    assert triggers(ledger) == [] and ledger.stats() == []
    ledger.close()


def test_while_a_trigger_is_pending_or_runs_what_is_new_is_kept_for_the_next(opened: Open) -> None:
    ledger = opened(min_new_hard_examples=1)
    commit(ledger, "q1")
    commit(ledger, "q2")
    assert len(triggers(ledger)) == 1 and stand(ledger).new == Counters(1, 0, 2)
    close_pending(ledger)
    commit(ledger, "q3")
    assert [each.counters.hard_examples for each in triggers(ledger)] == [1, 3]


def test_replicas_that_commit_at_once_decide_once_for_each_step(opened: Open) -> None:
    ledgers = [opened(min_new_hard_examples=5) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: commit(ledgers[n % 4], f"q{n}"), range(20)))
    assert len(triggers(ledgers[0])) == 1
    assert stand(ledgers[0]).total == Counters(20, 0, 40)
    assert triggers(ledgers[0])[0].counters == Counters(5, 0, 10)


def test_collections_are_counted_and_decided_apart(opened: Open) -> None:
    ledger = opened(settings(min_new_hard_examples=2, collections=("docs", "more")))
    sets = [judged_set("q1", outcomes=HARD, collection=name) for name in ("docs", "more", "other")]
    ledger.commit([*sets, judged_set("q2", outcomes=HARD, collection="more")])
    assert [each.collection for each in triggers(ledger, "")] == ["more"]
    assert stand(ledger, "other").total == Counters(), "the policy is not for it"


def test_the_timer_decides_when_a_new_example_is_old_enough(opened: Open, clock: Clock) -> None:
    policy = settings(max_age_s=100)
    ledger, timer = opened(policy), Decisions(policy, MiningRules())
    commit(ledger, "q1")
    clock.seconds = 99
    assert timer.on_timer(ledger) == 0
    clock.seconds = 100
    assert timer.on_timer(ledger) == 1
    assert [each.rule for each in triggers(ledger)] == ["max_age"]
    clock.seconds = 1000
    close_pending(ledger)
    assert timer.on_timer(ledger) == 0, "nothing is new"


def test_the_timer_decides_when_quiet_hours_end(opened: Open, clock: Clock) -> None:
    policy = settings(min_new_hard_examples=1, quiet_hours="02:00-06:00")  # NOW is at 03:04:05 UTC
    ledger, timer = opened(policy), Decisions(policy, MiningRules())
    commit(ledger, "q1")
    assert timer.on_timer(ledger) == 0 and triggers(ledger) == []
    clock.seconds = 3 * 3600
    assert timer.on_timer(ledger) == 1


def test_timers_of_replicas_decide_once(opened: Open, clock: Clock) -> None:
    policy = settings(max_age_s=1)
    ledgers = [opened(policy) for _ in range(4)]
    commit(ledgers[0], "q1")
    clock.seconds = 2
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(Decisions(policy, MiningRules()).on_timer, ledgers))
    assert sum(made) == 1 and len(triggers(ledgers[0])) == 1


def test_a_set_that_cannot_be_counted_is_committed(opened: Open) -> None:
    ledger = opened(min_new_hard_examples=1)
    strange = JudgeIdentity(JUDGE.model, "r1", "q4", "p" * 64, "graded", "0-9", "n=1")
    assert ledger.commit([judged_set("q1", outcomes=HARD, judge=strange)]) == [CommitStatus.COMMITTED]
    assert triggers(ledger) == []


def test_a_refused_trigger_does_not_count_as_the_last_and_is_not_repeated_without_news(opened: Open) -> None:
    policy = settings(min_new_hard_examples=1)
    ledger, timer = opened(policy), Decisions(policy, MiningRules())
    commit(ledger, "q1")
    (first,) = triggers(ledger)
    assert abandon(ledger, first.trigger_no) == "refused"
    assert stand(ledger).new == Counters(1, 0, 2)
    assert timer.on_timer(ledger) == 0, "this change was decided on"
    commit(ledger, "q2")
    assert [(each.state, each.counters.hard_examples) for each in triggers(ledger)] == [
        ("refused", 1),
        ("pending", 2),
    ]


def test_a_manual_trigger_needs_no_policy_and_is_pending_once(ledger: Ledger) -> None:
    commit(ledger, "q1")
    manual = TrainingSettings(command=("train",))
    made = trigger_manually(ledger, "docs", manual)
    assert (made.rule, made.change_no, made.state) == ("manual", 1, "pending")
    with pytest.raises(InputError, match=f"trigger {made.trigger_no} of docs is pending"):
        trigger_manually(ledger, "docs", manual)
    close_pending(ledger)
    again = trigger_manually(ledger, "docs", manual)
    assert again.change_no == 2 and again.job_name != made.job_name
    with pytest.raises(UnknownCollection, match="it holds docs"):
        trigger_manually(ledger, "dcos", manual)
    with pytest.raises(ConfigError, match=r"sink\.training\.command"):
        trigger_manually(ledger, "docs", TrainingSettings())


def test_the_first_place_that_claims_a_trigger_has_it(ledger: Ledger) -> None:
    commit(ledger, "q1")
    made = trigger_manually(ledger, "docs", TrainingSettings(command=("train",)))
    with ledger.writing("test") as connection:
        assert outbox.claim(connection, made.trigger_no, "here")
        assert not outbox.claim(connection, made.trigger_no, "there")
        assert outbox.claim(connection, made.trigger_no, "here"), "again, after a crash"
    close_pending(ledger)
    with ledger.writing("test") as connection:
        assert not outbox.claim(connection, made.trigger_no, "here"), "it is launched"


def test_a_run_that_is_abandoned_counts_as_failed_and_is_closed(ledger: Ledger) -> None:
    commit(ledger, "q1")
    made = trigger_manually(ledger, "docs", TrainingSettings(command=("train",)))
    with ledger.writing("test") as connection:
        assert outbox.record_launch(connection, made, "test", "here", ledger.now_us())
        assert not outbox.record_launch(connection, made, "test", "here", ledger.now_us()), "recorded once"
    assert stand(ledger).running == 1
    assert abandon(ledger, made.trigger_no) == "failed"
    assert stand(ledger).running == 0
    with pytest.raises(InputError, match="closed already"):
        abandon(ledger, made.trigger_no)
    with pytest.raises(InputError, match="no trigger 99"):
        abandon(ledger, 99)
