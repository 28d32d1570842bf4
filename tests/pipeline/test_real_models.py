"""The whole thing on real models: real documentation, real embedder, real LLM judge, real NATS, four processes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.pipeline.harness import Installation, called, qrelay

QUERIES = {
    "json": "How do I convert a JSON string into a Python object?",
    "shuffle": "How do I shuffle a list in place?",
}
ENVIRON = {
    "QRELAY_RERANKER__SAMPLE": "4",
    "QRELAY_RERANKER__SAMPLE_HEAD": "2",
    "QRELAY_RERANKER__KEEP": "20",
    "QRELAY_JUDGE__MODEL": "smollm2-135m-instruct",
}


def test_real_questions_get_real_labels_from_a_real_model(tmp_path: Path) -> None:
    index = tmp_path / "index"
    built = called("index", "build", "python-docs:json,random,shlex", "--collection", "pydocs", "--out", str(index),
                   "--json")  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["passages"] > 20
    lines = "".join(json.dumps({"query_id": i, "text": text}) + "\n" for i, text in QUERIES.items())
    with Installation(tmp_path / "data", {**ENVIRON, "QRELAY_RETRIEVER__INDEX_DIR": str(index)}) as installation:
        report = installation.run("feed", "-", "--collection", "pydocs", "--wait", stdin=lines)
        assert (report["committed"], report["dead"]) == (2, 0)
        qrels = [line.split() for line in installation.export("qrels", "pydocs").decode().splitlines()]
        state = installation.run("top", "--interval", "0.1")
        unknown = qrelay("feed", "-", "--collection", "pydoc", environ=installation.environ, stdin="a\tanything\n")
    assert {query_id for query_id, *_ in qrels} == set(QUERIES)
    assert all(int(grade) in range(4) for *_, grade in qrels)
    judged = {passage.split("#")[0] for query_id, _, passage, _ in qrels if query_id == "shuffle"}
    assert any("shuffle" in document for document in judged)
    assert state["judgments"]["graded"] == len(qrels) == 8
    assert state["prompt_tokens"] > 0
    assert unknown.returncode == 1 and "Did you mean 'pydocs'?" in unknown.stderr
