"""Grades of several people: taken back, sent again, counted, and how far they agree."""

from __future__ import annotations

import pytest

from qrelay.errors import InputError
from qrelay.labels.browse import people
from qrelay.labels.deciding import decide, take_back
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride
from tests.labels.builders import graded, judged_set
from tests.labels.test_browse import grade, shown


def test_a_grade_taken_back_leaves_what_another_person_had_said(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    grade(ledger, "q1", "d0#0", 2, "ana")
    grade(ledger, "q1", "d0#0", 0, "ben")
    grade(ledger, "q1", "d0#0", 1, "ben")
    assert take_back(ledger, "docs", "q1", "d0#0", "ben").added == 2
    with pytest.raises(InputError, match="ben has no grade of query q1"):
        take_back(ledger, "docs", "q1", "d0#0", "ben")
    passage = shown(ledger).passages[0]
    assert passage.standing is not None and (passage.standing.author, passage.standing.grade) == ("ana", 2)
    assert passage.of("ben") is None
    assert len(passage.decisions) == 5
    take_back(ledger, "docs", "q1", "d0#0", "ana")
    assert shown(ledger).passages[0].standing is None


def test_taking_back_a_grade_that_no_longer_stands_leaves_the_one_that_does(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    grade(ledger, "q1", "d0#0", 2, "ana")
    grade(ledger, "q1", "d0#0", 1, "ben")
    take_back(ledger, "docs", "q1", "d0#0", "ana")
    passage = shown(ledger).passages[0]
    assert passage.standing is not None and (passage.standing.author, passage.standing.grade) == ("ben", 1)
    assert passage.of("ana") is None


def test_taking_back_keeps_the_other_persons_reason_and_tells_them_no_grade(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    decide(ledger, "docs", NewOverride("q1", "d0#0", 1, "0-3", "ben", "names the dose"))
    grade(ledger, "q1", "d0#0", 3, "ana")
    take_back(ledger, "docs", "q1", "d0#0", "ana")
    passage = shown(ledger).passages[0]
    bens, withdrawal = passage.of("ben"), passage.decisions[-2]
    assert bens is not None and (bens.grade, bens.note, bens.stands) == (1, "names the dose", True)
    assert (withdrawal.author, withdrawal.grade) == ("ana", None)
    assert withdrawal.note == "taken back: what ben said last stands again"


def test_a_grade_is_taken_back_even_after_another_person_withdrew_the_pairs_decision(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    grade(ledger, "q1", "d0#0", 3, "ana")
    withdrawal = NewOverride("q1", "d0#0", None, "", "ben")
    assert decide(ledger, "docs", withdrawal).added == 1
    assert take_back(ledger, "docs", "q1", "d0#0", "ana").added == 1
    passage = shown(ledger).passages[0]
    assert passage.of("ana") is None
    assert passage.standing is None
    for author in ("ana", "ben", "cara"):
        assert decide(ledger, "docs", NewOverride("q1", "d0#0", None, "", author)).added == 0, author


def test_a_grade_sent_again_is_recorded_once_even_after_another_persons(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    said = NewOverride("q1", "d0#0", 2, "0-3", "ana", "it names it")
    assert decide(ledger, "docs", said, known=0).added == 1
    grade(ledger, "q1", "d0#0", 1, "ben")
    assert decide(ledger, "docs", said, known=0).added == 0
    assert decide(ledger, "docs", said, known=2).added == 1, "she has seen ben's, and says it again"


def test_a_better_reason_for_the_same_grade_is_kept(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    for note in ("", "names the dose", "", "names the dose"):
        decide(ledger, "docs", NewOverride("q1", "d0#0", 2, "0-3", "ana", note), known=0)
    assert [each.note for each in shown(ledger).passages[0].decisions] == ["", "names the dose"]


def test_progress_and_agreement_count_each_persons_own_latest_grades(ledger: Ledger) -> None:
    ledger.commit([judged_set(f"q{number}", outcomes=[graded(0)] * 2) for number in range(3)])
    for number, (ana, ben) in enumerate([(0, 0), (1, 1), (3, 2)]):
        grade(ledger, f"q{number}", "d0#0", 3 - ana, "ana")
        grade(ledger, f"q{number}", "d0#0", ana, "ana")
        grade(ledger, f"q{number}", "d0#0", ben, "ben")
    grade(ledger, "q0", "d1#0", 3, "ben")
    take_back(ledger, "docs", "q0", "d1#0", "ben")
    with ledger.snapshot() as snapshot:
        scales = people.by_scale(snapshot.connection, "docs")
        progress = people.progress(snapshot.connection, "docs", scales)
    [(scale, grades)] = scales.items()
    assert (progress.pairs, progress.decided) == (6, 3)
    assert [(each.name, each.graded, each.stands) for each in progress.people] == [("ana", 3, 0), ("ben", 3, 3)]
    found = people.agreement(scale, grades)
    [two] = found.between
    assert (found.pairs, two.pairs, two.equal) == (3, 3, 2)
    assert two.kappa == pytest.approx((2 / 3 - 2 / 9) / (1 - 2 / 9))
    assert found.alpha is not None and 0.5 < found.alpha < 1


def test_a_persons_grades_are_those_of_the_queries_that_are_asked_for(ledger: Ledger) -> None:
    ledger.commit([judged_set(f"q{n}") for n in range(4)] + [judged_set("q1", collection="other")])
    for query_id, passage_id, given, author in (
        ("q1", "d0#0", 0, "ana"), ("q1", "d0#0", 2, "ana"), ("q1", "d1#0", 1, "ana"), ("q1", "d1#0", 3, "ben"),
        ("q2", "d0#0", 1, "ana"), ("q3", "d0#0", 1, "ana"),
    ):  # fmt: skip
        grade(ledger, query_id, passage_id, given, author)
    take_back(ledger, "docs", "q2", "d0#0", "ana")
    with ledger.snapshot() as snapshot:
        found = people.grades_of(snapshot.connection, "docs", "ana", ["q0", "q1", "q2"])
    assert {pair: each.grade for pair, each in found.items()} == {("q1", "d0#0"): 2, ("q1", "d1#0"): 1}
