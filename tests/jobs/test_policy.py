"""When training is due: the policy's rules, quiet hours, settings, and what a judged set adds to the counters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from qrelay.errors import ConfigError
from qrelay.jobs.counting import count_set, count_sets
from qrelay.jobs.policy import RULES, Decision, decide
from qrelay.labels.ledger.merge import Added
from qrelay.labels.ledger.outbox_rows import Counters, TrainingStatus
from qrelay.labels.ledger.times import microseconds
from qrelay.labels.mining.rules import MiningRules
from qrelay.labels.settings import SinkSettings
from qrelay.settings import load_settings
from qrelay.settings.quiet_hours import QuietHours
from qrelay.settings.training import TrainingSettings, fill
from qrelay.types import BM25, DENSE, Candidate, CandidateSet, JudgedSet, JudgeIdentity, Missing, Score
from tests.labels.builders import CASCADE, JUDGE, LEANING, NOW, graded, judged_set, judgment, with_labels

NOW_US = microseconds(NOW)
ALL = {"min_new_hard_examples": 10, "min_judged": 100, "disagreement_rate": 0.3, "disagreement_min_judged": 20,
       "max_age_s": 3600.0}  # fmt: skip


def settings(**fields: Any) -> TrainingSettings:
    return TrainingSettings(enabled=True, command=("true",), **(fields or ALL))


def decided(new: Counters, *, age_s: float = 0, now: datetime = NOW, pending: bool = False,
            running: int = 0, policy: TrainingSettings | None = None) -> Decision:  # fmt: skip
    before, now_us = Counters(1000, 2000, 5000), microseconds(now)
    at = TrainingStatus("docs", 7, before + new, before, now_us - round(age_s * 1e6), pending, running)
    return decide(at, policy or settings(), now_us)


@pytest.mark.parametrize(
    ("new", "age_s", "rule"),
    [
        (Counters(hard_examples=10), 0, "min_new_hard_examples"),
        (Counters(judged=100), 0, "min_judged"),
        (Counters(disagreements=6, judged=20), 0, "disagreement_rate"),
        (Counters(hard_examples=1), 3600, "max_age"),
        (Counters(hard_examples=10, disagreements=90, judged=100), 3600, "min_new_hard_examples"),
    ],
)
def test_each_rule_fires_at_its_number(new: Counters, age_s: float, rule: str) -> None:
    found = decided(new, age_s=age_s)
    assert (found.rule, found.waits) == (rule, "")
    assert list(found.numbers) == list(RULES)


@pytest.mark.parametrize(
    ("new", "age_s", "rule", "lacks"),
    [
        (Counters(hard_examples=9), 0, "min_new_hard_examples", "1 more hard examples"),
        (Counters(judged=99), 0, "min_judged", "1 more judged pairs"),
        (Counters(disagreements=5, judged=20), 0, "disagreement_rate", "a share of 0.3, it is 0.250"),
        (Counters(disagreements=19, judged=19), 0, "disagreement_rate", "1 more judged pairs to measure the share"),
        (Counters(hard_examples=1), 3599, "max_age", "1 s more"),
        (Counters(judged=1), 9999, "max_age", "a new hard example"),
    ],
)
def test_short_of_its_number_no_rule_fires_and_says_what_it_lacks(
    new: Counters, age_s: float, rule: str, lacks: str
) -> None:
    found = decided(new, age_s=age_s)
    assert (found.rule, found.waits) == ("", "no rule is reached")
    assert next(each.lacks for each in found.progress if each.rule == rule) == lacks


def test_only_rules_that_are_set_are_asked() -> None:
    found = decided(Counters(1, 10**6, 10**6), age_s=10**9, policy=settings(min_new_hard_examples=2))
    assert found.rule == "" and [each.rule for each in found.progress] == ["min_new_hard_examples"]


def test_without_a_query_there_is_no_age() -> None:
    at = TrainingStatus("docs", 1, Counters(hard_examples=1), Counters(), None, False, 0)
    assert decide(at, settings(max_age_s=1), NOW_US).rule == ""


def test_a_reached_rule_waits_for_the_pending_trigger_and_for_running_jobs() -> None:
    enough = Counters(hard_examples=10)
    assert decided(enough, pending=True).waits == "a trigger is pending"
    assert decided(enough, running=1).waits == "1 job(s) run, of at most 1"
    more = settings(min_new_hard_examples=10, max_running=2)
    assert decided(enough, running=1, policy=more).rule == "min_new_hard_examples"
    assert decided(enough, running=2, policy=more).rule == ""


def at_berlin(hour: int, minute: int = 0, day: int = 15, month: int = 1) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("hour", "minute", "quiet"),
    [(21, 59, False), (22, 0, True), (23, 59, True), (0, 0, True), (5, 59, True), (6, 0, False)],
)
def test_quiet_hours_across_midnight_are_by_the_clocks_of_their_place(hour: int, minute: int, quiet: bool) -> None:
    policy = settings(min_new_hard_examples=1, quiet_hours="22:00-06:00", time_zone="Europe/Berlin")
    found = decided(Counters(hard_examples=1), now=at_berlin(hour, minute).astimezone(UTC), policy=policy)
    assert bool(found.rule) is not quiet
    assert found.waits.startswith("quiet hours until 2026-01-1") is quiet


def test_quiet_hours_end_on_the_right_day_and_at_the_right_hour_of_summer_and_winter() -> None:
    hours = QuietHours.parse("22:00-06:00", ZoneInfo("Europe/Berlin"))
    assert hours is not None
    assert hours.ends_after(at_berlin(23)) == at_berlin(6, day=16)
    assert hours.ends_after(at_berlin(3)) == at_berlin(6, day=15)
    assert hours.ends_after(at_berlin(23, day=28, month=3)) == datetime(2026, 3, 29, 4, 0, tzinfo=UTC)
    noon = QuietHours.parse("11:30-13:00", ZoneInfo("UTC"))
    assert noon is not None
    assert noon.ends_after(datetime(2026, 1, 1, 12, tzinfo=UTC)) == datetime(2026, 1, 1, 13, tzinfo=UTC)
    assert noon.ends_after(datetime(2026, 1, 1, 13, tzinfo=UTC)) is None


def test_bad_settings_are_reported_all_at_once() -> None:
    environ = {
        "QRELAY_SINK__TRAINING__ENABLED": "true",
        "QRELAY_SINK__TRAINING__QUIET_HOURS": "22-6",
        "QRELAY_SINK__TRAINING__TIME_ZONE": "Mars/Base",
        "QRELAY_SINK__TRAINING__COLLECTIONS": "[Docs, a b]",
        "QRELAY_SINK__TRAINING__COMMAND": "[train, '{who}']",
        "QRELAY_SINK__TRAINING__POLL_S": "0",
    }
    with pytest.raises(ConfigError) as caught:
        load_settings(SinkSettings, "sink", environ=environ)
    for expected in ("write it as 22:00-06:00", "'Mars/Base' is not a known time zone", "'Docs', 'a b'", "{who}",
                     "poll_s", "has no rule"):  # fmt: skip
        assert expected in str(caught.value)


def test_an_enabled_policy_needs_a_command_and_a_rule() -> None:
    with pytest.raises(ValueError, match=r"(?s)has no rule.*nothing to start"):
        TrainingSettings(enabled=True)
    assert not TrainingSettings().active
    assert TrainingSettings(command=("train",)).active, "manual triggers need no policy"


def test_quiet_hours_that_never_end_are_refused() -> None:
    with pytest.raises(ValueError, match="begins when it ends"):
        TrainingSettings(quiet_hours="06:00-06:00")


def test_placeholders_are_filled_and_other_braces_stay() -> None:
    assert fill('{job} {"lr": 1} {unknown}', {"job": "/j"}) == '/j {"lr": 1} {unknown}'


def ranked(record: JudgedSet, *ranks: tuple[int, int]) -> JudgedSet:
    """The set with these (BM25, dense) ranks of its first candidates."""
    given = record.candidate_set.candidates
    moved = [
        Candidate(each.passage, (Score(BM25, 1.0 / bm25, bm25), Score(DENSE, 1.0 / dense, dense)), True)
        for each, (bm25, dense) in zip(given, ranks, strict=False)
    ]
    found = (*moved, *given[len(moved) :])
    return JudgedSet(CandidateSet(record.candidate_set.query, found, "v1"), record.judgments)


def test_hard_positives_hard_negatives_and_disagreements_are_counted() -> None:
    record = ranked(
        judged_set(outcomes=[graded(3), graded(3), graded(0), graded(0), graded(0)]),
        (1, 1),  # relevant, and no surprise
        (30, 11),  # a hard positive, and a disagreement
        (30, 4),  # a hard negative in the current model's top 5, and a disagreement
        (15, 30),  # a hard negative of BM25 alone: a disagreement
        (18, 19),  # misled nobody
    )
    assert count_set(record, MiningRules()) == Counters(hard_examples=3, disagreements=3, judged=5)


def test_missing_judgments_and_queries_without_a_positive_give_no_hard_examples() -> None:
    missing = ranked(judged_set(outcomes=[graded(3), Missing("timeout", "")]), (1, 1), (30, 2))
    assert count_set(missing, MiningRules()) == Counters(judged=1)
    without = ranked(judged_set(outcomes=[graded(0), graded(1)]), (1, 1), (30, 2))
    assert count_set(without, MiningRules()) == Counters(disagreements=1, judged=2)


def test_the_label_that_counts_is_counted() -> None:
    record = ranked(judged_set(outcomes=[graded(3), graded(3)]), (1, 1), (3, 3))
    assert count_set(record, MiningRules()).hard_examples == 0
    overruled = with_labels(record, judgment("d1#0", graded(0), CASCADE))
    assert count_set(overruled, MiningRules()) == Counters(hard_examples=1, judged=2)
    leaning = with_labels(record, judgment("d1#0", graded(0), LEANING))
    assert count_set(leaning, MiningRules()).hard_examples == 1
    assert count_set(leaning, MiningRules(without_stage_scores=True)).hard_examples == 0


def test_a_set_on_an_unknown_scale_counts_nothing_and_fails_nobody(caplog: pytest.LogCaptureFixture) -> None:
    strange = JudgeIdentity(JUDGE.model, "r1", "q4", "p" * 64, "graded", "0-9", "n=1")
    good = judged_set("q1", outcomes=[graded(3), graded(0)])
    bad = judged_set("q2", outcomes=[graded(3), graded(0)], judge=strange)
    assert count_sets([Added(lambda: bad), Added(lambda: good)], MiningRules()) == count_set(good, MiningRules())
    assert "not counted for training" in caplog.text
