"""`qrelay judge submit`, `collect` and `batches`: files of pairs judged by batches, again and again for one price."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from qrelay.cli.judge.group import judge
from qrelay.exitcodes import EXIT_PARTIAL
from qrelay.formats.annotated_pairs import GradedPair, write_annotated_pairs
from tests.judging.batch.dying import settings
from tests.judging.samples import COOKING, COPYTREE, LOCK
from tests.llm.batch_endpoint import BatchEndpoint, Plan

Run = Callable[..., Result]
TEXTS = {"a": COPYTREE, "b": LOCK, "c": COOKING}


@pytest.fixture
def endpoint() -> Iterator[BatchEndpoint]:
    with BatchEndpoint() as running:
        yield running


@pytest.fixture
def run(endpoint: BatchEndpoint, tmp_path: Path) -> Run:
    """A command of `qrelay judge` in an installation of its own."""
    own = settings(str(tmp_path / "cache.sqlite"), endpoint.url)
    section = own.model_dump(mode="json", include={"backend", "model", "cache", "endpoint"}, exclude_unset=True)
    (tmp_path / "qrelay.yaml").write_text(yaml.safe_dump({"judge": section}))

    def ran(*words: str) -> Result:
        given = [*words, "--config", str(tmp_path / "qrelay.yaml"), "--data-dir", str(tmp_path)]
        return CliRunner().invoke(judge, given, catch_exceptions=False)

    return ran


def pairs(form: str, folder: Path) -> list[str]:
    """The options that name three pairs of a query, as a file of this form."""
    if form == "slice":
        write_annotated_pairs(
            folder / "pairs.tsv", [GradedPair("q", name, None, "how", "", text) for name, text in TEXTS.items()]
        )
        return ["--slice", str(folder / "pairs.tsv")]
    if form == "candidates":
        found = [{"doc_id": name, "text": text} for name, text in TEXTS.items()]
        (folder / "c.jsonl").write_text(json.dumps({"query_id": "q", "query": "how", "candidates": found}) + "\n")
        return ["--candidates", str(folder / "c.jsonl")]
    documents = [json.dumps({"_id": name, "title": "", "text": text}) for name, text in TEXTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(documents) + "\n")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "how"}) + "\n")
    (folder / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q\t{name}\t1\n" for name in TEXTS))
    return ["--corpus", str(folder / "corpus.jsonl"), "--queries", str(folder / "queries.jsonl"),
            "--qrels", str(folder / "test.tsv")]  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("form", ["slice", "candidates", "beir"])
def test_pairs_are_ordered_once_collected_and_written(
    form: str, run: Run, endpoint: BatchEndpoint, tmp_path: Path
) -> None:
    given, out = pairs(form, tmp_path), tmp_path / "labels.jsonl"
    endpoint.default = Plan(polls=1 << 30)
    for _ in range(2):
        submitted = run("submit", *given)
        assert submitted.exit_code == 0
        assert "0 labels (0 from the cache), 3 answers on their way, 0 missing" in submitted.output
    early = run("collect", *given, "--out", str(out))
    assert (early.exit_code, read(out)) == (EXIT_PARTIAL, [])
    for batch in endpoint.batches.values():
        batch.plan.polls = 1
    for _ in range(2):
        done = run("collect", *given, "--out", str(out), "--wait", "--json")
        assert (done.exit_code, json.loads(done.stdout)["labels"]) == (0, 3)
    assert {each["passage_id"]: each["outcome"]["grade"] for each in read(out)} == {"a": 3, "b": 0, "c": 0}
    assert set(endpoint.paid.values()) == {1}
    (shown,) = json.loads(run("batches", "--json").stdout)["batches"]
    assert (shown["state"], shown["status"], shown["requests"], shown["tokens"]) == ("ended", "completed", 3, 150)
    assert "completed" in run("batches").output


def test_submit_may_wait_for_the_labels(run: Run, endpoint: BatchEndpoint, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    assert run("submit", *pairs("slice", tmp_path), "--wait", "--out", str(out)).exit_code == 0
    assert len(read(out)) == 3
    assert len(endpoint.batches) == 1


def test_collecting_orders_nothing(run: Run, endpoint: BatchEndpoint, tmp_path: Path) -> None:
    done = run("collect", *pairs("slice", tmp_path), "--out", str(tmp_path / "labels.jsonl"))
    assert (done.exit_code, endpoint.calls) == (EXIT_PARTIAL, [])
    assert "3 missing (3 unavailable)" in done.output


def test_a_batch_is_cancelled_by_its_name(run: Run, endpoint: BatchEndpoint, tmp_path: Path) -> None:
    endpoint.default = Plan(polls=1 << 30, carries=lambda place: place == 0)
    given = pairs("slice", tmp_path)
    run("submit", *given)
    (shown,) = json.loads(run("batches", "--json").stdout)["batches"]
    assert "no such batch" in run("batches", "--cancel", "other").output
    run("batches", "--cancel", shown["name"])
    done = run("collect", *given, "--out", str(tmp_path / "labels.jsonl"), "--wait")
    assert "1 labels (0 from the cache), 0 answers on their way, 2 missing" in done.output


def test_what_is_asked_wrongly_is_said(run: Run, tmp_path: Path) -> None:
    assert "give one of --slice" in run("submit").output
    (tmp_path / "c.jsonl").write_text('{"query_id": "q", "query": "how", "candidates": [{"doc_id": "a"}]}\n')
    with pytest.raises(Exception, match=r"c\.jsonl:1: candidate a has no text"):
        run("submit", "--candidates", str(tmp_path / "c.jsonl"))
