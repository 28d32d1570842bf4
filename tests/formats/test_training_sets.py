"""Training sets of other libraries: what they are is seen in their fields, and nothing of them is lost."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import InputError, MalformedInput
from qrelay.formats.training import FORMATS, detect
from qrelay.formats.training.beir import SCORES
from qrelay.formats.training.detect import TrainingSet, open_training_set
from qrelay.formats.training.example import Decided, Decision

KEEP_YES = Decision(True, True, 0.9)
KEEP_NO = Decision(False, True, 0.1)
DROPPED = Decision(False, False, 0.8)
PROMOTED = Decision(True, True, 0.8)

FLAG = {"query": "q", "pos": ["p"], "neg": ["n1", "n2"], "neg_id": [7, 8], "prompt": "Find: ", "type": "normal"}
TEVATRON = {
    "query_id": "7",
    "query": "q",
    "positive_passages": [{"docid": "d1", "title": "t", "text": "p"}],
    "negative_passages": [{"docid": "d2", "title": "", "text": "n1"}, {"docid": "d3", "text": "n2", "kind": "x"}],
    "subset": "nq",
}
TUPLE = {"anchor": "q", "positive": "p", "negative_1": "n1", "negative_2": "n2"}
TRIPLET = {"query": "q", "positive": "p", "negative": "n1"}
LIST = {"query": "q", "docs": ["n1", "p", "n2"], "labels": [0, 1, 0]}


def jsonl(folder: Path, *rows: Mapping[str, Any], name: str = "train.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def opened(path: Path, **options: Any) -> TrainingSet:
    return open_training_set(str(path), **options)


def texts(found: TrainingSet) -> list[tuple[str, list[str], list[str]]]:
    return [
        (each.query, [p.text for p in each.positives], [n.text for n in each.negatives])
        for _, each in found.examples()
    ]


def cleaned(path: Path, positives: Sequence[Decision], negatives: Sequence[Decision], **options: Any) -> Any:
    found = opened(path, **options)
    ((row, _),) = found.examples()
    return found.layout.cleaned(row, Decided(tuple(positives), tuple(negatives)))


@pytest.mark.parametrize(
    ("name", "row", "negatives"),
    [
        ("flagembedding", FLAG, ["n1", "n2"]),
        ("tevatron", TEVATRON, ["n1", "n2"]),
        ("st-ntuple", TUPLE, ["n1", "n2"]),
        ("st-triplet", TRIPLET, ["n1"]),
        ("st-pairs", {"anchor": "q", "positive": "p"}, []),
        ("st-pairs", {"sentence1": "q", "sentence2": "p", "score": 0.8}, []),
        ("st-labeled-list", LIST, ["n1", "n2"]),
    ],
)
def test_a_format_is_known_by_its_fields(
    tmp_path: Path, name: str, row: dict[str, Any], negatives: list[str]
) -> None:
    found = opened(jsonl(tmp_path, row))
    assert found.layout.name == name in FORMATS
    assert texts(found) == [("q", ["p"], negatives)]


def test_every_format_that_is_detected_is_offered_by_name() -> None:
    assert (*detect._MAKERS, "beir") == FORMATS


def test_a_data_set_that_a_row_names_is_its_source(tmp_path: Path) -> None:
    ((_, example),) = opened(jsonl(tmp_path, TEVATRON)).examples()
    assert (example.query_id, example.source) == ("7", "nq")
    assert [each.doc_id for each in example.negatives] == ["d2", "d3"]


def test_flagembedding_keeps_what_runs_beside_its_lists(tmp_path: Path) -> None:
    (row,) = cleaned(jsonl(tmp_path, FLAG), [KEEP_YES], [DROPPED, KEEP_NO])
    assert row == {**FLAG, "neg": ["n2"], "neg_id": [8], "pos_scores": [0.9], "neg_scores": [0.1]}


def test_a_promoted_negative_takes_its_id_and_its_score_along(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {**FLAG, "pos_id": [6]})
    (row,) = cleaned(path, [KEEP_YES], [PROMOTED, KEEP_NO])
    assert (row["pos"], row["pos_id"], row["pos_scores"]) == (["p", "n1"], [6, 7], [0.9, 0.8])
    assert (row["neg"], row["neg_id"], row["neg_scores"]) == (["n2"], [8], [0.1])


def test_tevatron_has_scores_within_its_passages(tmp_path: Path) -> None:
    (row,) = cleaned(jsonl(tmp_path, TEVATRON), [KEEP_YES], [DROPPED, KEEP_NO])
    assert row["positive_passages"] == [{"docid": "d1", "title": "t", "text": "p", "score": 0.9}]
    assert row["negative_passages"] == [{"docid": "d3", "text": "n2", "kind": "x", "score": 0.1}]
    assert row["subset"] == "nq"


def test_without_scores_what_is_kept_is_as_it_was(tmp_path: Path) -> None:
    for row in (FLAG, TEVATRON, TUPLE, LIST):
        negatives = [KEEP_NO, KEEP_NO]
        assert cleaned(jsonl(tmp_path, row), [KEEP_YES], negatives, scores="none") == [row]


def test_a_row_whose_negatives_are_all_gone_is_gone(tmp_path: Path) -> None:
    for row in (FLAG, TEVATRON, TUPLE):
        assert cleaned(jsonl(tmp_path, row), [KEEP_YES], [DROPPED, DROPPED]) == []
    assert cleaned(jsonl(tmp_path, FLAG), [DROPPED], [KEEP_NO, KEEP_NO]) == []


def test_an_ntuple_fills_the_column_of_a_dropped_negative(tmp_path: Path) -> None:
    (row,) = cleaned(jsonl(tmp_path, TUPLE), [KEEP_YES], [DROPPED, KEEP_NO])
    assert row == {**TUPLE, "negative_1": "n2", "scores": [0.9, 0.1, 0.1]}


def test_a_promoted_negative_of_an_ntuple_is_a_row_of_its_own(tmp_path: Path) -> None:
    rows = cleaned(jsonl(tmp_path, TUPLE), [KEEP_YES], [PROMOTED, KEEP_NO])
    assert [(row["positive"], row["scores"]) for row in rows] == [("p", [0.9, 0.1, 0.1]), ("n1", [0.8, 0.1, 0.1])]


def test_a_labeled_list_keeps_its_order(tmp_path: Path) -> None:
    path = jsonl(tmp_path, LIST)
    assert cleaned(path, [KEEP_YES], [DROPPED, KEEP_NO]) == [{"query": "q", "docs": ["p", "n2"], "labels": [1, 0]}]
    (row,) = cleaned(path, [KEEP_YES], [PROMOTED, KEEP_NO])
    assert row["labels"] == [1, 1, 0]
    (row,) = cleaned(path, [KEEP_YES], [KEEP_NO, KEEP_NO], scores="labels")
    assert row["labels"] == [0.1, 0.9, 0.1]
    assert cleaned(path, [KEEP_YES], [DROPPED, DROPPED]) == []


def test_the_label_of_a_pair_says_its_role(tmp_path: Path) -> None:
    pair = {"sentence1": "q", "sentence2": "n", "label": 0}
    path = jsonl(tmp_path, pair)
    assert texts(opened(path)) == [("q", [], ["n"])]
    assert cleaned(path, [], [DROPPED]) == []
    assert cleaned(path, [], [PROMOTED]) == [{**pair, "label": 1}]
    assert cleaned(path, [], [KEEP_NO], scores="labels") == [{**pair, "label": 0.1}]


def test_a_table_keeps_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('query,positive,negative\n"a, b","one\ntwo",n\n')
    found = opened(path)
    assert (found.layout.name, texts(found)) == ("st-triplet", [("a, b", ["one\ntwo"], ["n"])])
    assert written(found, path) == path.read_bytes()


def test_ms_marcos_triples_have_no_header(tmp_path: Path) -> None:
    path = tmp_path / "triples.tsv"
    path.write_text('what is "it"\tp one\tn one\n')
    found = opened(path)
    assert (found.layout.name, texts(found)) == ("msmarco", [('what is "it"', ["p one"], ["n one"])])
    assert written(found, path) == path.read_bytes()


def test_ids_are_looked_up(tmp_path: Path) -> None:
    triples, corpus, queries = (tmp_path / name for name in ("qidpidtriples.tsv", "collection.tsv", "queries.jsonl"))
    triples.write_text("7\t1\t2\n")
    corpus.write_text("1\tthe positive\n2\tthe negative\n")
    queries.write_text('{"_id": "7", "text": "what"}\n')
    found = opened(triples, corpus=corpus, queries=queries)
    assert (found.layout.name, texts(found)) == ("msmarco-ids", [("what", ["the positive"], ["the negative"])])
    with pytest.raises(InputError, match="--queries"):
        opened(triples, corpus=corpus)
    corpus.write_text("1\tthe positive\n")
    with pytest.raises(MalformedInput, match=r"qidpidtriples.tsv:1: document.*2"):
        texts(opened(triples, corpus=corpus, queries=queries))


def test_tevatrons_second_version_has_ids_and_a_corpus(tmp_path: Path) -> None:
    row = {"query_id": 1, "query_text": "q", "positive_document_ids": ["1"], "negative_document_ids": ["2", "3"]}
    corpus = jsonl(tmp_path, *({"docid": str(n), "text": f"text {n}"} for n in (1, 2, 3)), name="corpus.jsonl")
    path = jsonl(tmp_path, row)
    assert texts(opened(path, corpus=corpus)) == [("q", ["text 1"], ["text 2", "text 3"])]
    (found,) = cleaned(path, [KEEP_YES], [DROPPED, KEEP_NO], corpus=corpus)
    assert found["negative_document_ids"] == ["3"]
    assert (found["positive_document_scores"], found["negative_document_scores"]) == ([0.9], [0.1])
    with pytest.raises(InputError, match="--corpus"):
        opened(path)


def beir(folder: Path) -> Path:
    (folder / "qrels").mkdir()
    documents = ({"_id": f"d{n}", "title": "t", "text": f"text {n}"} for n in range(5))
    jsonl(folder, *documents, name="corpus.jsonl")
    jsonl(folder, {"_id": "q1", "text": "what"}, name="queries.jsonl")
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t2\nq1\td1\t0\n")
    hard = {"qid": "q1", "pos": ["d0"], "neg": {"bm25": ["d2", "d3"], "dense": ["d3"]}}
    jsonl(folder, hard, name="hard_negatives.jsonl")
    return folder


def test_a_beir_folder_has_judged_and_hard_negatives(tmp_path: Path) -> None:
    found = opened(beir(tmp_path))
    assert texts(found) == [("what", ["text 0"], ["text 1", "text 2", "text 3"])]
    files: dict[str, bytearray] = {}

    class Sink:
        def __init__(self, name: str) -> None:
            files[name] = bytearray()
            self.name = name

        def write(self, data: bytes, /) -> None:
            files[self.name] += data

    ((row, _),) = found.examples()
    decided = Decided((KEEP_YES,), (KEEP_NO, PROMOTED, DROPPED))
    writer = found.container.writer(Sink, row)  # type: ignore[arg-type]
    for each in found.layout.cleaned(row, decided):
        writer.write(each)
    writer.close()
    assert files["qrels/train.tsv"] == b"query-id\tcorpus-id\tscore\nq1\td0\t2\nq1\td2\t1\nq1\td1\t0\n"
    assert files["corpus.jsonl"] == (tmp_path / "corpus.jsonl").read_bytes()
    assert files[SCORES] == b"query-id\tcorpus-id\tscore\nq1\td0\t0.9\nq1\td2\t0.8\nq1\td1\t0.1\n"
    assert files["hard_negatives.jsonl"] == b""


class _Held(bytearray):
    def write(self, data: bytes, /) -> None:
        self.extend(data)


def written(found: TrainingSet, path: Path) -> bytes:
    """Every row of the set as its container writes it."""
    held = _Held()
    rows = [row for row, _ in found.examples()]
    writer = found.container.writer(held, rows[0])  # type: ignore[arg-type]
    for row in rows:
        writer.write(row)
    writer.close()
    assert path.is_file()
    return bytes(held)


def test_gzip_stays_gzip_and_letters_stay_letters(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl.gz"
    line = '{"query": "größe", "pos": ["p"], "neg": ["n"]}\n'.encode()
    path.write_bytes(gzip.compress(line))
    assert gzip.decompress(written(opened(path), path)) == line


def test_parquet_keeps_its_columns_and_gets_scores(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "train.parquet"
    table = pa.Table.from_pylist([TEVATRON, {**TEVATRON, "query": "second", "negative_passages": []}])
    pq.write_table(table, path)
    found = opened(path)
    rows = [row for row, _ in found.examples()]
    decided = Decided((KEEP_YES,), (KEEP_NO, DROPPED)), Decided((KEEP_YES,), ())
    held = _Held()
    out = [each for row, said in zip(rows, decided, strict=True) for each in found.layout.cleaned(row, said)]
    writer = found.container.writer(held, out[0])  # type: ignore[arg-type]
    for row in out:
        writer.write(row)
    writer.close()
    back = pq.read_table(pa.BufferReader(bytes(held)))
    assert back.schema.field("subset").type == pa.string()
    assert [each["score"] for each in back["positive_passages"].to_pylist()[0]] == [0.9]
    assert back["negative_passages"].to_pylist() == [
        [{"docid": "d2", "kind": None, "text": "n1", "title": "", "score": 0.1}],
        [],
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"query": "", "pos": ["p"], "neg": ["n"]}', "query is empty"),
        ('{"query": "q", "pos": [1], "neg": ["n"]}', "a passage must be text"),
        ('{"query": "q", "pos": ["p"], "neg": "n"}', "neg must be a list"),
        ('{"query": "q", "pos": ["\\ud800"], "neg": []}', "lone surrogate"),
        ("[1]", "an object a line"),
        ("nonsense", "not JSON"),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path: Path, row: str, words: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(FLAG) + "\n" + row + "\n")
    with pytest.raises(MalformedInput, match=rf"train.jsonl:2: .*{words}"):
        texts(opened(path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b'{"text": "x"}\n', "of no format that is known: its first row has text"),
        (b"a,b\n1,2,3\n", "3 fields for 2 columns"),
        (b"a\tb\n", "2 fields: a triple is"),
        (b'{"query": "q", "docs": ["a"], "labels": [1, 0]}\n', "1 docs, 2 labels"),
        (b'{"query": "q", "docs": ["a"], "labels": ["x"]}\n', "a finite number"),
    ],
)
def test_a_file_that_is_no_training_set_is_refused_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises(MalformedInput, match=words):
        texts(opened(path))


def test_a_format_that_is_named_must_fit(tmp_path: Path) -> None:
    path = jsonl(tmp_path, TRIPLET)
    assert opened(path, kind="st-triplet").layout.name == "st-triplet"
    with pytest.raises(MalformedInput, match="is not of the format flagembedding"):
        opened(path, kind="flagembedding")
    with pytest.raises(MalformedInput, match="does not exist"):
        opened(tmp_path / "absent.jsonl")
