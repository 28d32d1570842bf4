"""Retracted judges: their labels count nowhere, others' count in their place, and a restoration undoes it all."""

from __future__ import annotations

from typing import Any

import pytest

from qrelay.errors import InputError
from qrelay.identity import judge_digest
from qrelay.jobs.decisions import Decisions
from qrelay.labels.audit.audit import Request, audit
from qrelay.labels.exports.catalogue import QRELS, TRIPLES
from qrelay.labels.ledger import retractions
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.outbox import standing
from qrelay.labels.mining.rules import MiningRules
from qrelay.labels.review import by_disagreement
from qrelay.labels.selection import select_sets
from qrelay.labels.where import parse_where
from qrelay.settings.training import TrainingSettings
from tests.labels.builders import JUDGE, NOW, OTHER_JUDGE, graded, judged_set, judgment, relabelled
from tests.labels.exporting import export_bytes

GRADES = {"0-3": 2}


def decide(ledger: Ledger, judge: Any = JUDGE, *, retracted: bool = True, reason: str = "") -> retractions.Touched:
    write = retractions.retract if retracted else retractions.restore
    with ledger.writing("test") as connection:
        return write(connection, judge_digest(judge), author="ana", reason=reason, now_us=ledger.now_us())


def qrels(ledger: Ledger, **choices: Any) -> str:
    return b"".join(export_bytes(ledger, "docs", QRELS, **choices)).decode()


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    """q1: both judges, who differ; q2: the other judge's alone; q3: the first judge's alone."""
    ledger.commit([judged_set("q1", outcomes=[graded(3), graded(0)])])
    ledger.rejudge(
        [
            relabelled(
                judged_set("q1", outcomes=[graded(3), graded(0)]),
                judgment("d0#0", graded(1), OTHER_JUDGE),
                judgment("d1#0", graded(2), OTHER_JUDGE),
            )
        ]
    )
    ledger.commit([judged_set("q2", outcomes=[graded(2)], judge=OTHER_JUDGE), judged_set("q3", outcomes=[graded(1)])])
    return ledger


def test_labels_of_a_retracted_judge_leave_exports_and_other_judges_count_instead(filled: Ledger) -> None:
    before = qrels(filled)
    touched = decide(filled, OTHER_JUDGE)
    assert (touched.changed, touched.labels, touched.queries, touched.collections) == (True, 3, 2, ("docs",))
    assert qrels(filled) == "q1 0 d0#0 3\nq1 0 d1#0 0\nq3 0 d0#0 1\n"
    assert decide(filled, OTHER_JUDGE, retracted=False).changed
    assert qrels(filled) == before == "q1 0 d0#0 1\nq1 0 d1#0 2\nq2 0 d0#0 2\nq3 0 d0#0 1\n"


def test_mining_makes_no_example_of_a_retracted_judges_labels(filled: Ledger) -> None:
    filled.commit([judged_set("q5")])
    assert b'"q5"' in b"".join(export_bytes(filled, "docs", TRIPLES, unmeasured=True))
    decide(filled, JUDGE)
    assert b'"q5"' not in b"".join(export_bytes(filled, "docs", TRIPLES, unmeasured=True))


def test_an_incremental_export_brings_the_queries_that_a_retraction_touched_and_no_others(filled: Ledger) -> None:
    with filled.snapshot() as snapshot:
        last = snapshot.change_no("docs")
    assert qrels(filled, since=last) == ""
    decide(filled, JUDGE)
    assert qrels(filled, since=last) == "q1 0 d0#0 1\nq1 0 d1#0 2\n"  # q3 has no label left
    with filled.snapshot() as snapshot:
        then = snapshot.change_no("docs")
    decide(filled, JUDGE, retracted=False)
    assert "q3 0 d0#0 1\n" in qrels(filled, since=then)


def test_audits_reviews_and_rejudging_do_not_see_a_retracted_judge(filled: Ledger) -> None:
    assert len(by_disagreement(filled, "docs").pairs) == 2
    decide(filled, OTHER_JUDGE)
    assert by_disagreement(filled, "docs").pairs == ()
    report = audit(filled, "docs", Request(), MiningRules(relevant_grades=GRADES))
    assert list(report["judges"]) == [judge_digest(JUDGE)]
    sets = list(select_sets(filled, "docs", parse_where(""), GRADES))
    assert {each.judge for record in sets for each in record.judgments} == {JUDGE}


def test_a_retraction_is_dated_authored_and_kept_when_it_is_undone(filled: Ledger) -> None:
    decide(filled, reason="its prompt had a fault")
    assert not decide(filled).changed
    decide(filled, retracted=False)
    with filled.snapshot() as snapshot:
        assert snapshot.retracted == {}
        first, second = retractions.history(snapshot.connection)
    assert (first.author, first.reason, first.retracted, second.retracted) == ("ana", "its prompt had a fault", 1, 0)
    assert first.set_at > NOW and dict(first.changes) == {"docs": 4}


def test_no_judgment_is_lost_by_a_retraction(filled: Ledger) -> None:
    before = filled.stats()
    with filled.snapshot() as snapshot:
        whole = snapshot.judged_set("docs", "q1")
    decide(filled)
    assert filled.stats() == before
    with filled.snapshot() as snapshot:
        assert snapshot.judged_set("docs", "q1") == whole


def test_labels_committed_after_the_retraction_do_not_count_either(filled: Ledger) -> None:
    decide(filled)
    filled.commit([judged_set("q4", outcomes=[graded(3), graded(0)])])
    assert "q4" not in qrels(filled)


def test_the_training_policy_counts_no_label_of_a_retracted_judge(ledger: Ledger, ledger_url: str) -> None:
    settings = TrainingSettings(enabled=True, min_judged=100, command=("train",))
    ledger.commit([judged_set("q1")])
    decide(ledger)
    counting = Ledger.open(ledger_url, after_commit=Decisions(settings, MiningRules()).after_commit)
    counting.commit([judged_set("q2"), judged_set("q3", judge=OTHER_JUDGE, outcomes=[graded(3), graded(0)])])
    counting.close()
    with ledger.snapshot() as snapshot:
        stand = standing(snapshot.connection, "docs")
    assert stand is not None and stand.total.judged == 2


@pytest.mark.parametrize(("judge", "words"), [("", "names 0 judges"), ("zz", "judge-7b"), (None, "author")])
def test_what_cannot_be_retracted_is_refused_in_words(filled: Ledger, judge: str | None, words: str) -> None:
    with pytest.raises(InputError, match=words), filled.writing("test") as connection:
        hashed = judge_digest(JUDGE) if judge is None else judge
        retractions.retract(connection, hashed, author="" if judge is None else "ana", reason="", now_us=1)


def test_an_export_as_of_a_former_change_knows_who_was_retracted_then(filled: Ledger) -> None:
    decide(filled)
    decide(filled, retracted=False)
    with filled.snapshot() as snapshot:
        at = [bool(retractions.standing_at(snapshot.connection, "docs", change)) for change in (3, 4, 5)]
    assert at == [False, True, False]
