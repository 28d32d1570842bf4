"""`where`: a small language, parsed strictly; and the sets that it means."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from qrelay.errors import InputError, UnknownCollection
from qrelay.identity import judge_digest
from qrelay.labels.ledger import overrides
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride
from qrelay.labels.selection import select_sets
from qrelay.labels.where import Term, Where, parse_where
from qrelay.scales import RELEVANT_GRADE
from qrelay.types import JudgedSet, Missing
from tests.labels.builders import FUSED, JUDGE, OTHER_JUDGE, graded, judged_set, judgment, relabelled, with_labels


def test_terms_are_joined_by_and_with_or_without_blanks() -> None:
    assert parse_where(" grade>=2 and p_relevant < 0.6  and missing=timeout and relevant ") == Where(
        labels=(
            Term("grade", ">=", "2"),
            Term("p_relevant", "<", "0.6"),
            Term("missing", "=", "timeout"),
            Term("relevant"),
        )
    )
    assert parse_where("query_id=and and judge=ab12 and strategy=graded") == Where(
        query_id="and", judges=frozenset({"ab12"}), strategies=frozenset({"graded"})
    )
    assert parse_where("  ") == Where()


@pytest.mark.parametrize(
    "text",
    [
        "grade",
        "grade==2",
        "grade!=2",
        "grade=two",
        "grade=nan",
        "p_relevant<inf",
        "p_relevant<1e9",
        "relevant=1",
        "human=yes",
        "judge",
        "judge>ab",
        "strategy<graded",
        "colour=red",
        "GRADE=2",
        "grade=2 or grade=3",
        "grade=2 and",
        "and grade=2",
        "grade=2 and and grade=3",
        "grade=2,grade=3",
        "grade=2; DROP TABLE queries",
        "__import__('os')",
        "missing=",
    ],
)
def test_what_is_not_in_the_language_is_refused_listing_what_is(text: str) -> None:
    with pytest.raises(InputError, match=r"not understood; allowed are .*p_relevant<0\.6.*query_id=ID"):
        parse_where(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [("grade=1.5", "whole number"), ("missing=tired", "timeout"), ("query_id=a and query_id=b", "once")],
)
def test_a_value_that_cannot_be_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_where(text)


@pytest.fixture
def filled(ledger: Ledger) -> Iterator[Ledger]:
    """q1: d0 grade 3, d1 grade 0, d2 timeout, d3 grade 2 unsure. q2: d0 grade 1, d1 unparseable."""
    unsure = dataclasses.replace(graded(2, 0.55), entropy=1.3)
    ledger.commit(
        [
            judged_set("q1", outcomes=[graded(3), graded(0), Missing("timeout"), unsure]),
            judged_set("q2", outcomes=[graded(1), Missing("unparseable")]),
        ]
    )
    yield ledger


def meant(ledger: Ledger, where: str, after: str = "") -> dict[str, list[str]]:
    """query_id -> the sampled passages."""
    sets = select_sets(ledger, "docs", parse_where(where), RELEVANT_GRADE, after)
    return {each.candidate_set.query.query_id: sampled(each) for each in sets}


def sampled(record: JudgedSet) -> list[str]:
    return [c.passage.doc_id for c in record.candidate_set.candidates if c.sampled]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("", {"q1": ["d0", "d1", "d2", "d3"], "q2": ["d0", "d1"]}),
        ("grade=2", {"q1": ["d3"]}),
        ("grade>=2", {"q1": ["d0", "d3"]}),
        ("grade<2", {"q1": ["d1"], "q2": ["d0"]}),
        ("grade<=1 and grade>0", {"q2": ["d0"]}),
        ("p_relevant<0.6 and p_relevant>=0.4", {"q1": ["d3"]}),
        ("entropy>1.0", {"q1": ["d3"]}),
        ("relevant", {"q1": ["d0", "d3"]}),
        ("missing", {"q1": ["d2"], "q2": ["d1"]}),
        ("missing=timeout", {"q1": ["d2"]}),
        ("missing and grade>=0", {}),
        ("query_id=q2", {"q2": ["d0", "d1"]}),
        ("query_id=q3", {}),
        ("strategy=graded and grade=3", {"q1": ["d0"]}),
        (f"judge={judge_digest(JUDGE)[:8]} and grade=3", {"q1": ["d0"]}),
    ],
)
def test_where_means_these_passages(filled: Ledger, where: str, expected: dict[str, list[str]]) -> None:
    assert meant(filled, where) == expected


def test_a_set_comes_whole_with_the_judgments_of_its_sampled_passages(filled: Ledger) -> None:
    (found,) = select_sets(filled, "docs", parse_where("missing=timeout"), RELEVANT_GRADE)
    committed = judged_set("q1", outcomes=[graded(3), graded(0), Missing("timeout"), graded(2, 0.55)])
    assert [c.passage for c in found.candidate_set.candidates] == [
        c.passage for c in committed.candidate_set.candidates
    ]
    assert found.candidate_set.query == committed.candidate_set.query
    assert [(each.passage_id, each.outcome) for each in found.judgments] == [("d2#0", Missing("timeout"))]


def test_conditions_are_of_the_label_that_counts_and_judge_terms_say_among_whose(ledger: Ledger) -> None:
    record = judged_set("q1", outcomes=[graded(3), graded(0)])
    ledger.commit([with_labels(record, judgment("d0#0", graded(1), FUSED), judgment("d1#0", graded(1), FUSED))])
    assert meant(ledger, "grade=1") == {"q1": ["d0", "d1"]}
    assert meant(ledger, "grade=3") == {}
    assert meant(ledger, "strategy=graded and grade=3") == {"q1": ["d0"]}
    assert meant(ledger, f"judge={judge_digest(JUDGE)[:12]} and grade=0") == {"q1": ["d1"]}


def test_what_was_judged_again_is_looked_up_in_its_new_label(filled: Ledger) -> None:
    filled.rejudge([relabelled(judged_set("q1"), judgment("d0#0", graded(1), OTHER_JUDGE))])
    assert meant(filled, "grade=3") == {}
    assert meant(filled, "grade=1") == {"q1": ["d0"], "q2": ["d0"]}


def test_human_means_the_pairs_that_people_decided_and_their_grade_is_then_the_one_asked_about(
    filled: Ledger,
) -> None:
    said = [NewOverride("q1", "d0#0", 1, "0-3", "ana"), NewOverride("q2", "d0#0", 3, "0-3", "ana")]
    with filled.writing("record overrides") as connection:
        overrides.add(connection, "docs", said, filled.now_us())
    assert meant(filled, "human") == {"q1": ["d0"], "q2": ["d0"]}
    assert meant(filled, "human and relevant") == {"q2": ["d0"]}
    assert meant(filled, "human and grade=1") == {"q1": ["d0"]}
    assert meant(filled, "grade=3") == {"q1": ["d0"]}, "without it the judges' labels are meant, as ever"
    with filled.writing("withdraw an override") as connection:
        withdrawn = NewOverride("q1", "d0#0", None, "", "ana")
        overrides.add(connection, "docs", [withdrawn], filled.now_us())
    assert meant(filled, "human") == {"q2": ["d0"]}


def test_a_judge_that_the_ledger_does_not_know_is_refused_naming_those_that_it_does(filled: Ledger) -> None:
    for where in ("judge=0000000000", "strategy=binary"):
        with pytest.raises(InputError, match=r"judge-1\.5b"):
            meant(filled, where)


def test_an_unknown_collection_is_refused(filled: Ledger) -> None:
    with pytest.raises(UnknownCollection, match="holds docs"):
        next(select_sets(filled, "wiki", Where(), RELEVANT_GRADE))


def test_pages_follow_one_another_and_a_broken_stream_goes_on_after_an_id(ledger: Ledger) -> None:
    ledger.commit([judged_set(f"q{n:03d}", outcomes=[graded(n % 2)]) for n in range(150)])
    assert list(meant(ledger, "grade=1")) == [f"q{n:03d}" for n in range(1, 150, 2)]
    assert list(meant(ledger, "", after="q147")) == ["q148", "q149"]


def test_nothing_is_held_open_between_two_sets(ledger: Ledger) -> None:
    ledger.commit([judged_set(f"q{n}") for n in range(3)])
    sets = select_sets(ledger, "docs", Where(), RELEVANT_GRADE)
    next(sets)
    assert ledger._engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    sets.close()  # type: ignore[attr-defined]
