"""Rows of training data: each positive once an epoch, negatives round and round, padding that counts for nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qrelay.errors import ConfigError, MalformedInput
from trainer.data import Document, Example, as_dataset, expand, read_examples, rows_of
from trainer.losses.batch import PADDING


def example(positives: int, negatives: int) -> Example:
    return Example(
        "q1",
        "a query",
        tuple(Document(f"p{i}", 0.9 - i / 10) for i in range(positives)),
        tuple(Document(f"n{i}", 0.1) for i in range(negatives)),
    )


def test_every_positive_is_in_one_row_and_the_negatives_go_round() -> None:
    rows = list(rows_of([example(3, 4)], documents=4, max_positives=2))
    assert [texts for _, texts, _ in rows] == [["p0", "p1", "n0", "n1"], ["p2", "n2", "n3", "n0"]]
    assert rows[0][2][:4] == [1, 1, 0, 0]
    assert rows[0][2][4:8] == pytest.approx([0.9, 0.8, 0.1, 0.1])


def test_a_short_row_is_padded_and_a_negative_comes_once() -> None:
    ((_, texts, labels),) = rows_of([example(1, 2)], documents=5, max_positives=2)
    assert texts == ["p0", "n0", "n1", "", ""]
    assert labels[10:] == [0.0, 1.0, 2.0, PADDING, PADDING]


def test_equal_texts_have_one_key_across_queries() -> None:
    rows = list(rows_of([example(1, 1), example(1, 2)], documents=3, max_positives=1))
    assert rows[0][2][6] == rows[1][2][6]
    assert rows[1][2][8] not in rows[0][2][6:]


def test_an_export_is_read_as_the_retriever_reads_passages(tmp_path: Path) -> None:
    passage = {
        "passage_id": "d#0",
        "doc_id": "d",
        "title": "T",
        "text": "x",
        "grade": 2,
        "p_relevant": 0.7,
        "reason": "",
    }
    path = tmp_path / "triples.jsonl"
    path.write_text(json.dumps({"query_id": "q", "query": "why?", "positives": [passage], "negatives": []}) + "\n")
    (found,) = read_examples(expand([str(tmp_path / "*.jsonl")]))
    assert found.positives == (Document("T\nx", 0.7),)


def test_a_bad_line_and_an_empty_glob_are_named(tmp_path: Path) -> None:
    path = tmp_path / "triples.jsonl"
    path.write_text('{"query_id": "q"}\n')
    with pytest.raises(MalformedInput, match=r"triples\.jsonl:1"):
        list(read_examples([path]))
    with pytest.raises(ConfigError, match="qrelay export triples"):
        expand([str(tmp_path / "nothing*")])


def test_the_dataset_is_the_same_for_the_same_seed() -> None:
    rows = list(rows_of([example(5, 9)], documents=4, max_positives=1))
    first, again, other = (as_dataset(rows, seed=seed) for seed in (1, 1, 2))
    assert first.to_dict() == again.to_dict() != other.to_dict()
    assert first.column_names == ["query", "document_0", "document_1", "document_2", "document_3", "label"]
    with pytest.raises(ConfigError, match="no example"):
        as_dataset([], seed=1)
