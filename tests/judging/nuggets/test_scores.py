"""Nugget scores, and the files of nuggets: read as they were written, or refused with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from qrelay.errors import MalformedInput
from qrelay.judging.nuggets.records import (
    OKAY,
    VITAL,
    Nugget,
    NuggetList,
    assignment_line,
    list_line,
    read_answers,
    read_assignments,
    read_lists,
)
from qrelay.judging.nuggets.scores import means, scored
from qrelay.judging.prompts import shipped
from qrelay.types import Missing
from tests.judging.nuggets.samples import QUERY, assignment, nuggets


def test_scores_are_those_of_the_paper() -> None:
    found = scored(
        assignment((VITAL, "support"), (VITAL, "partial_support"), (OKAY, "support"), (OKAY, "not_support"))
    )
    assert found.values == pytest.approx(
        {
            "all": 2.5 / 4, "all_strict": 2 / 4, "vital": 1.5 / 2, "vital_strict": 1 / 2,
            "weighted": (1 + 0.5 + 0.5) / 3, "weighted_strict": 1.5 / 3, "expected": 2.5 / 4,
        }
    )  # fmt: skip


def test_a_nugget_that_is_not_assigned_makes_the_scores_missing_and_never_zero() -> None:
    found = scored(assignment((VITAL, "support"), (VITAL, "")))
    assert found.missing == Missing("timeout", "too slow") and set(found.values.values()) == {None}
    assert means([found, scored(assignment((VITAL, "support")))])["a"]["all"] == 1.0


def test_without_vital_nuggets_there_is_no_vital_score() -> None:
    found = scored(assignment((OKAY, "support")))
    assert found.values["vital"] is None and found.values["all"] == 1.0 and found.values["weighted"] == 1.0


def test_an_unknown_importance_leaves_only_the_scores_that_need_none() -> None:
    found = scored(assignment((VITAL, "support"), ("", "not_support")))
    assert found.values["all"] == 0.5 and found.values["vital"] is None and found.values["weighted"] is None


def test_lists_and_assignments_are_read_as_they_were_written(tmp_path: Path) -> None:
    lists, texts = tmp_path / "n.jsonl", tmp_path / "a.jsonl"
    whole = nuggets("sorted lists")
    absent = NuggetList("q2", "why", (), {"model": "m"}, Missing("unparseable", "x"))
    lists.write_text(list_line(whole) + list_line(absent))
    assert read_lists(lists) == {"q1": whole, "q2": absent}
    rows = [assignment((VITAL, "support"), (OKAY, "")), assignment(missing=Missing("skipped", "none"))]
    texts.write_text("".join(map(assignment_line, rows)))
    assert [scored(each).values for each in read_assignments(texts)] == [scored(each).values for each in rows]


def test_lists_of_nuggetizer_are_read(tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    path.write_text('{"query": "why", "qid": 7, "nuggets": [{"text": "x", "importance": "failed"}]}\n')
    assert read_lists(path)["7"].nuggets == (Nugget("x"),)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[]", "expected an object"),
        ('{"qid": "1", "query": "q"}', "nuggets"),
        ('{"qid": "1", "query": "q", "nuggets": [{"importance": "vital"}]}', "text"),
        ('{"qid": "1", "query": "q", "nuggets": [{"text": "x", "importance": "main"}]}', "importance"),
    ],
)
def test_a_file_that_holds_no_lists_is_refused_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "n.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(MalformedInput, match=f"n.jsonl:1.*({words})"):
        read_lists(path)


def test_two_lists_of_a_query_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    path.write_text(list_line(nuggets("x")) * 2)
    with pytest.raises(MalformedInput, match="again"):
        read_lists(path)
    path.write_text("")
    with pytest.raises(MalformedInput, match="no nugget lists"):
        read_lists(path)


@pytest.mark.parametrize("field", ['"assignment": "maybe"', '"assignment": "support", "probabilities": [1, 2, 3]'])
def test_an_assignment_that_is_none_is_refused(tmp_path: Path, field: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"qid": "1", "nuggets": [{"text": "x", ' + field + "}]}\n")
    with pytest.raises(MalformedInput, match=r"a\.jsonl:1"):
        read_assignments(path)


def test_answers_of_systems_are_read_in_both_shapes(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"query_id": "q1", "run_id": "a", "text": "sort it"}\n'
        '{"topic_id": "q1", "run_id": "b", "answer": [{"text": "Sort", "citations": [0]}, {"text": "it."}]}\n'
    )
    assert [(each.run_id, each.text) for each in read_answers(path)] == [("a", "sort it"), ("b", "Sort it.")]
    path.write_text(path.read_text().splitlines()[0] * 1 + "\n" + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(MalformedInput, match="another answer"):
        read_answers(path)


def test_the_prompts_hash_covers_every_field_and_is_part_of_the_identity(tmp_path: Path) -> None:
    assert len(shipped("nuggets").hash) == 64 and shipped("nuggets").hash != shipped("preferences").hash
    one, other = nuggets("x"), NuggetList("q1", QUERY, nuggets("x").nuggets, {"model": "m", "prompt": "p"})
    assert one.id != other.id != nuggets("y").id
