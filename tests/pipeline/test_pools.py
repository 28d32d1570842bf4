"""From runs of other systems to qrels for their documents: services as processes, and a real nats-server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ir_measures
import pytest

from qrelay.feed.feeder import Feeder
from qrelay.feed.journal import Journal
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.reconcile.reconcile import reconcile
from qrelay.naming import document_of
from qrelay.runtime import faults
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import Queue
from tests.conftest import SHARED_DATA, eventually
from tests.feed.test_feeder import lines
from tests.feed.test_pools import reader, run, two_runs
from tests.pipeline.harness import DOUBLES, IMPATIENT, Installation, called
from tests.pipeline.test_pipeline import four_stages

DL19 = SHARED_DATA / "trec-dl19"
Written = dict[tuple[str, str], int]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("up"), {**DOUBLES, **IMPATIENT}) as running:
        yield running


def beir(folder: Path) -> tuple[Path, Path, Path]:
    """(queries, a folder of two runs, a corpus that lacks d2 and has one long document, d1)."""
    (folder / "runs").mkdir()
    run(folder / "runs" / "one.run", "one", q1=["d1", "d2", "d3"], q2=["d2"])
    run(folder / "runs" / "two.run", "two", q1=["d4", "d1"], q3=["d1"])
    long = " ".join(["filler"] * 300 + ["how do tides arise"] + ["filler"] * 300)
    texts = {"d1": long, "d3": "tides arise of the moon", "d4": "no word of it"}
    documents = [json.dumps({"_id": name, "text": text}) + "\n" for name, text in texts.items()]
    (folder / "corpus.jsonl").write_text("".join(documents))
    asked = {"q1": "how do tides arise", "q2": "waves", "q4": "nobody ranks this"}
    (folder / "queries.tsv").write_text("".join(f"{name}\t{text}\n" for name, text in asked.items()))
    return folder / "queries.tsv", folder / "runs", folder / "corpus.jsonl"


def qrels(installation: Installation, collection: str, path: Path) -> Written:
    """(query, document) -> grade, as ir_measures reads the export."""
    words = ("export", "qrels", "--by", "document", "--collection", collection, "--out", str(path), "--unmeasured")
    done = called(*words, environ=installation.environ)
    assert done.returncode == 0, done.stderr
    found: Any = ir_measures.read_trec_qrels(str(path))  # type: ignore[no-untyped-call]
    return {(each.query_id, each.doc_id): each.relevance for each in found}


def missing(installation: Installation, collection: str) -> dict[tuple[str, str], str | None]:
    """(query, document) -> reason of the labels that are missing."""
    ledger = Ledger.open(installation.folder / "ledger.sqlite")
    try:
        with ledger.snapshot() as snapshot:
            return {
                (query.query_id, document_of(label.passage_id)): label.missing_reason
                for query in snapshot.labelled_queries(collection)
                for label in query.labels
                if label.grade is None
            }
    finally:
        ledger.close()


def test_runs_of_other_systems_become_qrels_of_their_documents(installation: Installation, tmp_path: Path) -> None:
    queries, runs, corpus = beir(tmp_path)
    words = ("feed", str(queries), "--collection", "pooled", "--run", str(runs), "--corpus", str(corpus), "--wait")
    report = installation.run(*words)
    assert (report["pairs"], report["without_text"], report["committed"], report["exit"]) == (5, 2, 2, 3)
    assert "no run ranks anything for the query q4" in report["rejected"]["3"]
    again = installation.run(*words)
    assert (again["accepted"], again["known"], again["committed"]) == (0, 2, 2)
    written = qrels(installation, "pooled", tmp_path / "pooled.qrels")
    assert set(written) == {("q1", "d1"), ("q1", "d3"), ("q1", "d4")}, "what has no text is missing, never 0"
    assert written["q1", "d1"] > written["q1", "d4"], "the best passage of a long document decides"
    assert missing(installation, "pooled") == {("q1", "d2"): "filtered", ("q2", "d2"): "filtered"}
    state = installation.run("reconcile", "--collection", "pooled", "--pause", "0.1")
    assert (state["accepted"], state["committed"], state["unsound"], state["exit"]) == (2, 2, 0, 0)
    own = tmp_path / "own.run"
    done = called("export", "run", "--system", "two", "--by", "document", "--collection", "pooled", "--out", str(own),
                  environ=installation.environ)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.split()[::2] for line in own.read_text().splitlines()] == [["q1", "d4", "9"], ["q1", "d1", "8"]]


def test_what_an_engine_returned_is_judged_as_it_came(installation: Installation, tmp_path: Path) -> None:
    found = [{"doc_id": "a", "text": "tides arise", "score": 2.5}, {"doc_id": "b", "text": "nothing", "score": 1}]
    file = tmp_path / "candidates.jsonl"
    file.write_text(json.dumps({"query_id": "q1", "query": "how do tides arise", "candidates": found}) + "\n{}\n")
    words = ("feed", str(file), "--collection", "engine", "--format", "candidates", "--wait")
    report = installation.run(*words)
    assert (report["accepted"], list(report["rejected"]), report["committed"], report["exit"]) == (1, ["2"], 1, 3)
    assert set(qrels(installation, "engine", tmp_path / "q")) == {("q1", "a"), ("q1", "b")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--run", "{runs}"), "add --corpus"),
        (("--run", "{runs}", "--corpus", "{queries}", "--format", "candidates"), "give one of the two"),
        (("--corpus", "{corpus}"), "add --run, or --format candidates"),
        (("--depth", "3"), "--depth is about pools"),
        (("--format", "candidates", "--corpus", "{corpus}", "--follow"), "must be a whole file"),
    ],
)
def test_options_that_do_not_go_together_are_told_apart(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    queries, runs, corpus = beir(tmp_path)
    filled = [word.format(runs=runs, queries=queries, corpus=corpus) for word in words]
    done = called("feed", str(queries), "--collection", "docs", "--data-dir", str(tmp_path), *filled)
    assert done.returncode == 2 and said in done.stderr


def test_a_corpus_of_other_ids_is_refused_before_anything_is_fed(installation: Installation, tmp_path: Path) -> None:
    queries, runs, corpus = beir(tmp_path)
    corpus.write_text('{"_id": "x", "text": "other"}\n')
    done = called("feed", str(queries), "--collection", "none", "--run", str(runs), "--corpus", str(corpus),
                  environ=installation.environ)  # fmt: skip
    assert done.returncode == 1 and "holds none of 'd1', 'd2', 'd3'" in done.stderr


def test_a_feed_that_is_killed_between_queue_and_journal_goes_on_and_doubles_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    queries, runs, corpus = beir(tmp_path)
    words = ["feed", str(queries), "--collection", "killed", "--run", str(runs), "--corpus", str(corpus)]
    armed = tmp_path / "faults"
    armed.mkdir()
    (armed / "feed.record.before").write_text("1")
    environ = {**os.environ, **installation.environ, faults.VARIABLE: str(armed)}
    done = subprocess.run(
        [sys.executable, "-m", "qrelay.cli.main", *words], env=environ, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    report = installation.run(*words, "--wait")
    assert (report["accepted"], report["committed"], report["dead"]) == (2, 2, 0)
    state = installation.run("reconcile", "--collection", "killed", "--pause", "0.1")
    assert (state["committed"], state["duplicated"], state["unexpected"], state["unsound"]) == (2, 0, 0, 0)


async def test_a_pool_that_the_queue_lost_is_fed_again_from_the_journal_to_the_judge(
    nats_settings: Any, tmp_path: Path
) -> None:
    journal_path = tmp_path / "feed.sqlite"
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    async with await JetStreamBroker.connect(nats_settings, name="test", owner=True) as broker:
        with Journal(journal_path) as journal:
            feeder = Feeder(broker, journal, collection="docs", read=reader(two_runs(tmp_path)))
            await feeder.feed(lines("q1\tfirst", "q2\tsecond"))
        await broker._js.purge_stream(Queue.RERANKED.stream)
        lost = await reconcile(nats_settings, ledger, journal_path, "docs", repair=True, pause_s=0.05)
        assert (lost.lost, lost.reemitted, lost.unsound) == (2, 2, 0)
        found = await reconcile(nats_settings, ledger, journal_path, "docs", repair=False, pause_s=0.05)
        assert found.in_flight == {"reranked": 2}
    ledger.close()


async def test_a_later_round_joins_the_pools_of_a_query_in_the_ledger(broker: Any, tmp_path: Path) -> None:
    async with four_stages(broker, tmp_path) as cores:
        ledger = cores["sink"].ledger
        for number, depth in enumerate((1, 3)):
            with Journal(tmp_path / "feed") as journal:
                pools = reader(two_runs(tmp_path), depth)
                feeder = Feeder(broker, journal, collection="docs", query_round=number, read=pools)
                await feeder.feed(lines("q1\tfirst"))
            await eventually(lambda: ledger.query_states("docs", ["q1"], number).get("q1") == "committed")  # noqa: B023
        with ledger.snapshot() as snapshot:
            joined = snapshot.judged_set("docs", "q1")
    documents = {each.passage.doc_id for each in joined.candidate_set.candidates}
    assert documents == {"a", "b", "c", "d"} == {each.passage_id.removesuffix("#0") for each in joined.judgments}


@pytest.mark.skipif(not DL19.is_dir(), reason="TREC Deep Learning 2019 is not beside the checkout")
def test_thirty_seven_runs_of_trec_dl19_pooled_to_depth_10_become_qrels(
    installation: Installation, tmp_path: Path
) -> None:
    queries, runs = str(DL19 / "queries.jsonl"), str(DL19 / "runs")
    words = ("--collection", "dl19", "--run", runs, "--corpus", str(DL19), "--depth", "10")
    report = installation.run("feed", queries, *words, "--wait")
    assert (report["accepted"], report["committed"], report["dead"], report["exit"]) == (43, 43, 0, 0)
    assert (report["pairs"], report["without_text"]) == (2523, 19)
    assert len(missing(installation, "dl19")) == 19
    path = tmp_path / "dl19.qrels"
    assert len(qrels(installation, "dl19", path)) == 2523 - 19
    measured: Any = ir_measures.calc_aggregate(
        [ir_measures.Judged @ 10, ir_measures.nDCG @ 10],
        ir_measures.read_trec_qrels(str(path)),  # type: ignore[no-untyped-call]
        ir_measures.read_trec_run(str(DL19 / "runs" / "idst_bert_p1.run.gz")),  # type: ignore[no-untyped-call]
    )
    assert measured[ir_measures.Judged @ 10] > 0.99 and 0 < measured[ir_measures.nDCG @ 10] < 1
