"""A conflict is one text and one query with grades that contradict each other, and nothing else."""

from __future__ import annotations

from qrelay.labels.ledger.ledger import Ledger
from qrelay.types import Graded, JudgeIdentity
from tests.labels.audit.sets import HASH, Row, commit, record, report, value
from tests.labels.builders import OTHER_JUDGE, graded, judgment, with_labels

YES_NO = JudgeIdentity("judge-b", "r1", "q4", "p" * 64, "binary", "0-1", "n=1")


def figures(ledger: Ledger) -> dict[str, int]:
    found = report(ledger)
    names = ("conflicts", "conflicts_exported", "conflicts_between_judges", "conflicts_relevance")
    return {name.removeprefix("conflicts_"): value(found, name) for name in names}


def test_one_text_under_two_passage_ids_with_two_grades_conflicts(ledger: Ledger) -> None:
    commit(ledger, record("q1", Row("a", graded(3), "Open a file."), Row("b", graded(0), "open  a FILE")))
    assert figures(ledger) == {"conflicts": 1, "exported": 1, "between_judges": 0, "relevance": 1}
    (example,) = report(ledger)["checks"]["conflicts"]["examples"]
    assert {(each["passage_id"], each["grade"]) for each in example["labels"]} == {("a#0", 3), ("b#0", 0)}


def test_neighbouring_grades_conflict_though_not_on_relevance(ledger: Ledger) -> None:
    commit(ledger, record("q1", Row("a", graded(0), "same"), Row("b", graded(1), "same")))
    assert figures(ledger) == {"conflicts": 1, "exported": 1, "between_judges": 0, "relevance": 0}


def test_the_same_grade_and_another_text_and_another_query_do_not_conflict(ledger: Ledger) -> None:
    commit(
        ledger,
        record("q1", Row("a", graded(0), "same"), Row("b", graded(0), "same"), Row("c", graded(3), "other")),
        record("q2", Row("a", graded(3), "same")),
    )
    assert set(figures(ledger).values()) == {0}
    check = report(ledger)["checks"]["conflicts"]
    assert (check["texts"], check["texts_with_several_labels"]) == (3, 1)


def test_judges_that_grade_one_passage_differently_conflict_outside_the_exported_labels(ledger: Ledger) -> None:
    one = record("q1", Row("a", graded(3)), Row("b", graded(0)))
    commit(ledger, with_labels(one, judgment("a#0", graded(1), OTHER_JUDGE), judgment("b#0", graded(0), OTHER_JUDGE)))
    assert figures(ledger) == {"conflicts": 1, "exported": 0, "between_judges": 1, "relevance": 1}


def test_grades_on_different_scales_are_compared_by_relevance(ledger: Ledger) -> None:
    def yes(grade: int) -> Graded:
        return Graded(grade, 0, (0.5, 0.5), float(grade), 0.7, float(grade))

    one = record("q1", Row("a", graded(3)), Row("b", graded(3)))
    commit(ledger, with_labels(one, judgment("a#0", yes(1), YES_NO), judgment("b#0", yes(0), YES_NO)))
    assert figures(ledger)["conflicts"] == 1


def test_two_query_ids_with_one_text_are_one_query(ledger: Ledger) -> None:
    commit(
        ledger,
        record("q1", Row("a", graded(3), "same"), text="How to open a file?"),
        record("q2", Row("b", graded(0), "same"), text="how to open a file"),
        record("q3", Row("c", graded(1), "same"), text="how to close a file"),
    )
    assert figures(ledger)["conflicts"] == 1


def test_texts_without_words_are_not_one_text(ledger: Ledger) -> None:
    commit(ledger, record("q1", Row("a", graded(3), "…"), Row("b", graded(0), "—")))
    assert figures(ledger)["conflicts"] == 0


def test_conflicts_are_counted_for_every_judge_whoever_is_audited(ledger: Ledger) -> None:
    one = record("q1", Row("a", graded(3)))
    commit(ledger, with_labels(one, judgment("a#0", graded(1), OTHER_JUDGE)))
    assert value(report(ledger, judge=HASH), "conflicts") == 1
