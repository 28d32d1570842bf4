"""Documents and passages in evaluation: manifests say what is relevant, passages fold, and nothing is 0 unsaid."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.eval.group import evaluate_command
from qrelay.errors import ConfigError, MalformedInput
from qrelay.formats.annotated_pairs import read_beir
from qrelay.formats.beir import read_collection
from qrelay.formats.documents import fold_qrels, fold_run
from qrelay.labels.exports.splits import parse_splits
from qrelay.labels.ledger.ledger import Ledger
from qrelay.naming import absent, document_of, passage_name
from qrelay.training.evaluation.manifests import relevant_from
from tests.labels.builders import JUDGE, graded, judged_set
from tests.labels.exporting import export_file
from tests.training.beir import CORPUS, beir_folder, lines, qrels_file


def call(*words: object, code: int = 0) -> Result:
    found = CliRunner().invoke(evaluate_command, [str(word) for word in words])
    assert found.exit_code == code, (found.output, found.exception)
    return found


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    return beir_folder(tmp_path / "beir")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """q1 to q3 about d0 to d3 on the scale 1-4, with the grades 4, 2, 1 and 3."""
    judge = dataclasses.replace(JUDGE, scale="1-4")
    outcomes = [graded(each, min_grade=1) for each in (4, 2, 1, 3)]
    with closing(Ledger.open(tmp_path / "ledger.sqlite")) as opened:
        opened.commit([judged_set(f"q{n}", f"what is {n}?", outcomes, judge=judge) for n in (1, 2, 3)])
        yield opened


def test_one_rule_goes_from_a_passage_to_its_document() -> None:
    assert document_of(passage_name("486", 2)) == "486"
    assert document_of("page#part#3") == "page#part"
    assert [document_of(each) for each in ("page", "page#part", "#3", "page#03", "page#")] == [
        "page", "page#part", "#3", "page#03", "page#",
    ]  # fmt: skip


def test_what_is_absent_is_told_with_the_ids_that_are_there() -> None:
    assert "'486#2' is a passage" in absent("486#2", {"486": ""}, "corpus.jsonl")
    assert "'486#0', '486#1'" in absent("486", ["486#0", "486#1", "7#0"], "corpus.jsonl")
    assert "'a', 'b', 'c' and 1 more" in absent("x", ["a", "b", "c", "d"], "corpus.jsonl")


@pytest.mark.parametrize("kind", ["qrels", "beir", "ir_datasets", "splits"])
def test_an_exports_manifest_says_from_which_grade_on_relevant_is(ledger: Ledger, tmp_path: Path, kind: str) -> None:
    splits = parse_splits("train=0.5,dev=0.5", "query") if kind == "splits" else None
    export_file(
        ledger, "docs", "qrels" if splits else kind, tmp_path / "out", by="document", splits=splits, unmeasured=True
    )
    files = {"qrels": "out", "beir": "out/qrels/test.tsv", "ir_datasets": "out/qrels.txt", "splits": "out/dev.qrels"}
    found, remark = relevant_from(None, tmp_path / files[kind])
    assert found == 2, "3 of 1-4, counted from 0"
    assert "scale 1-4" in remark
    assert relevant_from(2, tmp_path / files[kind]) == (2, "")
    given, remark = relevant_from(1, tmp_path / files[kind])
    assert given == 1 and "--relevant-from 1 is used" in remark and "says 2" in remark


def test_another_relevant_grade_of_the_settings_is_in_the_manifest(ledger: Ledger, tmp_path: Path) -> None:
    from qrelay.labels.mining.rules import MiningRules

    rules = MiningRules(relevant_grades={"1-4": 4})
    export_file(ledger, "docs", "qrels", tmp_path / "out", rules=rules)
    assert relevant_from(None, tmp_path / "out")[0] == 3


def test_qrels_that_changed_since_their_export_need_a_word(ledger: Ledger, tmp_path: Path) -> None:
    export_file(ledger, "docs", "qrels", tmp_path / "out")
    with (tmp_path / "out").open("a") as file:
        file.write("q9 0 d1 1\n")
    with pytest.raises(ConfigError, match="other bytes"):
        relevant_from(None, tmp_path / "out")
    assert relevant_from(1, tmp_path / "out")[0] == 1


def test_qrels_of_no_export_are_relevant_from_1_and_another_tools_manifest_is_let_be(tmp_path: Path) -> None:
    path = qrels_file(tmp_path / "qrels" / "test.tsv", {"q1": {"d2": 1}})
    (tmp_path / "manifest.json").write_text('["not ours"]')
    assert relevant_from(None, path) == (1, "")


def test_eval_reads_the_manifest(ledger: Ledger, beir: Path, tmp_path: Path) -> None:
    export_file(ledger, "docs", "qrels", tmp_path / "out.qrels", by="document")
    found = call(
        "--corpus", beir, "--qrels", tmp_path / "out.qrels", "--model", "bm25", "--json-file", tmp_path / "json"
    )
    assert json.loads((tmp_path / "json").read_bytes())["facts"]["relevant_from"] == 2
    assert "relevant from grade 2" in found.output


def test_qrels_and_runs_of_passages_are_taken_by_document(beir: Path, tmp_path: Path) -> None:
    qrels = lines(tmp_path / "p.qrels", ["q1 0 d2#0 0", "q1 0 d2#1 1", "q2 0 d1 2", "q3 0 d4#0 1", "q3 0 d3#0 0"])
    run = lines(tmp_path / "own.run", ["q1 Q0 d3#4 1 9 t", "q1 Q0 d2#0 2 8 t", "q1 Q0 d2#7 3 7 t", "q2 Q0 d1 1 1 t"])
    found = call(
        "--corpus", beir, "--qrels", qrels, "--run", run, "--json-file", tmp_path / "json", "--measure", "RR@5"
    )
    assert "4 passages of the qrels stand for their documents" in found.output
    assert "3 passages of" in found.output
    document = json.loads((tmp_path / "json").read_bytes())
    assert dict(zip(document["query_ids"], document["per_query"]["RR@5"], strict=True)) == {
        "q1": 0.5,
        "q2": 1,
        "q3": 0,
    }


def test_a_document_graded_beside_a_better_passage_of_it_is_refused() -> None:
    assert fold_qrels({"q1": {"d1": 2, "d1#0": 1}}, {"d1"}) == ({"q1": {"d1": 2}}, 1)
    with pytest.raises(MalformedInput, match="keep one of the two"):
        fold_qrels({"q1": {"d1": 0, "d1#0": 2}}, {"d1"})
    assert fold_run({"q1": {"d1#0": 1.0, "d1#3": 4.0, "d2#1": 3.0}}, {"d1", "d2#1"}) == (
        {"q1": {"d1": 4.0, "d2#1": 3.0}}, 2,
    )  # fmt: skip


def test_qrels_of_documents_beside_a_corpus_of_passages_are_told_so(tmp_path: Path, beir: Path) -> None:
    corpus = lines(
        tmp_path / "corpus.jsonl", [{"_id": f"{name}#0", "text": text} for name, (_, text) in CORPUS.items()]
    )
    with pytest.raises(MalformedInput, match=r"'d2' is a document, and .* holds passages, as 'd2#0'"):
        read_collection(corpus, beir / "queries.jsonl", beir / "qrels" / "test.tsv")


def test_a_run_that_ranks_nothing_judged_is_told_with_ids(beir: Path, tmp_path: Path) -> None:
    run = lines(tmp_path / "other.run", ["q1 Q0 doc-7 1 9 t"])
    found = call("--corpus", beir, "--run", run)
    assert "ranks nothing that is judged: 'doc-7' is not in the qrels, which holds 'd2'" in found.output


def test_agreement_takes_all_by_document_where_some_is(tmp_path: Path) -> None:
    people = lines(tmp_path / "people.qrels", ["q1 0 a 1", "q1 0 b 0", "q2 0 a 1"])
    judge = lines(tmp_path / "judge.qrels", ["q1 0 a#0 0", "q1 0 a#3 1", "q1 0 b#0 0", "q2 0 a#1 1"])
    runs = [
        lines(tmp_path / "good.run", ["q1 Q0 a#1 1 9 t", "q1 Q0 b#0 2 8 t", "q2 Q0 a#0 1 9 t"]),
        lines(tmp_path / "bad.run", ["q1 Q0 b 1 9 t", "q1 Q0 a 2 8 t", "q2 Q0 c 1 9 t"]),
    ]
    words = [word for run in runs for word in ("--run", run)]
    out = tmp_path / "json"
    found = call(
        "agreement", "--qrels-a", people, "--qrels-b", judge, *words, "--measure", "RR@5", "--json-file", out
    )
    [measure] = json.loads(out.read_bytes())["measures"].values()
    assert {row["system"]: (row["a"], row["b"]) for row in measure["systems"]} == {
        "good": (1, 1),
        "bad": (0.25, 0.25),
    }
    assert "passages stand for theirs" in found.output


@pytest.mark.parametrize("names", [("_id", "text", "_id"), ("id", "contents", "qid"), ("docid", "body", "query_id")])
@pytest.mark.parametrize("number", [False, True])
def test_what_the_index_reads_is_evaluated_frozen_and_judged(
    tmp_path: Path, names: tuple[str, str, str], number: bool
) -> None:
    def identified(n: int) -> Any:
        return n if number else str(n)

    doc, text, query = names
    rows = [{doc: identified(1), "title": "the cat sleeps"}, {doc: identified(2), "title": "", text: "dogs run"}]
    lines(tmp_path / "corpus.jsonl", rows)
    lines(tmp_path / "queries.jsonl", [{query: identified(11), "text": "where does the cat sleep"}])
    qrels = qrels_file(tmp_path / "qrels" / "test.tsv", {"11": {"1": 2, "2": 0}})
    assert "bm25: 1 queries" in call("--corpus", tmp_path, "--model", "bm25").output
    call("freeze", "--corpus", tmp_path, "--labels", "gold", "--name", "it", "--out", tmp_path / "set")
    assert "bm25: 1 queries" in call("--corpus", tmp_path / "set", "--model", "bm25").output
    pairs = read_beir(tmp_path, tmp_path / "queries.jsonl", qrels)
    assert [(each.passage_id, each.grade, each.text) for each in pairs] == [
        ("1", 2, "the cat sleeps"),
        ("2", 0, "dogs run"),
    ]


def test_the_judges_evaluation_tells_passages_from_documents(beir: Path, tmp_path: Path) -> None:
    qrels = qrels_file(tmp_path / "p.tsv", {"q1": {"d2#1": 1}})
    with pytest.raises(MalformedInput, match=r"'d2#1' is a passage, and .* holds documents, as 'd2'"):
        read_beir(beir, beir / "queries.jsonl", qrels)
