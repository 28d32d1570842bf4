"""Evaluation queries and passages are found in the training data by their words, and nearly."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import InputError, MalformedInput
from qrelay.labels.audit.evaluation import EvaluationSet
from qrelay.labels.ledger.ledger import Ledger
from tests.labels.audit.sets import Row, commit, record, report, value
from tests.labels.audit.test_duplicates import altered, words
from tests.labels.builders import graded


def jsonl(path: Path, **texts: str) -> Path:
    data = "".join(json.dumps({"_id": name, "title": "", "text": text}) + "\n" for name, text in texts.items())
    path.write_bytes(gzip.compress(data.encode()) if path.suffix == ".gz" else data.encode())
    return path


@pytest.fixture
def trained(ledger: Ledger) -> Ledger:
    rows = (
        Row("pos", graded(3), " ".join(words(1)), 1, 1),
        Row("neg", graded(0), " ".join(words(2)), 2, 2),
        Row("far", graded(0), " ".join(words(3)), 60, 60),
    )
    commit(ledger, record("q1", *rows, text="What are the symptoms of glaucoma in adults?"))
    return ledger


def check(ledger: Ledger, **files: Path) -> dict[str, Any]:
    return report(ledger, evaluation=EvaluationSet(**files))


def test_the_same_query_and_a_near_one_leak_and_another_does_not(trained: Ledger, tmp_path: Path) -> None:
    queries = jsonl(
        tmp_path / "queries.jsonl.gz",
        same="what are the symptoms of Glaucoma in adults",
        near="What are the symptoms of glaucoma in adult?",
        other="How is glaucoma treated?",
    )
    found = check(trained, queries=queries)
    assert value(found, "leaked_queries") == value(found, "leakage") == 1
    assert found["checks"]["leakage"]["queries"] == {"count": 3, "leaked": 1, "same": 1, "near": 0}
    near = jsonl(tmp_path / "near.jsonl", near="What are the symptoms of glaucoma in adult?")
    assert check(trained, queries=near)["checks"]["leakage"]["queries"]["near"] == 1
    assert value(found, "leaked_passages") is None


def test_passages_leak_where_they_are_positives_or_negatives(trained: Ledger, tmp_path: Path) -> None:
    corpus = jsonl(
        tmp_path / "corpus.jsonl",
        positive=" ".join(words(1)).upper(),
        negative=altered(2, 1),
        untrained=" ".join(words(3)),
        other=" ".join(words(4)),
    )
    found = check(trained, corpus=tmp_path)
    counts = found["checks"]["leakage"]["passages"]
    trained_on = sum(found["checks"]["sources"]["negatives_by_reason"].values())
    assert (counts["count"], counts["near"]) == (4, 1)
    assert counts["leaked"] == 1 + trained_on
    assert corpus.exists()


def test_qrels_narrow_to_their_queries_and_relevant_passages(trained: Ledger, tmp_path: Path) -> None:
    queries = jsonl(tmp_path / "queries.jsonl", train="what are the symptoms of glaucoma in adults", test="other")
    corpus = jsonl(tmp_path / "corpus.jsonl", good=" ".join(words(1)), bad=" ".join(words(2)))
    for text in ("query-id\tcorpus-id\tscore\ntest\tgood\t1\ntest\tbad\t0\n", "test 0 good 1\ntest 0 bad 0\n"):
        (tmp_path / "qrels").write_text(text)
        leaks = check(trained, queries=queries, corpus=corpus, qrels=tmp_path / "qrels")["checks"]["leakage"]
        assert (leaks["queries"]["count"], leaks["queries"]["leaked"]) == (1, 0)
        assert (leaks["passages"]["count"], leaks["passages"]["leaked"]) == (1, 1)


def test_without_an_evaluation_set_leakage_is_not_measured(trained: Ledger) -> None:
    found = report(trained)
    assert found["figures"]["leakage"]["value"] is None
    assert "--eval-queries" in found["figures"]["leakage"]["why"]
    assert found["checks"]["leakage"] is None


def test_files_that_do_not_hold_fail_in_words(trained: Ledger, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"_id": "a", "text": "x"}\n{"id": 3}\n')
    with pytest.raises(MalformedInput, match=r"broken\.jsonl:2: no text"):
        check(trained, queries=tmp_path / "broken.jsonl")
    with pytest.raises(MalformedInput, match=r"no corpus\.jsonl"):
        check(trained, corpus=tmp_path)
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "a", "text": "b"}\n')[:-12])
    with pytest.raises(MalformedInput, match="is damaged after line"):
        check(trained, queries=tmp_path / "cut.jsonl.gz")
    (tmp_path / "qrels").write_text("nobody 0 nothing 0.5\nnobody 0 nothing else\n")
    with pytest.raises(MalformedInput, match=r"qrels:2: the grade 'else' is no number"):
        check(trained, queries=tmp_path / "broken.jsonl", qrels=tmp_path / "qrels")
    (tmp_path / "qrels").write_text("nobody 0 nothing 0.5\n")
    queries = jsonl(tmp_path / "queries.jsonl", q="x")
    with pytest.raises(InputError, match="nothing that the qrels name"):
        check(trained, queries=queries, qrels=tmp_path / "qrels")
