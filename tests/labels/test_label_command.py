"""`qrelay label`, as the command line runs it; files in and slices out."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.labels.label import label
from qrelay.errors import ConfigError, InputError, MalformedInput, UnknownCollection
from qrelay.formats.annotated_pairs import GradedPair, read_annotated_pairs
from qrelay.formats.annotated_pairs import write_annotated_pairs as write_judge_slice
from qrelay.labels.exports.catalogue import QRELS
from qrelay.labels.importing import BEIR, TREC, TSV, parse
from qrelay.labels.ledger import overrides
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride
from qrelay.types import Missing
from tests.labels.builders import OTHER_JUDGE, graded, judged_set, judgment, with_labels
from tests.labels.exporting import export_bytes, export_file

PAIR = ("--query-id", "q1", "--passage-id", "d0#0")
Run = Callable[..., Result]


@pytest.fixture
def run(ledger: Ledger, ledger_url: str, tmp_path: Path) -> Run:
    """`qrelay label` on a ledger with q1 and q2 of collection docs, each with d0#0 (3), d1#0 (0), d2#0 (missing)."""
    ledger.commit([judged_set("q1"), with_labels(judged_set("q2"), judgment("d0#0", graded(0), OTHER_JUDGE))])

    def call(*arguments: str, code: int = 0) -> Result:
        found = CliRunner().invoke(
            label,
            [*arguments, "--ledger", ledger_url, "--data-dir", str(tmp_path)],
            catch_exceptions=False,
            env={name: None for name in os.environ if name.startswith("QRELAY_")},
        )
        assert found.exit_code == code, found.output
        return found

    return call


def standing(ledger: Ledger) -> dict[tuple[str, str], tuple[int | None, str]]:
    with ledger.snapshot() as snapshot:
        rows = overrides.page(snapshot.connection, "docs", only_standing=True).overrides
    return {(row.query_id, row.passage_id): (row.grade, row.author) for row in rows}


def written(folder: Path, text: str, name: str = "labels") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_decision_is_set_listed_and_withdrawn(run: Run, ledger: Ledger) -> None:
    asked = ("--collection", "docs", *PAIR, "--author", "ana")
    assert run("set", *asked, "--grade", "1", "--note", "too old").output == "set\n"
    assert run("set", *asked, "--grade", "1").output == "stood already: nothing changed\n"
    assert standing(ledger) == {("q1", "d0#0"): (1, "ana")}
    assert "docs q1 d0#0: 1 on 0-3, by ana  too old" in run("list", "--query-id", "q1").output
    assert run("withdraw", *asked).output == "withdrawn\n"
    assert standing(ledger) == {}
    assert run("list", "--standing").output == "no overrides: none fits --standing\n"


def test_the_author_is_the_settings_one_or_else_the_user(run: Run, ledger: Ledger, tmp_path: Path) -> None:
    config = written(tmp_path, "sink: {override_author: the-team}", "q.yaml")
    run("set", "--collection", "docs", *PAIR, "--grade", "1", "--config", config)
    assert standing(ledger) == {("q1", "d0#0"): (1, "the-team")}
    run("set", "--collection", "docs", *PAIR, "--grade", "0")
    assert standing(ledger) == {("q1", "d0#0"): (0, getpass.getuser())}


def test_a_passage_that_is_no_candidate_is_set_and_said(run: Run, ledger: Ledger) -> None:
    out = run("set", "--collection", "docs", "--query-id", "q1", "--passage-id", "new#0", "--grade", "3").output
    assert "no candidate of the query" in out
    assert ("q1", "new#0") in standing(ledger)


def test_a_grade_outside_the_scale_is_refused(run: Run) -> None:
    with pytest.raises(InputError, match=r"grade 4 is outside the scale 0-3"):
        run("set", "--collection", "docs", *PAIR, "--grade", "4")


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    arguments = ["list", "--ledger", str(tmp_path / "none.sqlite"), "--data-dir", str(tmp_path)]
    with pytest.raises(ConfigError, match=r"none\.sqlite"):
        CliRunner().invoke(label, arguments, catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []


TREC_FILE = "q1 0 d0#0 1\nq2\t0\td1#0\t2\n\n"
BEIR_FILE = "query-id\tcorpus-id\tscore\nq1\td0#0\t1\nq2\td1#0\t2\n"
TSV_FILE = "\ufeffgrade\tpassage_id\tcolour\tquery_id\r\n1\td0#0\tred\tq1\r\n2\td1#0\t\tq2\r\n"


@pytest.mark.parametrize(
    ("text", "form"), [(TREC_FILE, TREC), (BEIR_FILE, BEIR), (TSV_FILE, TSV)], ids=["trec", "beir", "tsv"]
)
def test_a_file_is_imported_whatever_of_the_three_it_is(
    run: Run, ledger: Ledger, tmp_path: Path, text: str, form: str
) -> None:
    asked = ("import", written(tmp_path, text), "--collection", "docs", "--author", "ana", "--json")
    found = json.loads(run(*asked).output)
    assert (found["format"], found["written"]["added"], found["bad"]) == (form, 2, [])
    assert standing(ledger) == {("q1", "d0#0"): (1, "ana"), ("q2", "d1#0"): (2, "ana")}
    assert json.loads(run(*asked).output)["written"] == {"added": 0, "unchanged": 2, "not_candidates": 0}


def test_lines_may_name_their_own_author_and_note(run: Run, tmp_path: Path) -> None:
    text = "query_id\tpassage_id\tgrade\tauthor\tnote\nq1\td0#0\t1\tben\tout of date\nq1\td1#0\t1\t\t\n"
    run("import", written(tmp_path, text), "--collection", "docs", "--author", "ana")
    rows = json.loads(run("list", "--json").output)["overrides"]
    assert [(row["author"], row["note"]) for row in rows] == [("ben", "out of date"), ("ana", "")]
    assert run("list", "--author", "ben").output.count("\n") == 1


BAD = "q1 0 d0#0 1\nq1 0 d1#0 9\nq1 0 d1#0\nq9 0 d0#0 1\nq1 0 d2#0 two\nq1 0 d0#0 2\nq2 0 x#1 3\n"
PROBLEMS = ["2: grade 9", "3: 3 fields", "4: no query 'q9'", "5: 'two'", "6: the pair of line 1"]


def test_every_bad_line_is_named_and_nothing_is_imported(run: Run, ledger: Ledger, tmp_path: Path) -> None:
    path = written(tmp_path, BAD)
    found = run("import", path, "--collection", "docs", code=1)
    lines = found.stderr.splitlines()
    for line, problem in zip(lines, PROBLEMS, strict=False):
        number, words = problem.split(": ", 1)
        assert line.startswith(f"{path}:{number}: ") and words in line
    assert lines[len(PROBLEMS) :] == ["nothing imported: 5 bad lines; fix them, or use --skip-bad"]
    assert standing(ledger) == {}


def test_with_skip_bad_the_good_lines_are_imported_and_the_exit_code_says_so(
    run: Run, ledger: Ledger, tmp_path: Path
) -> None:
    found = run("import", written(tmp_path, BAD), "--collection", "docs", "--author", "a", "--skip-bad", code=3)
    assert "2 imported, 1 of them of passages that are no candidates" in found.stdout
    assert "5 bad lines skipped" in found.stdout
    assert standing(ledger) == {("q1", "d0#0"): (1, "a"), ("q2", "x#1"): (3, "a")}


def test_a_file_of_no_format_is_refused_naming_the_formats(tmp_path: Path) -> None:
    with pytest.raises(MalformedInput, match=r":1: no query_id, .*query-id, corpus-id, score, or TREC qrels"):
        parse(Path(written(tmp_path, "qid,pid,grade\nq1,d0#0,2\n")), "0-3", "ana")
    with pytest.raises(MalformedInput, match="is empty"):
        parse(Path(written(tmp_path, "")), "0-3", "ana")
    (tmp_path / "latin").write_bytes(b"q\xe9 0 d0#0 1\n")
    with pytest.raises(MalformedInput, match="latin:1: not UTF-8"):
        parse(tmp_path / "latin", "0-3", "ana")


def test_exported_qrels_are_imported_again_as_they_are(run: Run, ledger: Ledger, tmp_path: Path) -> None:
    export_file(ledger, "docs", QRELS, tmp_path / "qrels")
    run("import", str(tmp_path / "qrels"), "--collection", "docs")
    human = b"".join(export_bytes(ledger, "docs", QRELS, judge="human", overrides=True))
    assert human == (tmp_path / "qrels").read_bytes()


def test_a_slice_that_people_filled_in_is_imported_without_the_rows_that_they_left(
    run: Run, ledger: Ledger, tmp_path: Path
) -> None:
    pairs = [GradedPair("q1", f"d{i}#0", grade, "a query", "a title", "a text") for i, grade in enumerate([2, None])]
    write_judge_slice(tmp_path / "slice.tsv", pairs)
    out = run("import", str(tmp_path / "slice.tsv"), "--collection", "docs", "--author", "ana").output
    assert "1 imported" in out and "1 rows without a grade left out" in out
    assert standing(ledger) == {("q1", "d0#0"): (2, "ana")}


def record(ledger: Ledger, *wanted: tuple[str, str, int | None, str]) -> None:
    with ledger.writing("record overrides") as connection:
        said = [NewOverride(query_id, passage, grade, scale, "ana") for query_id, passage, grade, scale in wanted]
        overrides.add(connection, "docs", said, ledger.now_us())


def test_what_stands_is_written_as_a_slice_that_the_judge_reads(run: Run, ledger: Ledger, tmp_path: Path) -> None:
    record(ledger, ("q2", "d1#0", 0, "0-3"), ("q1", "d2#0", 3, "0-3"), ("q1", "d0#0", 1, "0-3"))
    record(ledger, ("q1", "d0#0", None, "0-3"), ("q1", "unsampled#0", 2, "0-3"), ("q2", "d1#0", 1, "0-3"))
    path = tmp_path / "people.tsv"
    out = run("list", "--collection", "docs", "--slice", str(path)).output
    assert "2 graded pairs on the scale 0-3; 1 have no text" in out
    assert read_annotated_pairs(path) == [
        GradedPair("q1", "d2#0", 3, "text of q1", "title of d2", "text 0 of d2"),
        GradedPair("q2", "d1#0", 1, "text of q2", "title of d1", "text 0 of d1"),
    ]


def test_a_slice_keeps_its_rows_whole_where_texts_hold_tabs_and_line_breaks(
    run: Run, ledger: Ledger, tmp_path: Path
) -> None:
    ledger.commit([judged_set("q3", text="one\ttwo\nthree\u2028four", outcomes=[graded(0)])])
    record(ledger, ("q3", "d0#0", 1, "0-3"))
    run("list", "--collection", "docs", "--slice", str(tmp_path / "people.tsv"))
    assert len((tmp_path / "people.tsv").read_text().split("\n")) == len(["header", "q3", "the end"])
    assert [pair.query for pair in read_annotated_pairs(tmp_path / "people.tsv")] == ["one\ttwo\nthree\u2028four"]


def test_a_slice_of_more_queries_than_a_page_is_whole_and_in_order(run: Run, ledger: Ledger, tmp_path: Path) -> None:
    ids = [f"m{number:03}" for number in range(130)]
    ledger.commit([judged_set(query_id, outcomes=[graded(0)]) for query_id in ids])
    record(ledger, *((query_id, "d0#0", 1, "0-3") for query_id in reversed(ids)))
    run("list", "--collection", "docs", "--slice", str(tmp_path / "people.tsv"))
    assert [pair.query_id for pair in read_annotated_pairs(tmp_path / "people.tsv")] == ids


def test_a_slice_holds_one_scale(run: Run, ledger: Ledger, tmp_path: Path) -> None:
    record(ledger, ("q1", "d0#0", 1, "0-3"), ("q1", "d1#0", 4, "1-4"))
    asked = ("list", "--collection", "docs", "--slice", str(tmp_path / "people.tsv"))
    with pytest.raises(InputError, match=r"scales 0-3, 1-4.*--scale"):
        run(*asked)
    assert json.loads(run(*asked, "--scale", "1-4", "--json").output)["rows"] == 1
    assert [pair.grade for pair in read_annotated_pairs(tmp_path / "people.tsv")] == [4]


def test_a_slice_without_a_row_is_not_written(run: Run, ledger: Ledger, tmp_path: Path) -> None:
    asked = ("list", "--collection", "docs", "--slice", str(tmp_path / "people.tsv"))
    with pytest.raises(InputError, match="docs has no override"):
        run(*asked)
    record(ledger, ("q1", "unsampled#0", 1, "0-3"))
    with pytest.raises(InputError, match=r"1 have none"):
        run(*asked)
    assert not (tmp_path / "people.tsv").exists()
    assert "--slice needs --collection" in run("list", "--slice", str(tmp_path / "people.tsv"), code=2).stderr


def test_lists_go_on_where_they_ended(run: Run, ledger: Ledger) -> None:
    record(ledger, *(("q1", f"p{number}", 1, "0-3") for number in range(3)))
    first = json.loads(run("list", "--limit", "2", "--json").output)
    second = json.loads(run("list", "--page-token", first["next_page_token"], "--json").output)
    assert [row["passage_id"] for row in (*first["overrides"], *second["overrides"])] == ["p0", "p1", "p2"]
    assert f"more overrides: --page-token {first['next_page_token']}" in run("list", "--limit", "2").output


def test_the_queue_shows_what_to_look_at_and_says_how_to_go_on(run: Run, ledger: Ledger) -> None:
    out = run("queue", "--collection", "docs", "--by", "disagreement").output
    assert "q2  d0#0  disagreement 1.000" in out and "passage: title of d0: text 0 of d0" in out
    first = json.loads(run("queue", "--collection", "docs", "--by", "uncertainty", "--limit", "3", "--json").output)
    assert len(first["pairs"]) == 3
    asked = ("queue", "--collection", "docs", "--by", "uncertainty", "--page-token", first["next_page_token"])
    rest = json.loads(run(*asked, "--json").output)
    assert rest["next_page_token"] == ""
    pairs = {(pair["query_id"], pair["passage_id"]) for pair in first["pairs"] + rest["pairs"]}
    assert pairs == {(query, passage) for query in ("q1", "q2") for passage in ("d0#0", "d1#0")}
    record(ledger, ("q2", "d0#0", 3, "0-3"))
    said = run("queue", "--collection", "docs", "--by", "disagreement").output
    assert said.startswith("no pairs: all 1 pairs of docs that judges differ on are reviewed")
    assert (
        "override: 3 on 0-3, by ana"
        in run("queue", "--collection", "docs", "--by", "disagreement", "--overridden").output
    )


def test_an_empty_queue_says_why(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    ledger.commit([
        judged_set("q1", collection="one"),
        with_labels(judged_set("q1", collection="same"), judgment("d0#0", graded(3), OTHER_JUDGE)),
        judged_set("q1", collection="none", outcomes=[Missing("error")]),
    ])  # fmt: skip

    def why(collection: str, by: str) -> str:
        asked = ["queue", "--collection", collection, "--by", by, "--ledger", ledger_url, "--data-dir", str(tmp_path)]
        return CliRunner().invoke(label, asked, catch_exceptions=False).stdout

    assert "only one judge (graded) has labelled one" in why("one", "disagreement")
    assert "agree on all 1 pairs" in why("same", "disagreement")
    assert "no label of none has a grade yet: 1 are missing (error)" in why("none", "uncertainty")
    with pytest.raises(UnknownCollection, match="Did you mean 'same'"):
        why("sme", "uncertainty")
