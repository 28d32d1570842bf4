"""The checker of the cluster's faults, on made-up evidence; the faults: `python -m tests.chaos.cluster_run`."""

from __future__ import annotations

from tests.chaos.checker import Evidence
from tests.chaos.cluster import CONF, shipped
from tests.chaos.cluster_run import judged

FED = {"q1": "one", "q2": "two"}
TIMES = [1.0, 9.0], [2.0, 12.0]
"""When each was accepted; when each was committed."""


def test_all_acknowledged_queries_once_in_the_ledger_is_sound_and_what_stood_still_is_told() -> None:
    verdict = judged("kill.one", FED, Evidence(committed=[("q1", "one"), ("q2", "two")]), *TIMES, 1.5)
    assert verdict.sound
    assert (verdict.feed_stood_s, verdict.commits_stood_s, verdict.settled_s) == (7.5, 7.0, 3.0)
    assert verdict.line() == {
        "fault": "kill.one", "accepted": 2, "ok": 2, "lost": 0, "duplicated": 0, "unexpected": 0, "unknown": 0,
        "feed_stood_s": 7.5, "commits_stood_s": 7.0, "settled_s": 3.0, "sound": True,
    }  # fmt: skip


def test_one_lost_twice_or_left_in_a_queue_is_not_sound_and_named() -> None:
    wrong = {
        "lost": Evidence(committed=[("q1", "one")]),
        "duplicated": Evidence(committed=[("q1", "one"), ("q2", "two"), ("q2", "two")]),
        "unknown": Evidence(committed=[("q1", "one")], in_flight=["q2"]),
    }
    for state, evidence in wrong.items():
        verdict = judged("kill.one", FED, evidence, *TIMES, 0.0)
        assert (verdict.sound, verdict.line()["examples"]) == (False, {state: ["q2"]})


def test_a_fault_that_met_no_query_proves_nothing() -> None:
    assert not judged("kill.one", {}, Evidence(committed=[]), [], [], 0.0).sound


def test_the_servers_run_with_what_prod_ships() -> None:
    assert shipped()["replicas"] == 3
    text = CONF.read_text()
    assert all(part in text for part in ("sync_interval: always", "/srv/nats/data", "/tmp/nats.pid"))
