"""Commits: once, durable, first text wins, a bad set alone fails."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qrelay.errors import BackendUnavailable, InternalError, InvalidQuery, MalformedInput, QrelayError, QueryConflict
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.commit import begin_changes
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.types import Graded, JudgedSet, Missing, TraceStep, Utility
from tests.labels.builders import FUSED, JUDGE, NOW, OTHER_JUDGE, graded, judged_set, judgment, with_labels

COMMITTED, DUPLICATE = CommitStatus.COMMITTED, CommitStatus.DUPLICATE


def stored(ledger: Ledger, query_id: str = "q1", collection: str = "docs") -> JudgedSet | None:
    with ledger.snapshot() as snapshot:
        return snapshot.judged_set(collection, query_id)


def with_query(record: JudgedSet, **fields: Any) -> JudgedSet:
    query = dataclasses.replace(record.candidate_set.query, **fields)
    return dataclasses.replace(record, candidate_set=dataclasses.replace(record.candidate_set, query=query))


def with_judgment(record: JudgedSet, **fields: Any) -> JudgedSet:
    first, *others = record.judgments
    return dataclasses.replace(record, judgments=(dataclasses.replace(first, **fields), *others))


def test_what_is_committed_is_read_back_whole(ledger: Ledger) -> None:
    record = judged_set()
    trace = (TraceStep("retriever", "r-1", "minilm@1", 0.25, 0.5),)
    record = dataclasses.replace(record, candidate_set=dataclasses.replace(record.candidate_set, trace=trace))
    assert ledger.commit([record]) == [COMMITTED]
    assert stored(ledger) == record


def test_committing_twice_is_committing_once(ledger: Ledger) -> None:
    assert ledger.commit([judged_set()]) == [COMMITTED]
    before = ledger.stats("docs")
    assert ledger.commit([judged_set()]) == [DUPLICATE]
    assert ledger.stats("docs") == before
    assert before[0].queries == 1
    assert before[0].judgments == 3


def test_a_redelivery_with_other_verdicts_changes_nothing(ledger: Ledger) -> None:
    first = judged_set(outcomes=[graded(3), graded(0)])
    ledger.commit([first])
    assert ledger.commit([judged_set(outcomes=[graded(0), graded(3)], judge=OTHER_JUDGE)]) == [DUPLICATE]
    assert stored(ledger) == first


def test_a_missing_judgment_is_not_filled_by_a_redelivery(ledger: Ledger) -> None:
    first = judged_set(outcomes=[Missing("timeout")])
    ledger.commit([first])
    ledger.commit([judged_set(outcomes=[graded(3)])])
    assert stored(ledger) == first


def test_twice_in_one_batch_is_once(ledger: Ledger) -> None:
    assert ledger.commit([judged_set(), judged_set("q2"), judged_set()]) == [COMMITTED, COMMITTED, DUPLICATE]


@pytest.mark.parametrize("together", [True, False])
def test_another_text_for_a_query_id_is_a_conflict_that_quotes_neither_and_the_first_stays(
    ledger: Ledger, together: bool
) -> None:
    first, second = judged_set(text="how to open a file"), judged_set(text="how to close a file")
    results = ledger.commit([first, second]) if together else [*ledger.commit([first]), *ledger.commit([second])]
    assert results[0] is COMMITTED
    assert isinstance(results[1], QueryConflict)
    assert "18 characters" in str(results[1]) and "of 19" in str(results[1])
    assert "file" not in str(results[1]), "an error's words are logged"
    assert stored(ledger) == first


def test_the_same_query_id_in_another_collection_is_another_query(ledger: Ledger) -> None:
    assert ledger.commit([judged_set(), judged_set(text="other", collection="wiki")]) == [COMMITTED, COMMITTED]
    assert [stats.collection for stats in ledger.stats()] == ["docs", "wiki"]


BAD: dict[str, tuple[Any, type[QrelayError], str]] = {
    "query_id with a space": (lambda s: with_query(s, query_id="a b"), InvalidQuery, "whitespace"),
    "query_id with a newline": (lambda s: with_query(s, query_id="a\n"), InvalidQuery, "whitespace"),
    "empty query_id": (lambda s: with_query(s, query_id=""), InvalidQuery, "empty"),
    "empty text": (lambda s: with_query(s, text=" "), InvalidQuery, "empty text"),
    "bad collection": (lambda s: with_query(s, collection="No Such"), InvalidQuery, "collection"),
    "passage_id with a space": (lambda s: judged_set("bad", prefix="my doc"), MalformedInput, "whitespace"),
    "no candidate judged": (lambda s: with_judgment(s, passage_id="zz#0"), MalformedInput, "not its candidates"),
    "NaN utility": (
        lambda s: with_judgment(s, outcome=dataclasses.replace(graded(1), utility=Utility(math.nan))),
        MalformedInput,
        "not finite",
    ),
    "NaN": (lambda s: with_judgment(s, outcome=graded(1, math.nan)), MalformedInput, "not finite"),
    "probability above one": (lambda s: with_judgment(s, outcome=graded(1, 1.5)), MalformedInput, "0..1"),
    "grade outside": (
        lambda s: with_judgment(s, outcome=Graded(7, 0, (1.0,), 7.0, 0.0, 1.0)),
        MalformedInput,
        "grade",
    ),
    "missing without reason": (lambda s: with_judgment(s, outcome=Missing("")), MalformedInput, "reason"),
    "time without zone": (lambda s: with_judgment(s, judged_at=NOW.replace(tzinfo=None)), MalformedInput, "stored"),
    "surrogate in a reply": (lambda s: with_judgment(s, raw_reply="\ud800"), MalformedInput, "stored"),
    "NUL in the text": (lambda s: with_query(s, text="a\0b"), MalformedInput, "NUL character in a query text"),
    "NUL in a query_id": (lambda s: with_query(s, query_id="a\0b"), MalformedInput, "query_id"),
    "NUL in a passage": (lambda s: judged_set("bad", prefix="d\0"), MalformedInput, "passage_id"),
    "NUL in a key": (lambda s: with_judgment(s, judgment_key="k\0"), MalformedInput, "judgment_key"),
    "NUL in a judge": (
        lambda s: judged_set("bad", judge=dataclasses.replace(JUDGE, prompt_hash="m\0")),
        MalformedInput,
        "judge's prompt_hash",
    ),
    "NUL in a reason": (lambda s: with_judgment(s, outcome=Missing("a\0")), MalformedInput, "missing_reason"),
    "33 bits": (lambda s: with_judgment(s, prompt_tokens=2**31), MalformedInput, "prompt_tokens"),
    "integer too large": (lambda s: with_judgment(s, prompt_tokens=2**70), MalformedInput, "stored"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_set_is_refused_in_words_and_its_neighbours_are_committed(ledger: Ledger, name: str) -> None:
    spoil, kind, words = BAD[name]
    results = ledger.commit([judged_set("q1"), spoil(judged_set("bad")), judged_set("q2")])
    assert [results[0], results[2]] == [COMMITTED, COMMITTED]
    assert type(results[1]) is kind
    assert words in str(results[1])
    assert ledger.query_states("docs") == {"q1": "committed", "q2": "committed"}


def test_a_passage_listed_twice_is_refused(ledger: Ledger) -> None:
    record = judged_set()
    candidates = record.candidate_set.candidates
    twice = dataclasses.replace(record.candidate_set, candidates=(*candidates, candidates[0]))
    (result,) = ledger.commit([dataclasses.replace(record, candidate_set=twice)])
    assert isinstance(result, MalformedInput)
    assert "d0#0" in str(result)


def test_a_missing_judgment_is_stored_without_a_grade(ledger: Ledger) -> None:
    ledger.commit([judged_set(outcomes=[Missing("unparseable", "said maybe")])])
    columns = schema.judgments.c["grade", "p_relevant", "missing_reason", "missing_detail"]
    with ledger.snapshot() as snapshot:
        row = snapshot.connection.execute(sa.select(columns)).one()
        assert tuple(row) == (None, None, "unparseable", "said maybe")
    with pytest.raises(InternalError, match="missing_is_never_a_grade"), ledger.writing("test") as connection:
        connection.execute(schema.judgments.update().values(grade=0, p_relevant=0.0))


def test_a_nul_in_what_a_judge_said_is_kept_as_a_replacement_character(ledger: Ledger) -> None:
    record = judged_set(outcomes=[graded(1), Missing("unparseable", "a\0b")])
    assert ledger.commit([with_judgment(record, raw_reply="x\0y")]) == [COMMITTED]
    found = stored(ledger)
    assert found is not None
    assert found.judgments[0].raw_reply == "x\ufffdy"
    assert found.judgments[1].outcome == Missing("unparseable", "a\ufffdb")


def test_a_passage_that_no_database_can_hold_costs_its_text_and_not_the_query(ledger: Ledger) -> None:
    record = judged_set()
    first, second, *others = record.candidate_set.candidates
    spoilt = dataclasses.replace(first, passage=dataclasses.replace(first.passage, text="a\0b"))
    titled = dataclasses.replace(second, passage=dataclasses.replace(second.passage, title="a\0b"))
    candidates = dataclasses.replace(record.candidate_set, candidates=(spoilt, titled, *others))
    assert ledger.commit([dataclasses.replace(record, candidate_set=candidates)]) == [COMMITTED]
    found = stored(ledger)
    assert found is not None
    assert found.judgments == record.judgments
    assert [(c.passage.title, c.passage.text) for c in found.candidate_set.candidates[:2]] == [("", ""), ("", "")]
    assert found.candidate_set.candidates[2:] == record.candidate_set.candidates[2:]


def test_of_two_judgments_with_one_key_the_first_counts(ledger: Ledger) -> None:
    record = judged_set(outcomes=[graded(1)])
    twice = with_labels(record, dataclasses.replace(record.judgments[0], outcome=graded(3)))
    assert ledger.commit([twice]) == [COMMITTED]
    assert stored(ledger) == record
    assert ledger.stats()[0].judgments == 1


def test_ids_come_in_the_order_of_their_bytes(ledger: Ledger) -> None:
    names = ["b", "B", "a", "Z", "ä", "é", "_", "-1", "10", "9", "\U0001f600", "\uffff"]
    ledger.commit([judged_set(name) for name in names])
    with ledger.snapshot() as snapshot:
        found = [query.query_id for query in snapshot.labelled_queries("docs", page=3)]
    assert found == sorted(names, key=str.encode)


def test_two_judges_of_one_pair_are_two_rows(ledger: Ledger) -> None:
    record = judged_set(outcomes=[graded(3)])
    both = (*record.judgments, judgment("d0#0", graded(1), OTHER_JUDGE))
    ledger.commit([dataclasses.replace(record, judgments=both)])
    (stats,) = ledger.stats("docs")
    assert (stats.judgments, stats.judged_pairs) == (2, 1)


def test_what_a_likelihood_or_listwise_judge_measured_is_read_back(ledger: Ledger) -> None:
    measured = (Utility(1.5, 2.25, True, 3), Utility(nll=0.5), Utility(selected=False), Utility(), None)
    record = judged_set(outcomes=[dataclasses.replace(graded(2), utility=each) for each in measured])
    ledger.commit([record])
    assert stored(ledger) == record


def test_a_panels_judgments_are_all_read_back(ledger: Ledger) -> None:
    record = judged_set(outcomes=[graded(3), graded(0)])
    second: list[Graded | Missing] = [dataclasses.replace(graded(2), calibration="m" * 64), Missing("timeout")]
    more = [judgment(f"d{n}#0", each, judge) for judge in (OTHER_JUDGE, FUSED) for n, each in enumerate(second)]
    panel = with_labels(record, *more)
    assert ledger.commit([panel]) == [COMMITTED]
    found = stored(ledger)
    assert found is not None
    assert found.candidate_set == panel.candidate_set
    assert sorted(found.judgments, key=repr) == sorted(panel.judgments, key=repr)


def test_a_text_is_stored_once_and_a_changed_text_beside_it(ledger: Ledger) -> None:
    outcomes = [graded(3)]
    ledger.commit([judged_set("q1", outcomes=outcomes), judged_set("q2", outcomes=outcomes)])
    changed = judged_set("q3", outcomes=outcomes)
    first, *others = changed.candidate_set.candidates
    new = dataclasses.replace(first, passage=dataclasses.replace(first.passage, text="rewritten"))
    changed = dataclasses.replace(
        changed, candidate_set=dataclasses.replace(changed.candidate_set, candidates=(new, *others))
    )
    ledger.commit([changed])
    with ledger.snapshot() as snapshot:
        text = schema.passages.c.text
        texts = list(snapshot.connection.execute(sa.select(text).where(text != "").order_by(text)).scalars())
    assert texts == ["rewritten", "text 0 of d0"]
    assert stored(ledger, "q3") == changed
    assert stored(ledger, "q1") == judged_set("q1", outcomes=outcomes)


def test_statistics_count_what_was_committed(ledger: Ledger) -> None:
    record = judged_set(outcomes=[graded(3), Missing("timeout")])
    ledger.commit([with_judgment(record, cached=True, prompt_tokens=0), judged_set("q2")])
    (stats,) = ledger.stats("docs")
    assert dataclasses.astuple(stats) == ("docs", 2, 5, 5, 2, 1, 400, 0)
    assert ledger.stats("nothing") == []


def test_a_locked_ledger_is_unavailable_for_every_set_and_writes_nothing(ledger: Ledger, ledger_url: str) -> None:
    other = Ledger.open(ledger_url)
    with other.writing("hold the collection") as connection:
        begin_changes(connection, {"docs"})
        results = ledger.commit([judged_set("q1"), judged_set("q2")])
        assert all(isinstance(result, BackendUnavailable) for result in results)
        assert "lock" in str(results[0])
        assert ledger.stats() == [], "readers go on beside the lock"
    other.close()
    assert ledger.commit([judged_set("q1"), judged_set("q2")]) == [COMMITTED, COMMITTED]


def test_an_empty_batch_is_nothing(ledger: Ledger) -> None:
    assert ledger.commit([]) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    deliveries=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), max_size=12),
    cuts=st.sets(st.integers(0, 12)),
)
def test_however_deliveries_repeat_conflict_and_batch_the_first_of_each_id_stands(
    tmp_path: Path, deliveries: list[tuple[int, int]], cuts: set[int]
) -> None:
    path = tmp_path / "any.sqlite"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    records = [judged_set(f"q{number}", f"text {text} of {number}") for number, text in deliveries]
    first: dict[int, int] = {}
    expected: list[Any] = []
    for number, text in deliveries:
        new = number not in first
        stands = first.setdefault(number, text) == text
        expected.append(COMMITTED if new else DUPLICATE if stands else QueryConflict)
    opened = Ledger.open(path)
    bounds = [0, *sorted(cut for cut in cuts if 0 < cut < len(records)), len(records)]
    results = [r for a, b in itertools.pairwise(bounds) for r in opened.commit(records[a:b])]
    assert [type(r) if isinstance(r, QrelayError) else r for r in results] == expected
    for number, text in first.items():
        committed = stored(opened, f"q{number}")
        assert committed is not None
        assert committed.candidate_set.query.text == f"text {text} of {number}"
    opened.close()


def test_the_judge_of_a_refused_batch_is_not_taken_for_known(ledger: Ledger) -> None:
    bad = with_judgment(judged_set("bad", judge=OTHER_JUDGE), raw_reply="\ud800")  # refused after the judges
    assert isinstance(ledger.commit([bad])[0], MalformedInput)
    good = judged_set("good", judge=OTHER_JUDGE)
    assert ledger.commit([good]) == [COMMITTED]
    found = stored(ledger, "good")
    assert found is not None
    assert {each.judge for each in found.judgments} == {OTHER_JUDGE} != {JUDGE}
