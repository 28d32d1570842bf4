"""Evaluation: collections read strictly, measures against hand-computed values, systems on a corpus that shows them."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import InputError, MalformedInput
from trainer.evaluation.collection import Collection, read_collection, read_qrels, read_run
from trainer.evaluation.measures import compare, per_query, randomisation_test, wins_and_losses
from trainer.evaluation.systems import bm25_run, cross_encoder_run

QRELS = {"q1": {"a": 1, "b": 2}, "q2": {"c": 1}}


def written(folder: Path, name: str, rows: list[object], *, packed: bool = False) -> Path:
    path = folder / name
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def test_a_folder_in_beirs_layout_is_read_and_unjudged_queries_are_left_out(tmp_path: Path) -> None:
    written(
        tmp_path, "corpus.jsonl.gz", [{"_id": "a", "title": "T", "text": "x"}, {"_id": "b", "text": "y"}], packed=True
    )
    queries = written(tmp_path, "queries.jsonl", [{"_id": "q1", "text": "one"}, {"_id": "q9", "text": "unjudged"}])
    qrels = written(tmp_path, "dev.tsv", ["query-id\tcorpus-id\tscore", "q1\ta\t1", "q1\tb\t0"])
    collection = read_collection(tmp_path, queries, qrels)
    assert collection.texts == ["T\nx", "y"]
    assert collection.queries == {"q1": "one"}
    assert collection.qrels == {"q1": {"a": 1, "b": 0}}


def test_trec_files_are_read_too(tmp_path: Path) -> None:
    assert read_qrels(written(tmp_path, "qrels.txt", ["q1 0 a 2"])) == {"q1": {"a": 2}}
    assert read_run(written(tmp_path, "run.txt", ["q1 Q0 a 1 3.5 bm25"])) == {"q1": {"a": 3.5}}


@pytest.mark.parametrize("line", ["q1 a", "q1\ta\thigh", "1 2 3 4 5"])
def test_a_bad_line_of_qrels_is_named(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, "qrels.tsv", ["query-id\tcorpus-id\tscore", line])
    with pytest.raises(MalformedInput, match=r"qrels\.tsv:2"):
        read_qrels(path)


def test_queries_and_qrels_of_two_collections_are_refused(tmp_path: Path) -> None:
    corpus = written(tmp_path, "corpus.jsonl", [{"_id": "a", "text": "x"}])
    queries = written(tmp_path, "queries.jsonl", [{"_id": "q1", "text": "one"}])
    with pytest.raises(MalformedInput, match="of one collection"):
        read_collection(corpus, queries, written(tmp_path, "qrels.txt", ["other 0 a 1"]))


def test_measures_are_those_of_a_hand_computation_and_unanswered_queries_count_as_zero() -> None:
    values = per_query(QRELS, {"q1": {"x": 3.0, "a": 2.0, "b": 1.0}}, ["RR@5", "DCG@2", "DCG@5", "nDCG@5", "P@5"])
    gain = 1 / math.log2(3) + 2 / math.log2(4)
    assert values["RR@5"].tolist() == [0.5, 0.0]
    assert values["DCG@2"].tolist() == pytest.approx([1 / math.log2(3), 0.0])
    assert values["DCG@5"].tolist() == pytest.approx([gain, 0.0])
    assert values["nDCG@5"].tolist() == pytest.approx([gain / (2 + 1 / math.log2(3)), 0.0])
    assert values["P@5"].tolist() == [0.4, 0.0]


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(InputError, match="names of ir-measures"):
        per_query(QRELS, {}, ["MAP_at_last"])


def test_the_randomisation_test_counts_every_assignment_of_signs() -> None:
    """All six differences are positive: 2 of the 64 assignments are as far from 0."""
    assert randomisation_test(np.array([1.0, 2, 3, 4, 5, 6]), n=20_000) == pytest.approx(2 / 64, abs=0.005)
    assert randomisation_test(np.zeros(10)) == 1.0


def test_a_comparison_says_who_won_how_often_and_by_how_much() -> None:
    old, new = np.array([0.5, 0.5, 0.2, 0.4]), np.array([1.0, 0.5, 0.1, 0.9])
    found = compare("RR@5", old, new)
    assert (found.wins, found.losses, found.ties) == (2, 1, 1)
    assert found.difference == pytest.approx(0.225)
    assert found.relative == pytest.approx(0.225 / 0.4)
    assert found.low <= found.difference <= found.high
    assert wins_and_losses(["a", "b", "c", "d"], old, new)["losses"] == [("c", 0.2, 0.1)]


def collection() -> Collection:
    texts = ["a cat sleeps on the mat", "dogs bark at night", "the cat chases a mouse"]
    return Collection(["d1", "d2", "d3"], texts, {"q1": "what does a dog do?", "q2": "zzz"}, {"q1": {"d2": 1}})


def test_bm25_finds_by_stems_and_gives_nothing_where_no_term_is_known() -> None:
    assert bm25_run(collection()) == {"q1": {"d2": pytest.approx(bm25_run(collection())["q1"]["d2"])}, "q2": {}}


class Lengths:
    """A cross-encoder that likes short passages."""

    def predict(self, pairs: list[tuple[str, str]], **_: object) -> list[float]:
        return [-float(len(text)) for _, text in pairs]


def test_a_cross_encoder_orders_the_head_of_a_run_and_drops_the_rest() -> None:
    first = {"q1": {"d1": 3.0, "d3": 2.0, "d2": 1.0}}
    assert cross_encoder_run(collection(), Lengths(), first, depth=2) == {"q1": {"d1": -23.0, "d3": -22.0}}
