"""People's grades of documents, and ids that name a document for a passage or the other way round."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.labels.label import label
from qrelay.cli.labels.mine import mine
from qrelay.labels.exports.catalogue import QRELS
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import page
from qrelay.types import Graded, Missing
from tests.labels.builders import graded
from tests.labels.exporting import export_bytes
from tests.labels.test_by_document import documents_set

Run = Callable[..., Result]
DOCUMENTS: dict[str, Sequence[Graded | Missing]] = {
    "d3": [graded(1)],
    "d4": [graded(3), Missing("timeout")],
    "d5": [graded(0), graded(0)],
}


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    ledger.commit([documents_set("q1", DOCUMENTS)])
    yield ledger
    ledger.close()


@pytest.fixture
def run(opened: Ledger, tmp_path: Path) -> Run:
    """A command on a ledger with q1 and the judged passages d3#0, d4#0, d4#1, d5#0, d5#1."""

    def call(*words: str, code: int = 0, command: object = label) -> Result:
        environ = {name: None for name in os.environ if name.startswith("QRELAY_")}
        place = ("--ledger", str(tmp_path / "ledger.sqlite"), "--data-dir", str(tmp_path))
        found = CliRunner().invoke(command, [*words, *place], env=environ)  # type: ignore[arg-type]
        assert found.exit_code == code, (found.output, found.exception)
        return found

    return call


def grades(folder: Path, *lines: str) -> str:
    path = folder / "people.qrels"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def standing(ledger: Ledger) -> dict[str, int | None]:
    with ledger.snapshot() as snapshot:
        return {
            each.passage_id: each.grade for each in page(snapshot.connection, "docs", only_standing=True).overrides
        }


def test_a_documents_grade_is_that_of_its_passages_and_of_no_other_name(
    run: Run, opened: Ledger, tmp_path: Path
) -> None:
    file = grades(tmp_path, "q1 0 d3 3", "q1 0 d4 0", "q1 0 d5 -1", "q1 0 d99 3")
    found = run("import", file, "--collection", "docs", "--documents", "--author", "ana")
    assert standing(opened) == {"d3#0": 3, "d4#0": 0, "d4#1": 0, "d5#0": 0, "d5#1": 0}
    assert "5 imported" in found.output and "1 documents without a judged passage left out" in found.output
    written = b"".join(export_bytes(opened, "docs", QRELS, overrides=True, by="document"))
    assert written == b"q1 0 d3 3\nq1 0 d4 0\nq1 0 d5 0\n"


def test_a_higher_grade_of_a_document_with_several_judged_passages_is_a_bad_line_that_names_them(
    run: Run, opened: Ledger, tmp_path: Path
) -> None:
    file = grades(tmp_path, "q1 0 d3 3", "q1 0 d4 2")
    found = run("import", file, "--collection", "docs", "--documents", code=1)
    assert ":2:" in found.output and "'d4#0', 'd4#1'" in found.output
    assert standing(opened) == {}
    run("import", file, "--collection", "docs", "--documents", "--skip-bad", code=3)
    assert standing(opened) == {"d3#0": 3}


@pytest.mark.parametrize(
    ("line", "words", "told"),
    [
        ("q1 0 d3 3", (), "'d3' is a document, and its passages are 'd3#0'"),
        ("q1 0 d77 3", (), "'d77' is no passage_id, as 'd3#0', 'd4#0', 'd4#1' and 2 more are"),
        ("q1 0 d3#0 3", ("--documents",), "'d3#0' is a passage of the document 'd3'"),
    ],
)
def test_an_id_of_the_other_kind_is_a_bad_line_with_the_right_ids(
    run: Run, opened: Ledger, tmp_path: Path, line: str, words: tuple[str, ...], told: str
) -> None:
    found = run("import", grades(tmp_path, line), "--collection", "docs", *words, code=1)
    assert told in found.output and "nothing imported" in found.output
    assert standing(opened) == {}


def test_a_document_cannot_be_graded_as_a_passage_but_what_was_may_be_withdrawn(run: Run, opened: Ledger) -> None:
    pair = ("--collection", "docs", "--query-id", "q1", "--passage-id")
    refused = run("set", *pair, "d4", "--grade", "0", code=1)
    assert "'d4' is a document, and its passages are 'd4#0', 'd4#1'" in str(refused.exception)
    unknown = run("set", *pair, "d77", "--grade", "0", code=1)
    assert "'d77' is no passage_id, as 'd3#0'" in str(unknown.exception)
    assert "no candidate" in run("set", *pair, "d3#9", "--grade", "0").output, "another passage may be graded"
    from qrelay.labels.ledger import schema

    with opened.writing("an override of an earlier version") as connection:
        row = {"query_no": 1, "passage_id": "d4", "grade": 0, "scale": "0-3", "author": "ana", "note": ""}
        connection.execute(schema.overrides.insert(), [{**row, "set_us": 1, "change_no": 1}])
    run("withdraw", *pair, "d4")
    assert standing(opened) == {"d3#9": 0}


def test_grades_of_another_scale_go_through_a_map(run: Run, opened: Ledger, tmp_path: Path) -> None:
    file = grades(tmp_path, "q1 0 d3#0 4", "q1 0 d4#0 1", "q1 0 d5#0 5")
    asked = ("import", file, "--collection", "docs", "--scale-map")
    found = run(*asked, "1=0,2=1,3=2,4=3", "--skip-bad", code=3)
    assert "--scale-map says nothing of the grade 5" in found.output
    assert standing(opened) == {"d3#0": 3, "d4#0": 0}
    for wrong in ("1=0,2", "1=0,1=1", "1=7"):
        run(*asked, wrong, code=1)


def test_an_unknown_query_of_explain_is_told_those_that_there_are(run: Run) -> None:
    found = run("--collection", "docs", "--explain", "d4", command=mine, code=1)
    assert "q1" in str(found.exception)


def test_scripts_read_what_was_left_out(run: Run, tmp_path: Path) -> None:
    found = run("import", grades(tmp_path, "q1 0 d99 3"), "--collection", "docs", "--documents", "--json")
    assert json.loads(found.stdout)["unjudged"] == 1
