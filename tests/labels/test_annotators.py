"""Pairs go out to Label Studio and Argilla, and people's grades come back as any other decision. Their own libraries
read what we write in tests/integrations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.labels.label import label
from qrelay.errors import InputError, MalformedInput
from qrelay.formats.annotated_pairs import GradedPair, write_annotated_pairs
from qrelay.labels.importing import parse
from qrelay.labels.ledger import overrides
from qrelay.labels.ledger.ledger import Ledger
from tests.labels.builders import judged_set

Run = Callable[..., Result]
PAIRS = [GradedPair("q1", "d0#0", None, "how\tmany?", "T", "text"), GradedPair("q1", "d1#0", 1, "how?", "", "b")]


@pytest.fixture
def run(sqlite_ledger: Ledger, tmp_path: Path) -> Run:
    """`qrelay label` on a ledger with q1 of collection docs, which has d0#0, d1#0 and d2#0."""
    sqlite_ledger.commit([judged_set("q1")])

    def call(*arguments: str, code: int = 0) -> Result:
        environ = {name: None for name in os.environ if name.startswith("QRELAY_")}
        found = CliRunner().invoke(label, arguments, catch_exceptions=False, env=environ)
        assert found.exit_code == code, found.output
        return found

    return call


def grades(ledger: Ledger) -> list[tuple[str, int | None, str, str]]:
    with ledger.snapshot() as snapshot:
        rows = overrides.page(snapshot.connection, "docs").overrides
    return [(row.passage_id, row.grade, row.author, row.note) for row in rows]


def import_(run: Run, tmp_path: Path, items: Any, *options: str, code: int = 0) -> str:
    (tmp_path / "export.json").write_text(json.dumps(items))
    where = ("--collection", "docs", "--author", "ana", "--data-dir", str(tmp_path))
    return run("import", str(tmp_path / "export.json"), *where, *options, code=code).output


def task(passage_id: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"id": 31, "data": {"query_id": "q1", "passage_id": passage_id}, "annotations": [*annotations]}


def annotation(grade: object, by: object = 4, at: str = "2026-01-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    result = [{"from_name": "grade", "to_name": "text", "type": "choices", "value": {"choices": [grade]}}]
    return {"id": 7, "completed_by": by, "updated_at": at, "was_cancelled": False, "result": result, **more}


def record(passage_id: str, *grades: object, user: str = "u") -> dict[str, Any]:
    answers = [{"value": grade, "user_id": f"{user}{n}"} for n, grade in enumerate(grades)]
    responses = {"grade": answers, "note": [{"value": "unsure", "user_id": "u0"}]} if answers else {}
    return {"id": "r", "metadata": {"query_id": "q1", "passage_id": passage_id}, "responses": responses}


def test_label_studios_grades_are_decisions_of_their_authors_and_the_latest_stands(
    run: Run, sqlite_ledger: Ledger, tmp_path: Path
) -> None:
    note = {"from_name": "note", "type": "textarea", "value": {"text": ["old", "page"]}}
    late = annotation("3", {"id": 5, "email": "eva@example.com"}, "2026-01-02T00:00:00Z")
    late["result"].append(note)
    said = import_(run, tmp_path, [task("d0#0", late, annotation("1")), task("d1#0")])
    assert "(label-studio): 2 imported" in said and "1 rows without a grade left out" in said
    assert grades(sqlite_ledger) == [
        ("d0#0", 1, "label-studio-4", ""),
        ("d0#0", 3, "eva@example.com", "old page"),
    ]
    again = import_(run, tmp_path, [task("d1#0", annotation("2", by=None))])
    assert "1 imported" in again and grades(sqlite_ledger)[-1] == ("d1#0", 2, "ana", "")


def test_argillas_grades_are_decisions_of_each_person(run: Run, sqlite_ledger: Ledger, tmp_path: Path) -> None:
    said = import_(run, tmp_path, [record("d0#0", "2", 1), record("d1#0")])
    assert "(argilla): 2 imported" in said and "1 rows without a grade left out" in said
    assert grades(sqlite_ledger) == [("d0#0", 2, "argilla-u0", "unsure"), ("d0#0", 1, "argilla-u1", "")]


def test_a_skipped_task_a_rating_and_a_number_are_read_as_they_are_meant(tmp_path: Path) -> None:
    rating, number = annotation("", by=1), annotation("", by=2)
    rating["result"][0]["value"] = {"rating": 3}
    number["result"][0]["value"] = {"number": 0}
    items = [task("d0#0", annotation("2", was_cancelled=True), rating, number)]
    (tmp_path / "export.json").write_text("\ufeff" + json.dumps(items, indent=2))
    found = parse(tmp_path / "export.json", "0-3", "ana")
    assert (found.ungraded, [each.grade for each in found.overrides.values()]) == (1, [3, 0])


def test_one_bad_annotation_keeps_all_of_them_out_and_each_is_named(
    run: Run, sqlite_ledger: Ledger, tmp_path: Path
) -> None:
    two = annotation("1")
    two["result"][0]["value"]["choices"] = ["1", "2"]
    items = [
        task("d0#0", annotation("2"), annotation("good", by=5), annotation("9", by=6), two),
        {"id": 32, "annotations": []},
        {"id": 33, "data": {"query_id": "q1"}, "annotations": [annotation("1")]},
        task("d2#0", annotation({"a": 1})),
        task("d2#0", annotation("1"), annotation("2")),
        {"id": 34, "data": {"query_id": "q9", "passage_id": "d0#0"}, "annotations": [annotation("1")]},
        7,
    ]
    said = import_(run, tmp_path, items, code=1)
    for words in (
        "export.json:2: the grade 'good' is no integer",
        "export.json:3: override of query 'q1' and passage 'd0#0': grade 9 is outside the scale 0-3",
        "export.json:4: task 31, annotation 7: 2 choices",
        "export.json:5: task 32: data is no object",
        "export.json:6: task 33: data has no passage_id",
        "export.json:7: task 31, annotation 7: the grade is no number",
        "export.json:9: the pair of line 8 again with another grade",
        "export.json:10: the ledger holds no query 'q9'",
        "export.json:11: item 7 is no object",
    ):
        assert words in said, said
    assert "nothing imported: 9 bad lines" in said
    assert grades(sqlite_ledger) == []
    import_(run, tmp_path, items, "--skip-bad", code=3)
    assert len(grades(sqlite_ledger)) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "not JSON"),
        ("[]", "not of Label Studio's tasks"),
        ('[{"text": "x"}]', "export from Label Studio as JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_list_of_something_else_is_refused_with_the_way_to_export(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(MalformedInput, match=words):
        parse(tmp_path / "export.json", "0-3", "ana")


@pytest.mark.parametrize("tool", ["label-studio", "argilla"])
def test_tasks_hold_every_pair_and_no_grade_and_overwrite_nothing(run: Run, tmp_path: Path, tool: str) -> None:
    write_annotated_pairs(tmp_path / "to-grade.tsv", PAIRS)
    asked = ("tasks", str(tmp_path / "to-grade.tsv"), "--for", tool, "--out", str(tmp_path / "out"))
    assert f"2 pairs to grade in {tool}" in run(*asked).output
    items = json.loads((tmp_path / "out" / ("tasks.json" if tool == "label-studio" else "records.json")).read_text())
    shown = [each.get("data") or each["fields"] for each in items]
    assert [(each["query"], each["title"], each["text"]) for each in shown] == [
        ("how\tmany?", "T", "text"),
        ("how?", "", "b"),
    ]
    assert not any("grade" in each for each in shown)
    with pytest.raises(InputError, match="choose another --out"):
        run(*asked)
