"""SIGKILL of each service and of nats-server in the middle of a run: the exports do not show it.

On MedQuAD (documents through a real index with the hash double, dev queries, the judge faked) where the
collection is beside the checkout; on made documents otherwise.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import SHARED_DATA
from tests.pipeline.harness import COLLECTION, DOUBLES, IMPATIENT, Installation, called

DOCUMENTS, QUERIES = 600, 300
VICTIMS = ("retriever", "reranker", "judge", "sink", "nats")


def corpus_and_queries(folder: Path) -> tuple[Path, Path]:
    """A corpus of DOCUMENTS and a file of QUERIES, from MedQuAD where it is there."""
    medquad = SHARED_DATA / "medquad"
    corpus, queries = folder / "corpus.jsonl", folder / "queries.jsonl"
    if medquad.is_dir():
        for source, target, count in (
            (medquad / "corpus.jsonl.gz", corpus, DOCUMENTS),
            (medquad / "queries.dev.jsonl.gz", queries, QUERIES),
        ):
            with gzip.open(source, "rt", encoding="utf8") as lines:
                target.write_text("".join(line for _, line in zip(range(count), lines, strict=False)), "utf8")
        return corpus, queries
    draw = random.Random(7)
    words = [f"word{n}" for n in range(500)]
    texts = [draw.choices(words, k=60) for _ in range(DOCUMENTS)]
    documents = ({"_id": f"d{n}", "title": f"thing {n}", "text": " ".join(text)} for n, text in enumerate(texts))
    asked = ({"query_id": f"q{n}", "text": " ".join(texts[n * DOCUMENTS // QUERIES][:6])} for n in range(QUERIES))
    for target, rows in ((corpus, documents), (queries, asked)):
        target.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return corpus, queries


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The queries, and the environment of an installation that serves the corpus with doubles for models."""
    folder = tmp_path_factory.mktemp("corpus")
    corpus, queries = corpus_and_queries(folder)
    built = called("index", "build", str(corpus), "--collection", COLLECTION, "--out", str(folder / "index"),
                   "--embedder", "hash")  # fmt: skip
    assert built.returncode == 0, built.stderr
    environ = {**DOUBLES, **IMPATIENT, "QRELAY_RETRIEVER__ENGINE": "embedded",
               "QRELAY_RETRIEVER__INDEX_DIR": str(folder / "index"), "QRELAY_RETRIEVER__EMBEDDER": "hash",
               "QRELAY_RERANKER__SCORER": "bi_encoder", "QRELAY_ALL__WORKER__MAX_ITEMS": "8",
               "QRELAY_JUDGE__FAKE__SERVICE_TIME_S": "0.001"}  # fmt: skip
    return queries, environ


@pytest.fixture(scope="module")
def undisturbed(
    prepared: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, bytes]:
    """The exports of a run in which nothing happens."""
    queries, environ = prepared
    with Installation(tmp_path_factory.mktemp("undisturbed"), environ) as installation:
        report = installation.run("feed", str(queries), "--collection", COLLECTION, "--wait")
        assert (report["committed"], report["dead"]) == (QUERIES, 0)
        exports = installation.export("qrels"), installation.export("triples")
    assert all(exports), "the undisturbed run must export something to compare"
    return exports


def test_killing_each_process_in_turn_changes_nothing_that_is_exported(
    prepared: tuple[Path, dict[str, str]], undisturbed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    queries, environ = prepared
    with Installation(tmp_path / "disturbed", environ) as installation:
        feeding = subprocess.Popen(
            [sys.executable, "-m", "qrelay.cli.main", "feed", str(queries), "--collection", COLLECTION],
            env={**os.environ, **installation.environ},
        )
        killed = threading.Thread(target=lambda: [installation.kill(victim) for victim in VICTIMS])
        killed.start()
        killed.join()
        assert feeding.wait() == 0
        report = installation.run("feed", str(queries), "--collection", COLLECTION, "--wait")
        assert (report["committed"], report["dead"]) == (QUERIES, 0)
        assert (installation.export("qrels"), installation.export("triples")) == undisturbed


def committed(installation: Installation) -> int:
    """Queries in the ledger now."""
    with sqlite3.connect(f"file:{installation.folder / 'ledger.sqlite'}?mode=ro", uri=True) as connection:
        return int(connection.execute("SELECT count(*) FROM queries").fetchone()[0])


def test_killing_one_process_after_another_while_it_works_changes_nothing(
    prepared: tuple[Path, dict[str, str]], undisturbed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    queries, environ = prepared
    lines, portion = queries.read_text("utf8").splitlines(keepends=True), tmp_path / "portion.jsonl"
    share = -(-QUERIES // len(VICTIMS))
    with Installation(tmp_path / "disturbed", environ) as installation:
        for fed, victim in zip(range(share, QUERIES + share, share), VICTIMS, strict=True):
            portion.write_text("".join(lines[fed - share : fed]), "utf8")
            installation.run("feed", str(portion), "--collection", COLLECTION)
            assert committed(installation) < fed, f"all was done before {victim} was killed: make the judge slower"
            installation.kill(victim)
        report = installation.run("feed", str(queries), "--collection", COLLECTION, "--wait")
        assert (report["committed"], report["dead"]) == (QUERIES, 0)
        assert (installation.export("qrels"), installation.export("triples")) == undisturbed
