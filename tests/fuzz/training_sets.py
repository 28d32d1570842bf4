"""Training sets of other libraries, read and written again as `qrelay relabel` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qrelay.formats.training.beir import BeirFolder
from qrelay.formats.training.detect import open_training_set
from qrelay.formats.training.example import Decided, Decision
from tests.fuzz.parser import Parser, beside, constant, file, written, zipped

_LINES: Final = constant(
    '{"query": "q", "pos": ["p"], "neg": ["n1", "n2"], "neg_id": [7, 8], "prompt": "x", "source": "s"}\n',
    '{"query_id": 7, "query": "q", "positive_passages": [{"docid": "d1", "title": "t", "text": "p"}],'
    ' "negative_passages": [{"docid": "d2", "text": "n1"}, {"text": "n2"}], "subset": "nq"}\n',
    '{"anchor": "q", "positive": "p", "negative_1": "n1", "negative_2": "n2"}\n',
    '{"sentence1": "q", "sentence2": "p", "score": 0.8}\n',
    '{"query": "q", "docs": ["p", "n1"], "labels": [1, 0]}\n',
)
_IDS: Final = constant(
    '{"query_id": 1, "query_text": "q", "positive_document_ids": ["d1"], "negative_document_ids": ["d2"]}\n'
)
_CORPUS: Final = '{"_id": "d1", "title": "t", "text": "one"}\n{"docid": "d2", "text": "two"}\n'
_QUERIES: Final = '{"_id": "q1", "text": "a"}\nq2\tb\n'
_QRELS: Final = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n"


class _Nowhere:
    def write(self, data: bytes, /) -> None:
        """Goes nowhere."""


def _read(source: Path, **options: Any) -> None:
    """Every row, with one of its negatives dropped and one promoted, written again."""
    found = open_training_set(str(source), **options)
    writer = None
    try:
        for row, example in found.examples():
            yes = tuple(Decision(True, True, 0.9) for _ in example.positives)
            no = tuple(Decision(place % 3 == 1, place % 3 != 0, 0.5) for place in range(len(example.negatives)))
            for each in found.layout.cleaned(row, Decided(yes, no)):
                sink: Any = (lambda _: _Nowhere()) if isinstance(found.container, BeirFolder) else _Nowhere()
                writer = writer or found.container.writer(sink, each)
                writer.write(each)
        if writer:
            writer.close()
    finally:
        found.close()


def _parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = json.loads(_LINES(folder)[1])
    pq.write_table(pa.Table.from_pylist([row, row]), folder / "t.parquet")


def _with_texts(folder: Path) -> None:
    (folder / "corpus.jsonl").write_text(_CORPUS)
    (folder / "queries.jsonl").write_text(_QUERIES)


def _with_triples(folder: Path) -> None:
    _with_texts(folder)
    (folder / "ids.tsv").write_text("q1\td1\td2\n")


def _of_ids(name: str) -> Callable[[Path], None]:
    return lambda folder: _read(folder / name, corpus=folder / "corpus.jsonl", queries=folder / "queries.jsonl")


def _folder(folder: Path) -> None:
    _with_texts(folder)
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "a"}\n')
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / "train.tsv").write_text(_QRELS)
    (folder / "hard_negatives.jsonl").write_text('{"qid": "q1", "neg": {"bm25": ["d2"]}}\n')


PARSERS: Final = (
    Parser("training set", "jsonl", _LINES, file("train.jsonl", _read)),
    Parser("training set by gzip", "bytes", zipped(_LINES), file("train.jsonl.gz", _read)),
    Parser(
        "training set as a table",
        "lines",
        constant('query,positive,negative\n"a, b","one\ntwo",n\n', "anchor,positive,label\nq,p,1\n"),
        file("train.csv", _read),
    ),
    Parser("triples of MS MARCO", "lines", constant("q\tp\tn\n"), file("triples.tsv", _read)),
    Parser("training set in Parquet", "bytes", written("t.parquet", _parquet), file("train.parquet", _read), cost=3),
    Parser("training set of ids", "jsonl", _IDS, beside(_with_texts, "train.jsonl", _of_ids("train.jsonl"))),
    Parser("triples of ids", "lines", constant("q1\td1\td2\n"), beside(_with_texts, "ids.tsv", _of_ids("ids.tsv"))),
    Parser(
        "corpus of a training set",
        "jsonl",
        constant(_CORPUS, "d1\tone\nd2\ttwo\n"),
        beside(
            _with_triples,
            "corpus.jsonl",
            _of_ids("ids.tsv"),
        ),
    ),
    Parser(
        "queries of a training set",
        "jsonl",
        constant(_QUERIES),
        beside(
            _with_triples,
            "queries.jsonl",
            _of_ids("ids.tsv"),
        ),
    ),
    Parser("qrels of a training set", "lines", constant(_QRELS), beside(_folder, "qrels/train.tsv", _read)),
    Parser(
        "hard negatives",
        "jsonl",
        constant('{"qid": "q1", "pos": ["d1"], "neg": {"bm25": ["d2"]}}\n{"query_id": 2, "negatives": ["d2"]}\n'),
        beside(_folder, "hard_negatives.jsonl", _read),
    ),
)
