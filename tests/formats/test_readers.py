"""What is read, is read alike wherever it comes in: index, evaluation, judge, audit, labels, query generation."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import MalformedInput
from qrelay.formats.annotated_pairs import corpus_texts, read_annotated_pairs, read_beir
from qrelay.formats.beir import qrel_rows, read_collection, read_documents, read_qrels, read_queries
from qrelay.formats.documents import Run, nothing_shared
from qrelay.formats.lines import all_lines
from qrelay.formats.runs import read_run
from qrelay.index.corpus import read_corpus
from qrelay.judging.check.known import read_known
from qrelay.judging.querygen.passages import read_passages
from qrelay.labels.audit.evaluation import EvaluationSet
from qrelay.labels.importing import parse
from qrelay.training.data import read_examples

CORPUS = """{"_id": "d1", "title": "", "text": "où est le chat"}

{"id": 2, "contents": "dogs"}
{"docid": 3, "title": "T"}
"""
TEXTS = {"d1": "où est le chat", "2": "dogs", "3": "T"}
QUERIES = '{"_id": "q1", "text": "où"}\n{"qid": 2, "query": "what"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\t3\t-1\n2\t2\t1\n"
TREC = "q1 0 d1 2\nq1\t0\t3\t-1\n2 0 2 1\n"


def indexed(path: Path) -> dict[str, str]:
    def never(where: str, why: str) -> None:
        raise MalformedInput(f"{where}: {why}")

    return {each.doc_id: each.text for each in read_corpus(str(path), never)}


CORPUS_READERS: dict[str, Callable[[Path], Any]] = {
    "index": indexed,
    "eval": lambda path: dict(read_documents(path)),
    "querygen": lambda path: {each.passage_id: each.text for each in read_passages(path)},
    "audit": lambda path: dict(EvaluationSet(corpus=path).read_passages()),
}
QUERY_READERS: dict[str, Callable[[Path], Any]] = {
    "eval": lambda path: dict(read_queries(path)),
    "audit": lambda path: dict(EvaluationSet(queries=path).read_queries()),
}


def every(data: str) -> list[bytes]:
    """The data in the shapes that people have."""
    plain = data.encode()
    return [plain, b"\xef\xbb\xbf" + plain, plain.replace(b"\n", b"\r\n"), gzip.compress(plain)]


@pytest.mark.parametrize("reader", CORPUS_READERS)
def test_a_corpus_is_read_alike(tmp_path: Path, reader: str) -> None:
    for data in every(CORPUS):
        (tmp_path / "corpus.jsonl").write_bytes(data)
        assert CORPUS_READERS[reader](tmp_path) == TEXTS
    assert corpus_texts(tmp_path)[0] == ("", "où est le chat")


@pytest.mark.parametrize("reader", QUERY_READERS)
def test_queries_are_read_alike(tmp_path: Path, reader: str) -> None:
    for data in every(QUERIES):
        (tmp_path / "queries.jsonl").write_bytes(data)
        assert QUERY_READERS[reader](tmp_path) == {"q1": "où", "2": "what"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (rb'{"_id": "d2", "text": "cut \ud83d here"}', "lone surrogate"),
        ('{"_id": "d2", "text": "été"}'.encode("latin-1"), "not UTF-8"),
        (b'{"_id": "d2"}', "text"),
        (b'{"_id": 0.5, "text": "x"}', "_id must be text, not float"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"_id": 1e999, "text": "x"}', "_id must be text, not float"),
        (b'{"_id": true, "text": "x"}', "_id must be text, not bool"),
        (b'{"_id": ' + b"9" * 5000 + b', "text": "x"}', "a number of more digits than are read"),
        (b'{"_id": "d2", "_id": "d3", "text": "x"}', "the key '_id' occurs twice"),
        (rb'{"_id": "d\u0000", "text": "x"}', "NUL"),
        (b'{"_id": "d2", "text": {"en": "x"}}', "text"),
        (b'["d2", "x"]', "expected an object"),
    ],
)
@pytest.mark.parametrize("reader", [*CORPUS_READERS, "queries", "audit of queries"])
def test_a_line_that_is_no_record_is_named_by_file_and_line(
    tmp_path: Path, reader: str, data: bytes, said: str
) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(b'{"_id": "d1", "text": "fine"}\n\n' + data + b"\n")
    read = {**CORPUS_READERS, "queries": QUERY_READERS["eval"], "audit of queries": QUERY_READERS["audit"]}[reader]
    with pytest.raises(MalformedInput, match=rf"file\.jsonl:3: .*{said}"):
        read(path)


@pytest.mark.parametrize("qrels", [QRELS, TREC, QRELS.partition("\n")[2]], ids=["beir", "trec", "three columns"])
def test_the_same_qrels_are_read_everywhere(tmp_path: Path, qrels: str) -> None:
    corpus, queries, path = tmp_path / "corpus.jsonl", tmp_path / "queries.jsonl", tmp_path / "qrels"
    corpus.write_text(CORPUS)
    queries.write_text(QUERIES)
    for data in every(qrels):
        path.write_bytes(data)
        assert read_qrels(path) == {"q1": {"d1": 2, "3": -1}, "2": {"2": 1}}
        assert set(read_collection(corpus, queries, path).queries) == {"q1", "2"}
        pairs = read_beir(corpus, queries, path)
        assert [(each.query_id, each.passage_id, each.grade) for each in pairs] == [
            ("q1", "d1", 2),
            ("q1", "3", -1),
            ("2", "2", 1),
        ]
        assert read_known(path) == {"q1": ["d1"], "2": ["2"]}
        relevant = EvaluationSet(corpus=corpus, qrels=path).read_passages()
        assert [passage_id for passage_id, _ in relevant] == ["d1", "2"]
        imported = parse(path, "0-3", "ana", from_zero=True).overrides.values()
        assert [(each.query_id, each.passage_id, each.grade) for each in imported] == [
            ("q1", "d1", 2),
            ("q1", "3", 0),
            ("2", "2", 1),
        ]


def test_what_is_cut_by_words_is_bounded_where_there_are_no_blanks(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(f'{{"_id": "d", "title": "", "text": "{"糖尿病" * 5000}"}}\n')
    ((_, text),) = corpus_texts(tmp_path, max_words=10)
    assert text == ("糖尿病" * 5000)[:160]


def test_a_pair_with_two_grades_is_refused_by_every_evaluation(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(CORPUS)
    (tmp_path / "queries.jsonl").write_text(QUERIES)
    (tmp_path / "qrels").write_text(QRELS + "q1\td1\t0\n")
    files = (tmp_path / "corpus.jsonl", tmp_path / "queries.jsonl", tmp_path / "qrels")
    for read in (read_collection, read_beir):
        with pytest.raises(MalformedInput, match="qrels:5: q1 and d1 have another grade"):
            read(*files)


def test_annotated_pairs_and_training_data_come_compressed_too(tmp_path: Path) -> None:
    pairs = "query_id\tpassage_id\tgrade\tquery\ttitle\ttext\nq\td\t1\twhy\t\tso\n"
    example = '{"query_id": "q", "query": "why?", "positives": [], "negatives": []}\n'
    for data, row in zip(every(pairs), every(example), strict=True):
        (tmp_path / "pairs").write_bytes(data)
        (tmp_path / "examples").write_bytes(row)
        assert [each.grade for each in read_annotated_pairs(tmp_path / "pairs")] == [1]
        assert [each.query for each in read_examples([tmp_path / "examples"])] == ["why?"]


@pytest.mark.parametrize("reader", CORPUS_READERS)
@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"_id": "d", "title": null, "text": ["one", "two"]}', "one\ntwo"),
        ('{"docno": "d", "text": "", "contents": "real"}', "real"),
        ('{"_id": null, "id": "d", "title": "T", "text": "  "}', "T"),
        ('{"pid": "d", "content": "nul \\u0000 here", "metadata": {"score": NaN}}', "nul \ufffd here"),
        ('{"_id": "d", "text": "big", "n": 1e999, "m": 123456789012345678901234567890}', "big"),
    ],
)
def test_documents_of_others_are_read_alike(tmp_path: Path, reader: str, line: str, text: str) -> None:
    (tmp_path / "corpus.jsonl").write_text(line + "\n")
    found = CORPUS_READERS[reader](tmp_path)
    assert {key: value.removeprefix("T\n") for key, value in found.items()} == {"d": text}


@pytest.mark.parametrize("score", ["nan", "-inf", "inf", "1e999", "1_0", "high"])
def test_a_run_whose_score_is_no_finite_number_is_refused_with_its_line(tmp_path: Path, score: str) -> None:
    (tmp_path / "x.run").write_text(f"q1 Q0 a 1 0.1 t\nq1 Q0 b 2 {score} t\n")
    with pytest.raises(MalformedInput, match=rf"x\.run:2: the score '{score}' of b is no"):
        read_run(tmp_path / "x.run")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("q1 Q0 my doc 2 0.1 t", "expected `query Q0 document rank score tag`"),
        ("q1 Q0 a 2 0.1 t", "a is in the ranking of q1 twice"),
        ("q1 Q0 b\0 2 0.1 t", "NUL"),
    ],
)
def test_a_line_that_is_none_of_a_run_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "x.run").write_text(f"q1 Q0 a 1 0.1 t\n{line}\n")
    with pytest.raises(MalformedInput, match=rf"x\.run:2: .*{said}"):
        read_run(tmp_path / "x.run")


@pytest.mark.parametrize("grade", ["nan", "inf", "1e999", "1_0", "9" * 12, "9" * 5000])
def test_a_grade_that_no_ledger_holds_is_refused_with_its_line(tmp_path: Path, grade: str) -> None:
    (tmp_path / "x.qrels").write_text(f"q1 0 a 1\nq1 0 b {grade}\n")
    for number in (int, float):
        if number is float and grade[0] == "9":
            continue
        with pytest.raises(MalformedInput, match=r"x\.qrels:2: the grade "):
            list(qrel_rows(tmp_path / "x.qrels", number))


def test_a_line_of_grades_that_is_no_text_is_bad_and_the_others_are_taken(tmp_path: Path) -> None:
    (tmp_path / "x.qrels").write_bytes(b"q1 0 a 1\nq1 0 \xe9 1\nq1 0 b\0 1\nq1 0 c 0\n")
    found = parse(tmp_path / "x.qrels", "0-3", "ana")
    assert [(each.passage_id, each.grade) for each in found.overrides.values()] == [("a", 1), ("c", 0)]
    assert [each.number for each in found.bad] == [2, 3]


@pytest.mark.parametrize(("run", "queries"), [({}, 2), ({"q1": {"d1": 1.0}}, 1), ({"q9": {"d1": 1.0}}, 2)])
def test_queries_for_which_a_run_ranks_nothing_are_told(run: Run, queries: int) -> None:
    qrels = {"q1": {"d1": 1}, "q2": {"d2": 1}}
    said = nothing_shared(run, qrels, "the run", "the qrels")
    assert said == f"the run ranks nothing for {queries} of the 2 queries of the qrels ('q{3 - queries}', say)"
    assert not nothing_shared({"q1": {"d1": 1.0}, "q2": {"d3": 1.0}}, qrels, "the run", "the qrels")


def test_a_line_without_an_end_in_sight_is_refused_before_it_is_held(tmp_path: Path) -> None:
    bomb = tmp_path / "queries.jsonl"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        for _ in range(65):
            file.write(b"a" * (1 << 20))
    with pytest.raises(MalformedInput, match=r"queries\.jsonl:1: a line of more than 64 MiB"):
        list(all_lines(bomb))
