"""The checker and the schedule on made-up evidence: a harness that cannot see a fault proves nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from qrelay.runtime.faults import POINTS
from tests.chaos.checker import STATES, Evidence, classify, wrong_jobs
from tests.chaos.faults import FAULTS, ROOT, kinds_for, left_out
from tests.chaos.report import last_line, problems, row
from tests.chaos.run import Outcome
from tests.chaos.schedule import draw

FED = {"a": "text a", "b": "text b", "c": "text c"}
SOUND = Evidence(
    committed=list(FED.items()),
    labelled=dict.fromkeys(FED, 1),
    pairs=[(query_id, f"p{n}") for query_id in FED for n in range(3)],
)


def changed(**fields: Any) -> dict[str, list[str]]:
    found = classify(FED, replace(SOUND, **fields))
    return {state: ids for state, ids in found.items() if ids}


def test_sound_evidence_is_ok_and_nothing_else() -> None:
    assert changed() == {"ok": ["a", "b", "c"]}


def test_a_query_that_is_nowhere_is_lost() -> None:
    assert changed(committed=[("a", "text a"), ("c", "text c")]) == {"ok": ["a", "c"], "lost": ["b"]}


@pytest.mark.parametrize(
    "fields",
    [
        {"committed": [*FED.items(), ("b", "text b")]},
        {"labelled": {"a": 1, "b": 2, "c": 1}},
        {"pairs": [*SOUND.pairs, ("b", "p1")]},
        {"waiting": ["b"]},
    ],
    ids=["two rows", "labelled twice", "a pair judged twice", "a dead letter beside its label"],
)
def test_a_query_with_two_ends_is_duplicated(fields: dict[str, Any]) -> None:
    assert changed(**fields) == {"ok": ["a", "c"], "duplicated": ["b"]}


def test_what_nobody_fed_is_unexpected_and_so_is_another_text() -> None:
    assert changed(committed=[*FED.items(), ("z", "text z")]) == {"ok": ["a", "b", "c"], "unexpected": ["z"]}
    other = [("a", "text a"), ("b", "not what was fed"), ("c", "text c")]
    assert changed(committed=other) == {"ok": ["a", "c"], "lost": ["b"], "unexpected": ["b"]}
    assert changed(waiting=["z"])["unexpected"] == ["z"]


def test_what_has_not_ended_is_unknown_and_not_lost() -> None:
    assert changed(committed=[("a", "text a")], in_flight=["b"], waiting=["c"]) == {
        "ok": ["a"],
        "unknown": ["b", "c"],
    }


def test_a_trigger_without_a_job_with_two_and_a_job_without_a_trigger_are_each_wrong() -> None:
    jobs = replace(SOUND, triggers={"j1": "launched", "j2": "launched"}, jobs=["j1", "j2"])
    assert wrong_jobs(jobs) == []
    assert wrong_jobs(replace(jobs, jobs=["j1"])) == ["trigger j2 (launched) ran 0 jobs"]
    assert wrong_jobs(replace(jobs, jobs=["j1", "j2", "j2"])) == ["trigger j2 (launched) ran 2 jobs"]
    assert wrong_jobs(replace(jobs, jobs=["j1", "j2", "j3"])) == ["job j3 ran without a trigger"]


def outcome(**fields: Any) -> Outcome:
    values: dict[str, Any] = {"states": Counter(ok=3), "exports_identical": True, "faults": Counter({"kill.sink": 1})}
    return Outcome(1, "sqlite", **{**values, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        *({"states": Counter({"ok": 2, state: 1}), "examples": {state: ["b"]}} for state in STATES if state != "ok"),
        {"exports_identical": False},
        {"wrong": ["a thing"]},
        {"faults": Counter(), "missed": ["kill.sink"]},
    ],
    ids=str,
)
def test_whatever_is_not_sound_is_a_problem_of_the_run(fields: dict[str, Any]) -> None:
    assert problems([outcome()], training=False) == []
    assert len(problems([outcome(**fields)], training=False)) == 1


def test_a_policy_that_never_fires_is_a_problem() -> None:
    assert problems([outcome()], training=True)
    assert problems([outcome(triggers=1, jobs=1)], training=True) == []


def test_a_fault_that_happened_in_one_seed_of_two_is_none() -> None:
    outcomes = [outcome(), outcome(faults=Counter(), missed=["kill.sink"])]
    assert problems(outcomes, training=False) == []
    line = last_line(outcomes, 3, {}, [])
    assert (line["faults"], line["missed"], line["ok"], line["queries"]) == ({"kill.sink": 1}, {"kill.sink": 1}, 6, 6)
    assert "did not happen: kill.sink" in row(outcomes[1])


def test_a_seed_draws_the_same_schedule_again_and_another_seed_another() -> None:
    kinds = list(FAULTS)
    assert draw(5, kinds, 11) == draw(5, kinds[::-1], 11)
    assert draw(5, kinds, 11) != draw(6, kinds, 11)


def test_every_fault_is_drawn_in_twenty_seeds_and_none_twice_in_one_before_all_were() -> None:
    kinds = list(FAULTS)
    drawn = [[step.kind for step in draw(seed, kinds, 11)] for seed in range(1, 21)]
    assert {kind for schedule in drawn for kind in schedule} == set(kinds)
    assert all(len(set(schedule)) == 11 for schedule in drawn)
    assert {step.kind for step in draw(1, kinds, len(kinds))} == set(kinds)


def test_what_cannot_happen_is_left_out_with_its_reason() -> None:
    out = left_out(disk=False, ledgers={"sqlite"})
    assert "mounting" in out["disk.full"] and "PostgreSQL" in out["restart.database"]
    kinds = kinds_for("sqlite", out)
    assert "disk.full" not in kinds and "restart.database" not in kinds and "kill.sink" in kinds
    everything = left_out(disk=True, ledgers={"sqlite", "postgresql"})
    assert "disk.full" in kinds_for("sqlite", everything)
    assert "disk.full" not in kinds_for("postgresql", everything)
    assert "restart.database" in kinds_for("postgresql", everything)


def test_every_named_point_is_a_fault_and_is_passed_somewhere_in_the_code() -> None:
    assert set(POINTS) <= set(FAULTS)
    absent = [kind for kind, why in left_out(disk=True, ledgers={"sqlite", "postgresql"}).items() if "point" in why]
    assert absent == [], f"no code under {ROOT} passes these points"
