"""Rounds: a query that goes through again joins itself; nothing of it is lost, doubled or put beside another text."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from qrelay.errors import InvalidQuery, QueryConflict
from qrelay.labels.audit.coverage import Judged
from qrelay.labels.examples import Example
from qrelay.labels.exports.catalogue import QRELS
from qrelay.labels.exports.request import Options
from qrelay.labels.ledger import overrides, schema
from qrelay.labels.ledger.ledger import Added, CommitStatus, Ledger
from qrelay.labels.ledger.packing import unpack
from qrelay.types import BM25, DENSE, Candidate, CandidateSet, Graded, JudgedSet, Missing, Query, Score
from tests.labels.builders import OTHER_JUDGE, dead_letter, graded, judged_set, judgment, passage, relabelled
from tests.labels.exporting import export_bytes

COMMITTED, DUPLICATE = CommitStatus.COMMITTED, CommitStatus.DUPLICATE
LOST = Missing("timeout", "no answer in 30 s")
Made = dict[str, Graded | Missing | None]


def in_round(number: int, outcomes: Made, texts: dict[str, str] | None = None, **fields: Any) -> JudgedSet:
    """q1 in a round: the documents in the order in which BM25 and the round's own dense model rank them, each with
    its outcome; None: not sampled, and so without its text."""
    candidates = tuple(
        Candidate(
            passage(name, 0, "" if outcome is None else (texts or {}).get(name)),
            (Score(BM25, 20.0 - rank, rank), Score(DENSE, number + 1 / rank, rank)),
            outcome is not None,
        )
        for rank, (name, outcome) in enumerate(outcomes.items(), start=1)
    )
    judgments = [judgment(f"{name}#0", outcome, **fields) for name, outcome in outcomes.items() if outcome]
    query = Query("q1", "text of q1", "docs", round=number)
    return JudgedSet(CandidateSet(query, candidates, f"v{number}"), tuple(judgments))


FIRST = in_round(0, {"a": graded(3), "b": graded(0), "c": None})
SECOND = in_round(1, {"c": graded(1), "a": graded(3), "b": None, "d": graded(0)})
THIRD = in_round(2, {"e": graded(2), "c": None, "b": graded(0)})


def held(ledger: Ledger) -> JudgedSet:
    with ledger.snapshot() as snapshot:
        found = snapshot.judged_set("docs", "q1")
    assert found is not None
    return found


def candidates(ledger: Ledger) -> dict[str, Candidate]:
    return {each.passage.doc_id: each for each in held(ledger).candidate_set.candidates}


def tables(ledger: Ledger) -> dict[str, list[Any]]:
    """Every row of every table, numbers of changes aside: a transaction takes one whatever it does."""
    with ledger.snapshot() as snapshot:
        return {
            name: sorted(map(repr, snapshot.connection.execute(sa.select(table))))
            for name, table in schema.metadata.tables.items()
            if name != "collections"
        }


def generations(ledger: Ledger) -> list[tuple[Any, ...]]:
    """(generation, round, judgments, left_out)."""
    columns = schema.generations.c["generation", "round", "judgments", "left_out"]
    with ledger.snapshot() as snapshot:
        return [tuple(row) for row in snapshot.connection.execute(sa.select(columns).order_by(columns[0]))]


def exported(ledger: Ledger, kind: str, **fields: Any) -> list[str]:
    return b"".join(export_bytes(ledger, "docs", kind, unmeasured=True, **fields)).decode().splitlines()


def test_a_later_round_joins_its_query_as_its_next_generation(ledger: Ledger) -> None:
    assert ledger.commit([FIRST]) == [COMMITTED]
    assert ledger.commit([SECOND]) == [COMMITTED]
    found = held(ledger)
    assert (found.candidate_set.query.round, found.candidate_set.index_version) == (1, "v1")
    assert list(candidates(ledger)) == ["c", "a", "b", "d"]
    assert generations(ledger) == [(0, 0, 2, 0), (1, 1, 2, 0)]
    assert exported(ledger, QRELS) == ["q1 0 a#0 3", "q1 0 b#0 0", "q1 0 c#0 1", "q1 0 d#0 0"]
    (stats,) = ledger.stats("docs")
    assert (stats.queries, stats.judgments, stats.judged_pairs, stats.prompt_tokens) == (1, 4, 4, 400)


def test_the_latest_round_that_returned_a_candidate_gives_its_scores(ledger: Ledger) -> None:
    ledger.commit([FIRST])
    ledger.commit([THIRD])
    found = candidates(ledger)
    assert {name: each.score(DENSE) for name, each in found.items()} == {
        "e": Score(DENSE, 3.0, 1),
        "c": Score(DENSE, 2.5, 2),
        "b": Score(DENSE, 2 + 1 / 3, 3),
        "a": Score(DENSE, 1.0, 1),
    }
    assert [each.sampled for each in found.values()] == [True, False, True, True]


def test_a_text_is_not_lost_where_a_round_brings_the_passage_without_it(ledger: Ledger) -> None:
    ledger.commit([FIRST, SECOND])
    texts = {name: each.passage.text for name, each in candidates(ledger).items()}
    assert texts == {name: f"text 0 of {name}" for name in "abcd"}


@pytest.mark.parametrize("again", [FIRST, SECOND, relabelled(SECOND, judgment("a#0", graded(0), OTHER_JUDGE))])
def test_a_round_that_is_in_is_a_duplicate_and_changes_nothing(ledger: Ledger, again: JudgedSet) -> None:
    ledger.commit([FIRST])
    ledger.commit([SECOND])
    before = tables(ledger)
    assert ledger.commit([again]) == [DUPLICATE]
    assert tables(ledger) == before


def test_rounds_and_their_repetitions_may_come_in_one_batch(ledger: Ledger) -> None:
    sets = [SECOND, FIRST, SECOND, judged_set("q2"), FIRST, THIRD]
    assert ledger.commit(sets) == [COMMITTED, COMMITTED, DUPLICATE, COMMITTED, DUPLICATE, COMMITTED]
    (stats,) = ledger.stats("docs")
    assert (stats.queries, stats.judgments) == (2, 5 + 3)


def test_rounds_in_any_order_leave_the_same_query(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([FIRST, SECOND, THIRD])
    for number, order in enumerate(permutations([FIRST, SECOND, THIRD])):
        other = Ledger.open(tmp_path / f"{number}.sqlite")
        assert [other.commit([each]) for each in order] == [[COMMITTED]] * 3
        # attributes, answers and the time of submission are those of the round that came first
        assert held(other).candidate_set.candidates == held(ledger).candidate_set.candidates
        assert {j.passage_id: j.outcome for j in held(other).judgments} == {
            j.passage_id: j.outcome for j in held(ledger).judgments
        }
        assert held(other).candidate_set.index_version == "v2"
        assert other.stats() == ledger.stats()
        other.close()


def test_every_rounds_index_and_trace_are_kept(ledger: Ledger) -> None:
    ledger.commit([SECOND, FIRST, THIRD])
    with ledger.snapshot() as snapshot:
        packed = snapshot.connection.execute(sa.select(schema.candidate_sets.c.packed)).scalar_one()
    assert unpack(packed)["earlier"] == [[1, "v1", []], [0, "v0", []]]


def test_a_round_without_a_new_label_is_in_and_the_next_re_judgment_has_its_own_generation(ledger: Ledger) -> None:
    ledger.commit([FIRST, in_round(1, {"b": graded(0), "a": graded(3)})])
    assert generations(ledger) == [(0, 0, 2, 0), (1, 1, 0, 0)]
    assert ledger.rejudge([relabelled(FIRST, judgment("a#0", graded(1), OTHER_JUDGE))]) == [1]
    assert generations(ledger)[2] == (2, None, 1, 0)


def test_a_grade_stands_and_what_was_missing_gets_one(ledger: Ledger) -> None:
    ledger.commit([in_round(0, {"a": graded(3), "b": LOST})])
    ledger.commit([in_round(1, {"a": graded(0), "b": graded(1)})])
    outcomes = [(each.passage_id, each.outcome) for each in held(ledger).judgments]
    assert outcomes == [("a#0", graded(3)), ("b#0", LOST), ("b#0", graded(1))]


def test_a_label_never_stands_beside_another_text(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    ledger.commit([in_round(0, {"a": graded(3), "b": graded(0)})])
    other = in_round(1, {"a": graded(0), "b": graded(2), "c": graded(1)}, {"a": "rewritten"}, judge=OTHER_JUDGE)
    assert ledger.commit([other]) == [COMMITTED]
    found = candidates(ledger)
    assert (found["a"].passage.text, found["a"].score(DENSE)) == ("text 0 of a", Score(DENSE, 1.0, 1))
    assert found["b"].score(DENSE) == Score(DENSE, 1.5, 2)
    assert [each.outcome for each in held(ledger).judgments if each.passage_id == "a#0"] == [graded(3)]
    assert generations(ledger)[1] == (1, 1, 2, 1), "one judgment was left out, and the ledger says so"
    assert "a changed corpus needs a collection of its own" in caplog.text
    with ledger.snapshot() as snapshot:
        assert "rewritten" not in set(snapshot.connection.execute(sa.select(schema.passages.c.text)).scalars())


def test_a_passage_without_labels_takes_the_text_that_comes_with_one(ledger: Ledger) -> None:
    ledger.commit([in_round(0, {"a": graded(3), "b": None})])
    ledger.commit([in_round(1, {"b": graded(2)}, {"b": "what the judge read"})])
    assert candidates(ledger)["b"].passage.text == "what the judge read"
    assert [each.outcome for each in held(ledger).judgments] == [graded(3), graded(2)]


def test_a_text_that_a_person_graded_stays(ledger: Ledger) -> None:
    first = in_round(0, {"a": graded(3), "b": graded(1)})
    ledger.commit([replace(first, judgments=first.judgments[:1])])  # b came with a text, and no label
    with ledger.writing("test") as connection:
        overrides.add(connection, "docs", [overrides.NewOverride("q1", "b#0", 2, "0-3", "ana")], ledger.now_us())
    ledger.commit([in_round(1, {"b": graded(0)}, {"b": "rewritten"})])
    assert candidates(ledger)["b"].passage.text == "text 0 of b"
    assert [each.passage_id for each in held(ledger).judgments] == ["a#0"]


def test_another_text_of_the_query_is_a_conflict_in_every_round(ledger: Ledger) -> None:
    ledger.commit([FIRST])
    query = replace(SECOND.candidate_set.query, text="another text")
    other = replace(SECOND, candidate_set=replace(SECOND.candidate_set, query=query))
    (refused,) = ledger.commit([other])
    assert isinstance(refused, QueryConflict)
    assert held(ledger).candidate_set.query.round == 0


@pytest.mark.parametrize("number", [-1, 2**31])
def test_a_round_that_no_database_holds_is_refused(ledger: Ledger, number: int) -> None:
    (refused,) = ledger.commit([in_round(number, {"a": graded(1)})])
    assert isinstance(refused, InvalidQuery) and "round" in str(refused)


def test_a_round_is_a_change_of_its_query(ledger: Ledger) -> None:
    ledger.commit([FIRST, judged_set("q2")])
    with ledger.snapshot() as snapshot:
        before = snapshot.change_no("docs")
    ledger.commit([SECOND])
    with ledger.snapshot() as snapshot:
        changed = snapshot.labelled_queries("docs", changes=(before, snapshot.change_no("docs")))
        assert [each.query_id for each in changed] == ["q1"]


def test_a_run_and_judged_at_k_are_of_the_latest_round_alone(ledger: Ledger) -> None:
    ledger.commit([FIRST, THIRD])
    found = exported(ledger, "run", options=Options(system=DENSE))
    assert [line.split()[2:4] for line in found] == [["e#0", "1"], ["c#0", "2"], ["b#0", "3"]]
    with ledger.snapshot() as snapshot:
        (query,) = snapshot.labelled_queries("docs")
    judged = Judged()
    judged.add(Example(query, {}, {each.passage_id: each for each in query.labels}))
    assert judged.result()[DENSE]["5"] == pytest.approx(2 / 3, abs=1e-4), "a is no result of this round"


def state_of(ledger: Ledger, letter: str) -> str:
    entry = ledger.get_dead_letter(letter)
    assert entry is not None
    return entry.state


def test_a_commit_closes_the_letters_of_its_round_and_of_those_before(ledger: Ledger) -> None:
    ledger.record_dead_letters([dead_letter(f"l{n}", round=n) for n in range(3)])
    ledger.commit([FIRST])
    assert [state_of(ledger, f"l{n}") for n in range(3)] == ["resolved", "open", "open"]
    ledger.commit([SECOND])
    assert [state_of(ledger, f"l{n}") for n in range(3)] == ["resolved", "resolved", "open"]
    ledger.record_dead_letters([dead_letter("late", round=1), dead_letter("early", round=3)])
    assert (state_of(ledger, "late"), state_of(ledger, "early")) == ("resolved", "open")


def test_a_query_is_committed_in_a_round_when_that_or_a_later_one_is_in(ledger: Ledger) -> None:
    ledger.commit([FIRST])
    assert ledger.query_states("docs", ["q1"], 1) == {}
    ledger.record_dead_letters([dead_letter("l1", round=1)])
    assert ledger.query_states("docs", ["q1"], 1) == {"q1": "dead"}
    assert ledger.query_states("docs", ["q1"], 2) == {}
    ledger.commit([THIRD])
    assert [ledger.query_states("docs", ["q1"], n) for n in range(4)] == [{"q1": "committed"}] * 3 + [{}]


def test_what_follows_a_commit_hears_which_pairs_a_round_added(ledger_url: str) -> None:
    heard: list[Added] = []

    def hear(_: sa.Connection, sets: Sequence[Added], __: int) -> None:
        heard.extend(sets)

    ledger = Ledger.open(ledger_url, after_commit=hear)
    ledger.commit([in_round(0, {"a": graded(3), "b": LOST})])
    ledger.commit([in_round(1, {"a": graded(3), "b": graded(0), "c": graded(1), "d": LOST})])
    ledger.commit([in_round(1, {"e": graded(0)})])
    ledger.close()
    assert [each.passage_ids for each in heard] == [None, {"b#0", "c#0"}]


@pytest.mark.parametrize(("point", "rounds"), [("sink.commit.before", [0]), ("sink.commit.after", [0, 1])])
def test_a_sink_killed_as_it_merges_leaves_the_round_whole_or_not_there(
    ledger_url: str, tmp_path: Path, point: str, rounds: list[int]
) -> None:
    ledger = Ledger.open(ledger_url)
    ledger.commit([FIRST])
    before = tables(ledger)
    (tmp_path / point).write_text("1")
    program = "import sys; from tests.labels.test_rounds import *; Ledger.open(sys.argv[1]).commit([SECOND])"
    killed = subprocess.run(
        [sys.executable, "-c", program, ledger_url],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "QRELAY_FAULTS": str(tmp_path)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert [each[1] for each in generations(ledger)] == rounds
    if rounds == [0]:
        assert tables(ledger) == before
    assert ledger.commit([SECOND]) == [DUPLICATE if 1 in rounds else COMMITTED]
    assert len(held(ledger).judgments) == 4
    ledger.close()
