"""Judging again: labels are added beside those that are there, and nothing changes that is there."""

from __future__ import annotations

import dataclasses
from typing import Any

from qrelay.errors import BackendUnavailable, InputError, MalformedInput, QueryConflict
from qrelay.labels.exports.catalogue import QRELS
from qrelay.labels.ledger.commit import begin_changes
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.labels.ledger.reader import Label
from qrelay.types import Graded, JudgedSet, JudgeIdentity, Judgment, Missing
from tests.labels.builders import FUSED, JUDGE, OTHER_JUDGE, graded, judged_set, judgment, relabelled
from tests.labels.exporting import export_bytes

LOST = Missing("timeout", "no answer in 30 s")


def again(*outcomes: Graded | Missing, judge: JudgeIdentity = OTHER_JUDGE, **fields: Any) -> JudgedSet:
    """q1 judged again: the i-th outcome is of passage d<i>#0."""
    labels = [judgment(f"d{n}#0", outcome, judge, **fields) for n, outcome in enumerate(outcomes)]
    return relabelled(judged_set(), *labels)


def labels_of(ledger: Ledger, query_id: str = "q1") -> list[Label]:
    with ledger.snapshot() as snapshot:
        return [each for q in snapshot.labelled_queries("docs", ids=[query_id]) for each in q.labels]


def judgments_of(ledger: Ledger, query_id: str = "q1") -> list[Judgment]:
    with ledger.snapshot() as snapshot:
        found = snapshot.judged_set("docs", query_id)
    assert found is not None
    return list(found.judgments)


def qrels(ledger: Ledger) -> bytes:
    return b"".join(export_bytes(ledger, "docs", QRELS))


def test_a_re_judgment_adds_a_generation_and_keeps_the_former(ledger: Ledger) -> None:
    ledger.commit([judged_set()])
    before = judgments_of(ledger)
    assert ledger.rejudge([again(graded(1))]) == [1]
    after = judgments_of(ledger)
    assert [each for each in after if each.judge == JUDGE] == before
    assert [each.outcome for each in after if each.judge == OTHER_JUDGE] == [graded(1)]
    assert [each.generation for each in labels_of(ledger) if each.passage_id == "d0#0"] == [0, 1]


def test_of_single_judges_the_latest_generation_counts_whatever_the_hashes(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1"), judged_set("q2", judge=OTHER_JUDGE)])
    ledger.rejudge([again(graded(1))])
    second = relabelled(judged_set("q2"), judgment("d0#0", graded(1), JUDGE))
    ledger.rejudge([second])
    assert qrels(ledger) == b"q1 0 d0#0 1\nq1 0 d1#0 0\nq2 0 d0#0 1\nq2 0 d1#0 0\n"


def test_generations_count_up_with_each_re_judgment_of_a_query(ledger: Ledger) -> None:
    ledger.commit([judged_set(outcomes=[graded(3)])])
    third = dataclasses.replace(OTHER_JUDGE, model="judge-70b")
    ledger.rejudge([again(graded(1))])
    ledger.rejudge([again(graded(2), judge=third)])
    assert sorted(each.generation for each in labels_of(ledger)) == [0, 1, 2]
    assert qrels(ledger) == b"q1 0 d0#0 2\n"


def test_a_panels_re_judgment_is_one_generation(ledger: Ledger) -> None:
    ledger.commit([judged_set(outcomes=[graded(3)])])
    both = again(graded(1)), again(graded(2), judge=FUSED)
    ledger.rejudge([relabelled(both[0], *both[0].judgments, *both[1].judgments)])
    assert sorted(each.generation for each in labels_of(ledger)) == [0, 1, 1]


def test_a_re_judgment_that_failed_does_not_take_a_grade_away(ledger: Ledger) -> None:
    ledger.commit([judged_set(outcomes=[graded(3)])])
    assert ledger.rejudge([again(LOST)]) == [1]
    assert qrels(ledger) == b"q1 0 d0#0 3\n"


def test_a_grade_stands_whatever_the_same_judge_says_later(ledger: Ledger) -> None:
    ledger.commit([judged_set()])
    before = judgments_of(ledger)
    assert ledger.rejudge([again(graded(0), graded(3), judge=JUDGE)]) == [0]
    assert judgments_of(ledger) == before


def test_the_same_re_judgment_twice_is_once(ledger: Ledger) -> None:
    ledger.commit([judged_set()])
    assert ledger.rejudge([again(graded(1), LOST), again(graded(1), LOST)]) == [2, 0]
    assert ledger.rejudge([again(graded(1), LOST)]) == [0]


def test_what_was_missing_gets_the_same_judges_grade_beside_it(ledger: Ledger) -> None:
    ledger.commit([judged_set(outcomes=[graded(3), LOST])])
    assert ledger.rejudge([again(graded(3), graded(0), judge=JUDGE)]) == [1]
    assert [each.outcome for each in judgments_of(ledger)] == [graded(3), LOST, graded(0)]
    assert qrels(ledger) == b"q1 0 d0#0 3\nq1 0 d1#0 0\n"
    assert ledger.rejudge([again(graded(3), graded(2), judge=JUDGE)]) == [0], "and that grade stands too"


def test_the_normal_path_adds_no_label_to_a_query_that_was_judged_again(ledger: Ledger) -> None:
    ledger.commit([judged_set()])
    ledger.rejudge([again(graded(1))])
    before = judgments_of(ledger)
    third = dataclasses.replace(OTHER_JUDGE, model="judge-70b")
    assert ledger.commit([judged_set(judge=third)]) == [CommitStatus.DUPLICATE]
    assert judgments_of(ledger) == before


def test_a_query_that_is_not_in_the_ledger_cannot_be_judged_again(ledger: Ledger) -> None:
    (refused,) = ledger.rejudge([again(graded(1))])
    assert isinstance(refused, InputError)
    assert "not in the ledger" in str(refused)
    assert ledger.stats() == []


def with_text(record: JudgedSet, text: str) -> JudgedSet:
    first, *others = record.candidate_set.candidates
    changed = dataclasses.replace(first, passage=dataclasses.replace(first.passage, text=text))
    candidates = (changed, *others)
    return dataclasses.replace(record, candidate_set=dataclasses.replace(record.candidate_set, candidates=candidates))


def test_what_does_not_fit_the_ledger_is_refused_and_its_neighbours_are_added(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1"), judged_set("q2")])
    other_text = relabelled(judged_set(text="another question"), judgment("d0#0", graded(1), OTHER_JUDGE))
    strange = relabelled(judged_set(prefix="x"), judgment("x0#0", graded(1), OTHER_JUDGE))
    fine = relabelled(judged_set("q2"), judgment("d0#0", graded(1), OTHER_JUDGE))
    results = ledger.rejudge([other_text, strange, with_text(again(graded(1)), "rewritten"), fine])
    assert [type(each) for each in results] == [QueryConflict, MalformedInput, MalformedInput, int]
    assert "x0#0" in str(results[1])
    assert "ListJudgedSets" in str(results[2])
    assert len(labels_of(ledger)) == 3


def test_counters_count_every_measurement_and_pairs_once(ledger: Ledger) -> None:
    ledger.commit([judged_set(outcomes=[graded(3), LOST])])
    ledger.rejudge([again(graded(1), LOST, prompt_tokens=7), again(graded(3), graded(0), judge=JUDGE, cached=True)])
    (stats,) = ledger.stats("docs")
    assert (stats.queries, stats.judgments, stats.judged_pairs) == (1, 5, 2)
    assert (stats.missing_judgments, stats.cached_judgments) == (2, 1)
    assert stats.prompt_tokens == 200 + 14 + 100


def test_a_refused_value_costs_its_set_and_no_other(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1"), judged_set("q2")])
    fine = relabelled(judged_set("q2"), judgment("d0#0", graded(1), OTHER_JUDGE))
    results = ledger.rejudge([again(graded(1), raw_reply="\ud800"), fine])
    assert isinstance(results[0], MalformedInput)
    assert results[1] == 1
    assert len(labels_of(ledger, "q1")) == 3


def test_a_locked_ledger_is_unavailable_and_nothing_is_added(ledger: Ledger, ledger_url: str) -> None:
    ledger.commit([judged_set()])
    other = Ledger.open(ledger_url)
    with other.writing("hold the collection") as connection:
        begin_changes(connection, {"docs"})
        assert isinstance(ledger.rejudge([again(graded(1))])[0], BackendUnavailable)
    other.close()
    assert ledger.rejudge([again(graded(1))]) == [1]
