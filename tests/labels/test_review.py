"""What people should look at first, by disagreement, by uncertainty and by query, a page at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from qrelay.errors import InputError, UnknownCollection
from qrelay.labels import review
from qrelay.labels.ledger import overrides
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride
from qrelay.labels.review import ReviewPage, by_disagreement, by_query, by_uncertainty
from qrelay.types import Graded, JudgeIdentity, Missing
from tests.labels.builders import (
    CASCADE,
    FUSED,
    JUDGE,
    OTHER_JUDGE,
    graded,
    judged_set,
    judgment,
    relabelled,
    with_labels,
)

BINARY = dataclasses.replace(JUDGE, strategy="binary", scale="0-1")
ONE_TO_FOUR = dataclasses.replace(OTHER_JUDGE, scale="1-4")
WORDS = dataclasses.replace(OTHER_JUDGE, strategy="likelihood", scale="nats")


def expecting(value: float, p_relevant: float = 0.5, min_grade: int = 0) -> Graded:
    """A label that expects this relevance."""
    return dataclasses.replace(graded(1, p_relevant, min_grade), expected_relevance=value)


def override(ledger: Ledger, query_id: str, passage_id: str, grade: int | None = 0) -> None:
    with ledger.writing("record overrides") as connection:
        said = NewOverride(query_id, passage_id, grade, "0-3", "ana", "why")
        overrides.add(connection, "docs", [said], ledger.now_us())


def pair_of_judges(ledger: Ledger, query_id: str, *labels: tuple[JudgeIdentity, Graded | Missing]) -> None:
    """A query with one passage d0#0, labelled by these judges."""
    record = judged_set(query_id, outcomes=[graded(0)])
    ledger.commit([relabelled(record, *(judgment("d0#0", outcome, judge) for judge, outcome in labels))])


def scores(page: ReviewPage) -> list[tuple[str, float]]:
    return [(pair.query_id, round(pair.score, 6)) for pair in page.pairs]


def test_pairs_come_by_how_far_their_judges_differ_on_their_own_scales(ledger: Ledger) -> None:
    pair_of_judges(ledger, "q1", (JUDGE, expecting(1.5)), (OTHER_JUDGE, expecting(1.8)))
    pair_of_judges(ledger, "q2", (JUDGE, expecting(0.0)), (ONE_TO_FOUR, expecting(3.4, min_grade=1)))
    pair_of_judges(ledger, "q3", (JUDGE, expecting(3.0)), (BINARY, expecting(0.25)))
    pair_of_judges(ledger, "q4", (JUDGE, expecting(3.0)), (ONE_TO_FOUR, expecting(4.0, min_grade=1)))
    assert scores(by_disagreement(ledger, "docs")) == [("q2", 0.8), ("q3", 0.75), ("q1", 0.1)]


def test_a_judge_whose_scale_has_no_ends_is_compared_by_its_probability(ledger: Ledger) -> None:
    pair_of_judges(ledger, "q1", (JUDGE, expecting(3.0)), (WORDS, expecting(-7.0, p_relevant=0.4)))
    assert scores(by_disagreement(ledger, "docs")) == [("q1", 0.6)]


def test_combined_judges_and_missing_labels_are_no_opinions(ledger: Ledger) -> None:
    pair_of_judges(ledger, "q1", (JUDGE, expecting(3.0)), (FUSED, expecting(0.0)), (CASCADE, expecting(0.0)))
    pair_of_judges(ledger, "q2", (JUDGE, expecting(3.0)), (OTHER_JUDGE, Missing("timeout")))
    assert by_disagreement(ledger, "docs") == ReviewPage((), "")


def test_pairs_come_by_how_unsure_the_label_is_that_counts(ledger: Ledger) -> None:
    pair_of_judges(ledger, "sure", (JUDGE, graded(0, 0.5)), (FUSED, graded(3, 0.9)))
    pair_of_judges(ledger, "lost", (JUDGE, graded(0, 0.5)), (CASCADE, Missing("timeout")))
    pair_of_judges(ledger, "torn", (JUDGE, graded(1, 0.45)))
    pair_of_judges(ledger, "rest", (JUDGE, Missing("timeout")), (OTHER_JUDGE, graded(1, 0.3)))
    assert scores(by_uncertainty(ledger, "docs")) == [("torn", 0.9), ("rest", 0.6), ("sure", 0.2)]


def test_the_latest_generation_is_the_one_whose_doubt_counts(ledger: Ledger) -> None:
    pair_of_judges(ledger, "q1", (JUDGE, graded(0, 0.5)))
    record = judged_set("q1", outcomes=[graded(0)])
    ledger.rejudge([relabelled(record, judgment("d0#0", graded(0, 0.1), OTHER_JUDGE))])
    assert scores(by_uncertainty(ledger, "docs")) == [("q1", 0.2)]


def test_a_pair_comes_with_its_texts_and_every_label_the_one_that_counts_first(ledger: Ledger) -> None:
    pair_of_judges(ledger, "q1", (JUDGE, expecting(0.0)), (FUSED, graded(1)), (OTHER_JUDGE, expecting(3.0)))
    [pair] = by_disagreement(ledger, "docs").pairs
    assert (pair.query, pair.passage.title, pair.passage.text) == ("text of q1", "title of d0", "text 0 of d0")
    assert pair.labels[0][0].identity == FUSED
    assert {judge.identity for judge, _ in pair.labels} == {FUSED, JUDGE, OTHER_JUDGE}
    assert pair.override is None


@pytest.mark.parametrize("ask", [by_disagreement, by_uncertainty])
def test_what_people_decided_already_comes_only_where_it_is_asked_for(
    ledger: Ledger, ask: Callable[..., ReviewPage]
) -> None:
    for query_id in ("q1", "q2"):
        pair_of_judges(ledger, query_id, (JUDGE, expecting(0.0)), (OTHER_JUDGE, expecting(3.0)))
    override(ledger, "q1", "d0#0")
    assert [pair.query_id for pair in ask(ledger, "docs").pairs] == ["q2"]
    asked = ask(ledger, "docs", overridden=True).pairs
    assert [(pair.query_id, pair.override and pair.override.note) for pair in asked] == [("q1", "why"), ("q2", None)]
    override(ledger, "q1", "d0#0", None)
    assert len(ask(ledger, "docs").pairs) == 2, "a withdrawn override decides nothing"


@pytest.mark.parametrize("ask", [by_disagreement, by_uncertainty])
@pytest.mark.parametrize("size", [1, 5])
def test_pages_hold_every_pair_once_in_one_order_whatever_their_size(
    ledger: Ledger, ask: Callable[..., ReviewPage], size: int
) -> None:
    sets = []
    for number in range(6):
        record = judged_set(f"q{number}", outcomes=[expecting(0.1 * (number % 3), 0.3)] * 2)
        others = (judgment(f"d{i}#0", expecting(0.7), OTHER_JUDGE) for i in range(2))
        sets.append(with_labels(record, *others))
    ledger.commit(sets)
    whole = ask(ledger, "docs")
    seen, token = list[tuple[str, str]](), ""
    while True:
        page = ask(ledger, "docs", page_size=size, page_token=token)
        assert len(page.pairs) <= size
        seen += [(pair.query_id, pair.passage.passage_id) for pair in page.pairs]
        if not (token := page.next_page_token):
            break
    assert seen == [(pair.query_id, pair.passage.passage_id) for pair in whole.pairs]
    assert len(set(seen)) == 12
    ordered = [(-pair.score, pair.query_id, pair.passage.passage_id) for pair in whole.pairs]
    assert ordered == sorted(ordered)


def test_a_pair_that_was_decided_between_two_pages_moves_no_other(ledger: Ledger) -> None:
    for query_id in ("q1", "q2", "q3", "q4"):
        pair_of_judges(ledger, query_id, (JUDGE, expecting(0.0)), (OTHER_JUDGE, expecting(3.0)))
    first = by_disagreement(ledger, "docs", page_size=2)
    override(ledger, "q1", "d0#0")
    override(ledger, "q3", "d0#0")
    second = by_disagreement(ledger, "docs", page_size=2, page_token=first.next_page_token)
    assert [pair.query_id for pair in (*first.pairs, *second.pairs)] == ["q1", "q2", "q4"]


def test_a_query_is_reviewed_whole_with_unjudged_passages_and_those_that_only_people_named(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    override(ledger, "q1", "d1#0", 3)
    override(ledger, "q1", "people#7", 1)
    first = by_query(ledger, "docs", "q1", page_size=3, overridden=True)
    second = by_query(ledger, "docs", "q1", page_size=3, page_token=first.next_page_token, overridden=True)
    pairs = {pair.passage.passage_id: pair for pair in (*first.pairs, *second.pairs)}
    assert list(pairs) == ["d0#0", "d1#0", "d2#0", "people#7", "unsampled#0"]
    assert second.next_page_token == ""
    decided = pairs["d1#0"].override
    assert decided is not None and (decided.grade, decided.author) == (3, "ana")
    assert [label.grade for _, label in pairs["d1#0"].labels] == [0]
    assert pairs["d2#0"].labels[0][1].missing_reason == "timeout"
    assert pairs["people#7"].passage.text == "" and pairs["unsampled#0"].labels == ()
    left = by_query(ledger, "docs", "q1")
    assert [pair.passage.passage_id for pair in left.pairs] == ["d0#0", "d2#0", "unsampled#0"]


def test_a_query_or_collection_that_the_ledger_lacks_is_named(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    with pytest.raises(InputError, match="no query 'q9' in collection docs"):
        by_query(ledger, "docs", "q9")
    with pytest.raises(UnknownCollection, match="wiki"):
        by_uncertainty(ledger, "wiki")


def test_a_token_of_another_list_is_refused(ledger: Ledger) -> None:
    for query_id in ("q1", "q2"):
        pair_of_judges(ledger, query_id, (JUDGE, expecting(0.0)), (OTHER_JUDGE, expecting(3.0)))
    token = by_uncertainty(ledger, "docs", page_size=1).next_page_token
    assert token
    for wrong in (token, "x", "bnVsbA==", "ä"):
        with pytest.raises(InputError, match="page_token"):
            by_disagreement(ledger, "docs", page_token=wrong)


@pytest.mark.parametrize("size", [0, review.MAX_PAGE_SIZE + 1])
def test_a_page_size_that_cannot_be_is_refused(ledger: Ledger, size: int) -> None:
    with pytest.raises(InputError, match="page_size"):
        by_uncertainty(ledger, "docs", page_size=size)
