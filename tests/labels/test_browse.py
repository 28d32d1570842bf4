"""Pages read summaries, and summaries say what the labels say, whatever changes them; lists go by key both ways."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.labels import review
from qrelay.labels.browse import letters, queries
from qrelay.labels.browse.choices import choices
from qrelay.labels.browse.one import Whole, whole
from qrelay.labels.browse.queries import SORTS, Page, Wanted
from qrelay.labels.deciding import decide, take_back
from qrelay.labels.ledger import retractions, schema
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride
from qrelay.labels.mining.rules import MiningRules
from qrelay.types import JudgedSet, Missing
from tests.labels.builders import (
    CASCADE,
    FUSED,
    JUDGE,
    OTHER_JUDGE,
    dead_letter,
    graded,
    judged_set,
    judgment,
    relabelled,
    with_labels,
)

JUDGES = (JUDGE, OTHER_JUDGE, FUSED, CASCADE, dataclasses.replace(OTHER_JUDGE, scale="1-4", revision="r2"))


def varied(rng: random.Random, query_id: str, collection: str = "docs") -> JudgedSet:
    """Three passages with labels of some of the judges."""
    record = judged_set(query_id, outcomes=[graded(0)] * 3, collection=collection)
    found = []
    for passage in ("d0#0", "d1#0", "d2#0"):
        for judge in rng.sample(JUDGES, rng.randint(1, 4)):
            low = int(judge.scale[0])
            grade = rng.randint(low, low + 3)
            outcome = graded(grade, rng.random(), low)
            outcome = dataclasses.replace(outcome, expected_relevance=low + 3 * rng.random())
            found.append(judgment(passage, Missing("timeout") if rng.random() < 0.2 else outcome, judge))
    return relabelled(record, *found)


def grade(ledger: Ledger, query_id: str, passage_id: str, value: int | None, author: str = "ana") -> None:
    decide(ledger, "docs", NewOverride(query_id, passage_id, value, "0-3", author))


def listed(ledger: Ledger, wanted: Wanted, size: int = 50, token: str = "") -> Page:
    with ledger.snapshot() as snapshot:
        return queries.listed(snapshot.connection, wanted, size=size, token=token)


def ids(ledger: Ledger, **wanted: object) -> list[str]:
    return [row.query_id for row in listed(ledger, Wanted(**wanted)).rows]  # type: ignore[arg-type]


def shown(ledger: Ledger, query_id: str = "q1") -> Whole:
    with ledger.snapshot() as snapshot:
        found = whole(snapshot, "docs", query_id, MiningRules())
    assert found is not None
    return found


def measured(ledger: Ledger, kind: str) -> dict[str, float]:
    """query_id -> the largest measure of its pairs, as `label queue` computes it from the judgments."""
    ask = review.by_disagreement if kind == review.DISAGREEMENT else review.by_uncertainty
    found: dict[str, float] = {}
    for pair in ask(ledger, "docs", page_size=500, overridden=True).pairs:
        found[pair.query_id] = max(found.get(pair.query_id, 0.0), pair.score)
    return found


def summarised(ledger: Ledger) -> dict[str, queries.Row]:
    return {row.query_id: row for row in listed(ledger, Wanted(collection="docs"), size=200).rows}


def require_right_summaries(ledger: Ledger) -> None:
    rows = summarised(ledger)
    for name, kind in (("disagreement", review.DISAGREEMENT), ("uncertainty", review.UNCERTAINTY)):
        right = measured(ledger, kind)
        for query_id, row in rows.items():
            assert getattr(row, name) == pytest.approx(right.get(query_id, 0.0)), (query_id, name)


def test_summaries_are_what_the_review_queue_measures_after_every_kind_of_change(ledger: Ledger) -> None:
    rng = random.Random(3)
    ledger.commit([varied(rng, f"q{number:02}") for number in range(40)])
    require_right_summaries(ledger)
    ledger.rejudge([with_labels(judged_set("q07", outcomes=[graded(0)] * 3), judgment("d0#0", graded(3), JUDGE))])
    later = varied(rng, "q08")
    of_round = dataclasses.replace(later.candidate_set.query, round=1)
    ledger.commit(
        [dataclasses.replace(later, candidate_set=dataclasses.replace(later.candidate_set, query=of_round))]
    )
    require_right_summaries(ledger)
    with ledger.snapshot() as snapshot:
        gone = next(j.judge_hash for j in snapshot.judges().values() if j.identity == OTHER_JUDGE)
    for decided in (retractions.retract, retractions.restore):
        with ledger.writing("test") as connection:
            decided(connection, gone, author="ana", reason="a fault", now_us=1)
        require_right_summaries(ledger)
        ledger.commit([varied(rng, f"q4{decided.__name__}")])
        require_right_summaries(ledger)


def test_a_list_is_cut_into_pages_that_join_without_gap_or_repetition_in_every_order(ledger: Ledger) -> None:
    rng = random.Random(5)
    ledger.commit([varied(rng, f"q{number:02}", rng.choice(["docs", "wiki"])) for number in range(23)])
    for sort in SORTS:
        wanted = Wanted(sort=sort)
        whole_list = [row.query_no for row in listed(ledger, wanted).rows]
        assert len(set(whole_list)) == 23
        page, forward = listed(ledger, wanted, 5), []
        assert not page.before
        while True:
            forward.append([row.query_no for row in page.rows])
            if not page.next:
                break
            page = listed(ledger, wanted, 5, page.next)
        assert [*itertools.chain(*forward)] == whole_list
        backward = [forward[-1]]
        while page.before:
            page = listed(ledger, wanted, 5, page.before)
            backward.append([row.query_no for row in page.rows])
        assert backward == forward[::-1]


def test_the_neighbours_of_a_query_are_those_of_its_list(ledger: Ledger) -> None:
    rng = random.Random(6)
    ledger.commit([varied(rng, f"q{number:02}") for number in range(9)])
    wanted = Wanted(sort="uncertainty")
    rows = listed(ledger, wanted).rows
    with ledger.snapshot() as snapshot:
        found = [queries.beside(snapshot.connection, wanted, row) for row in rows]
    assert [before for before, _ in found] == [None, *rows[:-1]]
    assert [after for _, after in found] == [*rows[1:], None]


def test_search_takes_words_of_text_and_id_and_nothing_as_a_pattern(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1", "How to OPEN a file"), judged_set("q_2", "50% off"), judged_set("q32", "a\\b")])
    assert ids(ledger, search="open how") == ["q1"]
    assert ids(ledger, search="q_") == ["q_2"]
    assert ids(ledger, search="0%") == ["q_2"]
    assert ids(ledger, search="\\") == ["q32"]
    assert ids(ledger, search="open nothing") == []
    with pytest.raises(InputError, match="200 are the most"):
        ids(ledger, search="x" * 201)


def test_filters_narrow_by_what_the_labels_say(ledger: Ledger) -> None:
    sure = judged_set("sure", outcomes=[graded(3, 1.0)])
    ledger.commit(
        [sure, judged_set("half", outcomes=[graded(2, 0.5)]), judged_set("gap"), judged_set(collection="wiki")]
    )
    ledger.rejudge([with_labels(sure, judgment("d0#0", graded(0, 0.1), OTHER_JUDGE))])
    grade(ledger, "sure", "d0#0", 3)
    assert ids(ledger, differ=0.9) == ["sure"]
    assert ids(ledger, unsure=0.9) == ["half"]
    assert ids(ledger, missing=True, collection="docs") == ["gap"]
    assert ids(ledger, graded="yes") == ["sure"]
    assert ids(ledger, graded="no", collection="docs") == ["gap", "half"]
    assert ids(ledger, apart=0.9) == ["sure"]
    assert ids(ledger, round=1) == []
    with ledger.snapshot() as snapshot:
        other = next(j.judge_hash for j in choices(snapshot).judges if j.identity == OTHER_JUDGE)
    assert ids(ledger, judge=other[:8]) == ids(ledger, judge=other) == ["sure"]
    assert ids(ledger, judge=other[1:8]) == []


@pytest.mark.parametrize(
    ("sort", "token"), [("id", "nonsense"), ("newest", "WyJpZCIsMSwiYSIsImIiXQ=="), ("none", "")]
)
def test_what_is_no_place_or_order_of_a_list_is_refused(sqlite_ledger: Ledger, sort: str, token: str) -> None:
    sqlite_ledger.commit([judged_set()])
    with pytest.raises(InputError):
        listed(sqlite_ledger, Wanted(sort=sort), token=token)


def test_dead_letters_that_wait_are_listed_the_latest_first(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    ledger.record_dead_letters([dead_letter(f"l{number}", f"x{number}") for number in range(5)])
    with ledger.snapshot() as snapshot:
        first, token = letters.listed(snapshot.connection, "docs", size=3)
        rest, end = letters.listed(snapshot.connection, size=3, token=token)
        found = letters.listed(snapshot.connection, search="x2", size=3)[0]
        assert letters.counted(snapshot.connection, "docs") == 5
    assert [each.query_id for each in (*first, *rest)] == ["x4", "x3", "x2", "x1", "x0"]
    assert (end, [each.query_id for each in found]) == ("", ["x2"])


def test_one_query_shows_every_label_in_the_order_in_which_it_counts_with_what_mining_made_of_it(
    ledger: Ledger,
) -> None:
    record = judged_set("q1", outcomes=[graded(3), graded(0)])
    ledger.commit([record])
    ledger.rejudge([with_labels(record, judgment("d1#0", graded(1, 0.3), FUSED, raw_reply="1\nReason: it is near"))])
    found = shown(ledger)
    first, second, last = found.passages
    assert [each.candidate.passage.passage_id for each in found.passages] == ["d0#0", "d1#0", "unsampled#0"]
    assert [given.judge.identity for given in second.labels] == [FUSED, JUDGE]
    assert second.labels[0].judgment.reason == "it is near"
    assert second.labels[0].generation == 1
    assert first.mined is not None and (first.mined.role, first.mined.reason) == ("positive", "relevant")
    assert last.mined is not None and last.mined.reason == "not_judged"
    assert [(each.round, each.judgments) for each in found.added] == [(0, 2), (None, 1)]


def test_one_query_mines_with_peoples_grades_as_exports_do_with_overrides(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1", outcomes=[graded(3), graded(0), graded(0)])])
    assert shown(ledger).example
    grade(ledger, "q1", "d0#0", 0)
    found = shown(ledger)
    assert not found.example
    assert found.passages[0].mined is not None and found.passages[0].mined.role != "positive"
    assert found.passages[0].standing is not None and found.passages[0].standing.author == "ana"


def test_labels_of_a_retracted_judge_are_shown_as_such_and_last(ledger: Ledger) -> None:
    record = judged_set("q1", outcomes=[graded(3)])
    ledger.commit([with_labels(record, judgment("d0#0", graded(0), FUSED))])
    with ledger.snapshot() as snapshot:
        fused = next(j.judge_hash for j in snapshot.judges().values() if j.identity == FUSED)
    with ledger.writing("test") as connection:
        retractions.retract(connection, fused, author="ana", reason="a fault", now_us=1)
    labels = shown(ledger).passages[0].labels
    assert [(given.judge.identity, given.retracted) for given in labels] == [(JUDGE, False), (FUSED, True)]


def test_summaries_count_standing_grades_and_how_far_they_are_from_the_judges(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1", outcomes=[graded(3), graded(0)])])
    grade(ledger, "q1", "d0#0", 3)
    grade(ledger, "q1", "d1#0", 2)
    row = summarised(ledger)["q1"]
    assert row.people == 2
    assert row.people_apart == pytest.approx(2 / 3)
    take_back(ledger, "docs", "q1", "d1#0", "ana")
    row = summarised(ledger)["q1"]
    assert (row.people, row.people_apart) == (1, 0)


def test_reading_pages_writes_nothing(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    with ledger.snapshot() as snapshot:
        before = [snapshot.connection.execute(sa.select(t)).all() for t in schema.metadata.sorted_tables]
    shown(ledger)
    listed(ledger, Wanted())
    with ledger.snapshot() as snapshot:
        after = [snapshot.connection.execute(sa.select(t)).all() for t in schema.metadata.sorted_tables]
    assert before == after
