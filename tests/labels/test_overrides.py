"""What people decide about a pair: recorded once, never changed, and a label that counts first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import pytest
import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.identity import judge_digest
from qrelay.labels.choice import chosen_judges, one_a_pair
from qrelay.labels.exports.catalogue import QRELS, TRIPLES
from qrelay.labels.ledger import overrides, schema
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, Override, Written
from qrelay.labels.ledger.people import pseudo_judge
from qrelay.labels.ledger.reader import LabelledQuery
from qrelay.labels.permission import Usage
from qrelay.labels.qualification import NEGATIVES, POSITIVES, QUALIFIED, Report
from tests.labels.builders import CASCADE, JUDGE, graded, judged_set, judgment, later, with_labels
from tests.labels.exporting import export_bytes


def said(passage_id: str = "d0#0", grade: int | None = 2, query_id: str = "q1", **fields: str) -> NewOverride:
    values = {"scale": "0-3", "author": "ana", **fields}
    return NewOverride(query_id, passage_id, grade, values["scale"], values["author"], values.get("note", ""))


def add(ledger: Ledger, *wanted: NewOverride) -> Written:
    with ledger.writing("record overrides") as connection:
        return overrides.add(connection, "docs", wanted, ledger.now_us())


def listed(ledger: Ledger, **choices: object) -> Sequence[Override]:
    with ledger.snapshot() as snapshot:
        return overrides.page(snapshot.connection, "docs", **choices).overrides  # type: ignore[arg-type]


def standing(ledger: Ledger) -> dict[tuple[str, str], int | None]:
    return {(each.query_id, each.passage_id): each.grade for each in listed(ledger, only_standing=True)}


def change(ledger: Ledger, query_id: str) -> int:
    chosen = sa.select(schema.queries.c.change_no).where(schema.queries.c.query_id == query_id)
    with ledger.snapshot() as snapshot:
        return int(snapshot.connection.execute(chosen).scalar_one())


@pytest.fixture
def filled(ledger: Ledger) -> Iterator[Ledger]:
    """q1 and q2, each with passages d0#0 (3), d1#0 (0), d2#0 (missing)."""
    ledger.commit([judged_set("q1"), judged_set("q2")])
    yield ledger


def test_an_override_is_kept_with_its_author_note_and_time(filled: Ledger) -> None:
    assert add(filled, said(note="off topic", author=" ana ")) == Written(1, 0, 0)
    [row] = listed(filled)
    assert (row.query_id, row.passage_id, row.grade, row.scale) == ("q1", "d0#0", 2, "0-3")
    assert (row.author, row.note, row.collection, row.stands) == ("ana", "off topic", "docs", True)
    assert row.set_at == later(60)


def test_the_latest_row_of_a_pair_stands_and_earlier_ones_stay_as_they_were(filled: Ledger) -> None:
    add(filled, said(grade=2))
    add(filled, said(grade=0, author="ben"))
    assert [(row.grade, row.author, row.stands) for row in listed(filled)] == [(2, "ana", False), (0, "ben", True)]
    assert standing(filled) == {("q1", "d0#0"): 0}


def test_the_same_override_again_changes_nothing(filled: Ledger) -> None:
    add(filled, said())
    before = change(filled, "q1")
    assert add(filled, said(note="another note"), said()) == Written(0, 2, 0)
    assert change(filled, "q1") == before
    assert len(listed(filled)) == 1


@pytest.mark.parametrize("other", [{"author": "ben"}, {"scale": "0-4"}])
def test_another_author_or_scale_is_another_decision(filled: Ledger, other: dict[str, str]) -> None:
    assert add(filled, said(), said(**other)) == Written(2, 0, 0)


def test_a_withdrawn_override_no_longer_counts(filled: Ledger) -> None:
    add(filled, said())
    assert add(filled, said(grade=None, scale="")) == Written(1, 0, 0)
    assert standing(filled) == {}
    assert labels_of(filled, overrides=True)["d0#0"].grade == 3, "the judge's label counts again"
    assert add(filled, said(grade=None, author="ben")) == Written(0, 1, 0), "what is withdrawn is not withdrawn again"
    assert [(row.grade, row.scale) for row in listed(filled)] == [(2, "0-3"), (None, "0-3")]


def test_what_was_never_overridden_cannot_be_withdrawn(filled: Ledger) -> None:
    with pytest.raises(InputError, match=r"q1 and passage d0#0 have no override"):
        add(filled, said(grade=None))


def test_a_query_that_the_ledger_lacks_is_named_and_nothing_is_recorded(filled: Ledger) -> None:
    with pytest.raises(InputError, match=r"no query q9 in collection docs"):
        add(filled, said(), said(query_id="q9"))
    assert listed(filled) == ()


def test_a_passage_that_is_no_candidate_is_counted_and_is_in_qrels_but_not_in_triples(filled: Ledger) -> None:
    assert add(filled, said("elsewhere#4", 3), said("d1#0", 1)) == Written(2, 0, 1)
    assert labels_of(filled, overrides=True)["elsewhere#4"].grade == 3
    assert b"q1 0 elsewhere#4 3\n" in b"".join(export_bytes(filled, "docs", QRELS, overrides=True))
    assert b"elsewhere" not in b"".join(export_bytes(filled, "docs", TRIPLES, overrides=True, unmeasured=True))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"grade": 4}, "grade 4 is outside the scale 0-3"),
        ({"grade": 0, "scale": "1-4"}, "grade 0 is outside the scale 1-4"),
        ({"scale": "3-0"}, "scale '3-0' is not one"),
        ({"scale": "good"}, "scale 'good' is not one"),
        ({"author": " "}, "nobody is named"),
        ({"query_id": "q 1"}, "whitespace"),
        ({"passage_id": ""}, "empty"),
        ({"note": "a\0b"}, "NUL"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_an_override_is_refused_saying_why(filled: Ledger, wrong: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        add(filled, dataclasses.replace(said(), **wrong))  # type: ignore[arg-type]
    assert listed(filled) == ()


def test_only_the_queries_that_got_an_override_carry_the_number_of_the_change(filled: Ledger) -> None:
    with filled.snapshot() as snapshot:
        before = snapshot.change_no("docs")
    add(filled, said(query_id="q2"))
    with filled.snapshot() as snapshot:
        now = snapshot.change_no("docs")
        touched = [each.query_id for each in snapshot.labelled_queries("docs", changes=(before, now))]
    assert touched == ["q2"]


def test_more_overrides_than_a_statement_holds_are_recorded(ledger: Ledger) -> None:
    ids = [f"q{number:04}" for number in range(600)]
    ledger.commit([judged_set(query_id, outcomes=[graded(0)]) for query_id in ids])
    assert add(ledger, *(said(query_id=query_id) for query_id in ids)) == Written(600, 0, 0)
    assert len(standing(ledger)) == 100, "a page"


def test_pages_go_on_from_each_other_whatever_is_added_meanwhile(filled: Ledger) -> None:
    add(filled, *(said(f"p{number}", query_id=query_id) for number in range(3) for query_id in ("q1", "q2")))
    seen, token = list[str](), ""
    while True:
        with filled.snapshot() as snapshot:
            page = overrides.page(snapshot.connection, "docs", query_id="q1", page_size=2, page_token=token)
        seen += [each.passage_id for each in page.overrides]
        if not (token := page.next_page_token):
            break
        add(filled, said(f"new{len(seen)}", query_id="q2"))
    assert seen == ["p0", "p1", "p2"]


@pytest.mark.parametrize("wrong", [{"page_size": 0}, {"page_size": 1001}, {"page_token": "x"}, {"page_token": "²"}])
def test_a_page_that_cannot_be_is_refused(filled: Ledger, wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"page_(size|token)"):
        listed(filled, **wrong)


def test_rows_are_found_by_author_and_collection(filled: Ledger) -> None:
    add(filled, said(), said("d1#0", author="ben"))
    assert [row.passage_id for row in listed(filled, author="ben")] == ["d1#0"]
    with filled.snapshot() as snapshot:
        assert overrides.page(snapshot.connection, "wiki").overrides == ()
        assert len(overrides.page(snapshot.connection).overrides) == 2


def read(ledger: Ledger, **choices: object) -> list[LabelledQuery]:
    with ledger.snapshot() as snapshot:
        return list(snapshot.labelled_queries("docs", **choices))  # type: ignore[arg-type]


def labels_of(ledger: Ledger, query_id: str = "q1", **choices: object) -> dict[str, object]:
    """passage_id -> the label that counts."""
    [query] = read(ledger, ids=[query_id], **choices)
    with ledger.snapshot() as snapshot:
        return dict(one_a_pair(query, snapshot.judges()))  # type: ignore[arg-type]


def test_an_override_counts_before_every_judge_where_it_is_asked_for_and_nowhere_else(ledger: Ledger) -> None:
    ledger.commit([with_labels(judged_set("q1"), judgment("d0#0", graded(3), CASCADE))])
    add(ledger, said("d0#0", 0), said("d2#0", 3))
    asked, unasked = labels_of(ledger, overrides=True), labels_of(ledger)
    assert {pair: (label.grade, label.human) for pair, label in asked.items()} == {
        "d0#0": (0, True),
        "d1#0": (0, False),
        "d2#0": (3, True),
    }, "a missing judgment too gives way to a person"
    assert {pair: label.grade for pair, label in unasked.items()} == {"d0#0": 3, "d1#0": 0, "d2#0": None}


def test_a_persons_label_is_sure_and_relevant_from_the_scales_relevant_grade(filled: Ledger) -> None:
    add(filled, said("d0#0", 2), said("d1#0", 1), said("d2#0", 2, scale="1-4"))
    labels = labels_of(filled, overrides=True)
    assert {pair: (label.p_relevant, label.min_grade, label.entropy) for pair, label in labels.items()} == {
        "d0#0": (1.0, 0, 0.0),
        "d1#0": (0.0, 0, 0.0),
        "d2#0": (0.0, 1, 0.0),
    }
    strict = labels_of(filled, overrides=True, relevant_grades={"0-3": 3, "1-4": 2})
    assert [label.p_relevant for label in strict.values()] == [0.0, 0.0, 1.0]


def test_labels_stay_in_the_order_of_passages(filled: Ledger) -> None:
    add(filled, said("a#0"), said("d1#0"), said("z#0"))
    [query] = read(filled, ids=["q1"], overrides=True)
    found = [label.passage_id for label in query.labels]
    assert found == sorted(found) and found.count("d1#0") == 2
    with filled.snapshot() as snapshot:
        [same] = snapshot.labelled_queries("docs", ids=["q1"], overrides=True)
    assert same.labels == query.labels


def test_people_are_one_judge_a_scale_with_the_same_identity_everywhere(filled: Ledger) -> None:
    add(filled, said(), said("d1#0", 4, scale="1-4"), said("d2#0", author="ben"))
    with filled.snapshot() as snapshot:
        judges = snapshot.judges()
    people = {judge.identity.scale: judge for judge in judges.values() if judge.identity.strategy == "human"}
    assert people.keys() == {"0-3", "1-4"}
    assert all(judge.judge_hash == judge_digest(judge.identity) for judge in people.values())
    assert (people["0-3"].judge_no, people["0-3"].judge_hash) == pseudo_judge("0-3")[:2]
    assert all(number < 0 for number, judge in judges.items() if judge in people.values())


def test_with_one_judges_labels_asked_for_overrides_still_win(filled: Ledger) -> None:
    add(filled, said("d0#0", 1))
    qrels = b"".join(export_bytes(filled, "docs", QRELS, judge="graded", overrides=True))
    assert qrels == b"q1 0 d0#0 1\nq1 0 d1#0 0\nq2 0 d0#0 3\nq2 0 d1#0 0\n"
    assert b"".join(export_bytes(filled, "docs", QRELS, judge="human", overrides=True)) == b"q1 0 d0#0 1\n"


def test_people_on_two_scales_are_wanted_by_one_word(filled: Ledger) -> None:
    add(filled, said(), said("d1#0", 4, scale="1-4"))
    with filled.snapshot() as snapshot:
        found = chosen_judges(snapshot.judges(), "human", lambda: snapshot.judges_of("docs"))
    assert {judge.identity.scale for judge in found.values()} == {"0-3", "1-4"}


def test_peoples_labels_are_fit_for_training_without_a_report(filled: Ledger) -> None:
    add(filled, said())
    with filled.snapshot() as snapshot:
        judges = snapshot.judges()
        [query] = snapshot.labelled_queries("docs", ids=["q1"], overrides=True)
    [label] = [label for label in query.labels if label.human]
    usage = Usage(Report())
    usage.add(judges[label.judge_no], label, (POSITIVES, NEGATIVES), trains=True)
    assert (usage.verdict, usage.warnings) == (QUALIFIED, [])
    [judged] = [judge for judge in judges.values() if judge.identity == JUDGE]
    usage.add(judged, label, (POSITIVES,), trains=False)
    assert usage.verdict == "unknown", "what judges say is known no better for that"
