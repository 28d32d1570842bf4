"""Evaluation: collections read strictly, measures against hand-computed values and trec_eval's."""

from __future__ import annotations

import math
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval

from qrelay.errors import InputError, MalformedInput
from qrelay.formats.beir import Qrels, Run, read_collection, read_qrels, read_queries
from qrelay.formats.runs import ranked, read_run, run_lines
from qrelay.training.evaluation.measures import STANDARD, per_query
from tests.training.beir import beir_folder, lines, qrels_file

SMALL = {"q1": {"a": 1, "b": 2}, "q2": {"c": 1}}
HEADER = "query-id\tcorpus-id\tscore"


def made_up(*, ties: bool) -> tuple[Qrels, Run]:
    """40 queries over 60 documents, grades 0 to 3; with `ties`, scores are whole numbers from 0 to 9."""
    random = np.random.default_rng(7)
    qrels: Qrels = {}
    run: Run = {}
    for q in range(40):
        judged, found = random.permutation(60)[:15], random.permutation(60)[:50]
        qrels[f"q{q}"] = {f"d{d}": int(random.integers(0, 4)) for d in judged}
        scores = random.integers(0, 10, 50).astype(float) if ties else random.random(50)
        run[f"q{q}"] = {f"d{d}": float(score) for d, score in zip(found, scores, strict=True)}
    return qrels, run


def test_a_folder_in_beirs_layout_is_read_and_unjudged_queries_are_left_out(tmp_path: Path) -> None:
    lines(
        tmp_path / "corpus.jsonl.gz",
        [{"_id": "a", "title": "T", "text": "x"}, {"_id": "b", "text": "y"}],
        packed=True,
    )
    queries = lines(tmp_path / "queries.jsonl", [{"_id": "q1", "text": "one"}, {"_id": "q9", "text": "unjudged"}])
    qrels = lines(tmp_path / "dev.tsv", [HEADER, "q1\ta\t1", "q1\tb\t0", "q1\tgone\t1"])
    collection = read_collection(tmp_path, queries, qrels)
    assert collection.texts == ["T\nx", "y"]
    assert collection.queries == {"q1": "one"}
    assert collection.qrels == {"q1": {"a": 1, "b": 0, "gone": 1}}
    assert collection.absent == 1


def test_a_query_counts_where_a_grade_reaches_the_least_relevant_one(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path)
    files = (folder, folder / "queries.jsonl", folder / "qrels" / "test.tsv")
    assert set(read_collection(*files).queries) == {"q1", "q2", "q3"}
    assert set(read_collection(*files, relevant_from=2).queries) == {"q2"}
    with pytest.raises(MalformedInput, match="grade 3 or more"):
        read_collection(*files, relevant_from=3)


def test_hashes_tell_collections_apart(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path)
    files = (folder, folder / "queries.jsonl", folder / "qrels" / "test.tsv")
    first = read_collection(*files)
    qrels_file(files[2], {"q1": {"d2": 1}, "q2": {"d1": 2, "d3": 1}, "q3": {"d4": 1, "d3": 1}})
    second = read_collection(*files)
    assert first.corpus_hash == second.corpus_hash
    assert first.hash != second.hash
    assert read_collection(*files, relevant_from=2).hash != second.hash


def test_trec_files_are_read_too_and_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_qrels(lines(tmp_path / "qrels.txt", ["q1 0 a 2"])) == {"q1": {"a": 2}}
    run = {"q1": {"a": 0.1 + 0.2, "b": -1.0}, "q2": {"c": 1e-9}}
    path = tmp_path / "run.txt"
    path.write_text("".join(run_lines(run, "mine")))
    assert path.read_text().splitlines()[0] == "q1 Q0 a 1 0.30000000000000004 mine"
    assert read_run(path) == run
    with pytest.raises(MalformedInput, match="blank"):
        list(run_lines({"q1": {"a b": 1.0}}, "mine"))


@pytest.mark.parametrize("line", ["q1 a", "q1\ta\thigh", "q1\ta\t0.5", "1 2 3 4 5", "q1\ta\t2"])
def test_a_bad_line_of_qrels_is_named(tmp_path: Path, line: str) -> None:
    path = lines(tmp_path / "qrels.tsv", [HEADER, "q1\ta\t1", line])
    with pytest.raises(MalformedInput, match=r"qrels\.tsv:3"):
        read_qrels(path)


@pytest.mark.parametrize("line", ["q1 Q0 a 1 3.5", "q1 Q0 a 1 high tag", "q1 Q0 z 2 1.0 tag"])
def test_a_bad_line_of_a_run_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(MalformedInput, match=r"run\.txt:2"):
        read_run(lines(tmp_path / "run.txt", ["q1 Q0 z 1 3.5 tag", line]))


@pytest.mark.parametrize("row", ['{"_id": "q2"}', '{"text": "two"}', '{"_id": "q1", "text": "again"}', "[1]", "{"])
def test_a_bad_line_of_queries_or_corpus_is_named(tmp_path: Path, row: str) -> None:
    path = lines(tmp_path / "queries.jsonl", [{"_id": "q1", "text": "one"}, row])
    with pytest.raises(MalformedInput, match=r"queries\.jsonl:2"):
        list(read_queries(path))
    corpus = lines(tmp_path / "corpus.jsonl", [{"_id": "q1", "text": "one"}, row])
    queries = lines(tmp_path / "q.jsonl", [{"_id": "q1", "text": "one"}])
    with pytest.raises(MalformedInput, match=r"corpus\.jsonl:2"):
        read_collection(corpus, queries, lines(tmp_path / "qrels.tsv", [HEADER, "q1\tq1\t1"]))


def test_files_of_two_collections_are_refused(tmp_path: Path) -> None:
    corpus = lines(tmp_path / "corpus.jsonl", [{"_id": "a", "text": "x"}])
    queries = lines(tmp_path / "queries.jsonl", [{"_id": "q1", "text": "one"}])
    with pytest.raises(MalformedInput, match="of one collection"):
        read_collection(corpus, queries, lines(tmp_path / "qrels.txt", ["other 0 a 1"]))
    with pytest.raises(MalformedInput, match="of one collection"):
        read_collection(corpus, queries, lines(tmp_path / "qrels.txt", ["q1 0 b 1"]))


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "queries.jsonl.gz", [{"_id": "q1", "text": "one"}] * 50, packed=True)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(MalformedInput, match=r"queries\.jsonl\.gz"):
        list(read_queries(path))


def test_measures_are_those_of_a_hand_computation_and_unanswered_queries_count_as_zero() -> None:
    values = per_query(SMALL, {"q1": {"x": 3.0, "a": 2.0, "b": 1.0}}, ["RR@5", "DCG@2", "DCG@5", "nDCG@5", "P@5"])
    gain = 1 / math.log2(3) + 2 / math.log2(4)
    assert values["RR@5"].tolist() == [0.5, 0.0]
    assert values["DCG@2"].tolist() == pytest.approx([1 / math.log2(3), 0.0])
    assert values["DCG@5"].tolist() == pytest.approx([gain, 0.0])
    assert values["nDCG@5"].tolist() == pytest.approx([gain / (2 + 1 / math.log2(3)), 0.0])
    assert values["P@5"].tolist() == [0.4, 0.0]


def test_every_measure_is_what_ir_measures_says_itself() -> None:
    qrels, run = made_up(ties=False)
    names = [name for name in STANDARD if not name.startswith("DCG")]
    values = per_query(qrels, run, names)
    said = {(str(m.measure), m.query_id): m.value for m in ir_measures.iter_calc(
        [ir_measures.parse_measure(name) for name in names], qrels, run)}  # fmt: skip
    for name in names:
        assert values[name].tolist() == pytest.approx([said[name, query_id] for query_id in sorted(qrels)])


def test_with_tied_scores_every_measure_is_trec_evals() -> None:
    qrels, run = made_up(ties=True)
    pairs = {"AP": "map", "nDCG@10": "ndcg_cut_10", "P@5": "P_5", "R@5": "recall_5", "RR@100": "recip_rank"}
    values = per_query(qrels, run, list(pairs))
    told = pytrec_eval.RelevanceEvaluator(qrels, {"map", "ndcg_cut", "P", "recall", "recip_rank"}).evaluate(run)
    for name, theirs in pairs.items():
        assert values[name].tolist() == pytest.approx([told[query_id][theirs] for query_id in sorted(qrels)])


def test_dcg_over_its_best_is_ndcg_also_with_ties() -> None:
    qrels, run = made_up(ties=True)
    best = {
        query_id: {doc_id: float(grade) for doc_id, grade in grades.items()} for query_id, grades in qrels.items()
    }
    got, ideal = (per_query(qrels, each, ["DCG@5", "nDCG@5"]) for each in (run, best))
    assert (got["DCG@5"] / ideal["DCG@5"]).tolist() == pytest.approx(got["nDCG@5"].tolist())


def test_two_names_of_one_measure_have_the_same_values() -> None:
    qrels, run = made_up(ties=False)
    values = per_query(qrels, run, ["MRR@5", "RR@5", "MAP", "AP"])
    assert values["MRR@5"].tolist() == values["RR@5"].tolist()
    assert values["MAP"].tolist() == values["AP"].tolist()
    assert values["RR@5"].any()


def test_the_least_relevant_grade_holds_for_measures_of_two_grades_only() -> None:
    run = {"q1": {"a": 2.0, "b": 1.0}, "q2": {"c": 1.0}}
    strict = per_query(SMALL, run, ["RR@5", "P@5", "nDCG@5", "RR(rel=1)@5"], relevant_from=2)
    assert strict["RR@5"].tolist() == [0.5, 0.0]
    assert strict["P@5"].tolist() == [0.2, 0.0]
    assert strict["RR(rel=1)@5"].tolist() == [1.0, 1.0]
    assert strict["nDCG@5"].tolist() == per_query(SMALL, run, ["nDCG@5"])["nDCG@5"].tolist()


def test_ties_are_broken_by_id_the_greater_first() -> None:
    assert ranked({"a": 1.0, "c": 1.0, "b": 2.0}) == ["b", "c", "a"]


@pytest.mark.parametrize("name", ["MAP_at_last", "DCG@0", "nDCG@", "P@x"])
def test_an_unknown_measure_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="names of ir-measures"):
        per_query(SMALL, {}, [name])
