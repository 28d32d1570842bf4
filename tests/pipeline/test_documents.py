"""From any folder in BEIR's layout to qrels by document, beside a run of the user's own: long documents with numbers
for ids, as Cranfield has them, the real retriever on an index of theirs, and `ir_measures` on the files."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ir_measures
import pytest
from click.testing import CliRunner, Result

from qrelay.cli.main import qrelay as command
from qrelay.feed.feeder import Feeder
from qrelay.feed.journal import Journal
from qrelay.index.build import BuildRequest, build_index
from qrelay.models.embedder import load_embedder
from qrelay.naming import document_of
from qrelay.runtime.memory import MemoryBroker
from tests.conftest import eventually
from tests.pipeline.test_pipeline import four_stages

DOCUMENTS, QUERIES, WORDS = 30, 6, 600
Run = Callable[..., Result]


def beir_folder(folder: Path) -> Path:
    """30 documents of 600 words, several passages each; each query asks for the words of one document."""
    generator = random.Random(7)
    common = [f"common{n}" for n in range(300)]
    (folder / "qrels").mkdir(parents=True)
    rare = {n: [f"rare{n}word{i}" for i in range(6)] for n in range(1, DOCUMENTS + 1)}
    documents = [
        {"_id": n, "title": f"Report {n}", "text": " ".join(generator.choices(common + rare[n] * 8, k=WORDS))}
        for n in rare
    ]
    asked = [{"_id": n, "text": " ".join(rare[n][:4])} for n in range(1, QUERIES + 1)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents))
    (folder / "queries.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
    gold = "".join(f"{n}\t{n}\t1\n{n}\t{n + QUERIES}\t0\n" for n in range(1, QUERIES + 1))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + gold)
    return folder


def own_run(path: Path) -> Path:
    """A run of the user's own system, which knows nothing but documents: the right one is second."""
    lines = [
        f"{n} Q0 {doc_id} {rank} {10 - rank} mine\n"
        for n in range(1, QUERIES + 1)
        for rank, doc_id in enumerate((n + 1, n, n + 2, n + 3), 1)
    ]
    path.write_text("".join(lines))
    return path


async def label(corpus: Path, data_dir: Path) -> None:
    """Index, feed and judge with the real stages, the models' doubles in them."""
    request = BuildRequest(str(corpus / "corpus.jsonl"), "mine", data_dir / "index")
    built = build_index(request, load_embedder("hash"), print)
    assert built.manifest.passages > 2 * DOCUMENTS, "long documents have several passages"
    broker = MemoryBroker()
    embedded = {"QRELAY_RETRIEVER__ENGINE": "embedded", "QRELAY_RETRIEVER__EMBEDDER": "hash"}

    async def lines() -> Any:
        for line in (corpus / "queries.jsonl").read_text().splitlines():
            yield line

    async with four_stages(broker, data_dir, **embedded) as cores:
        with Journal(data_dir / "feed") as journal:
            report = await Feeder(broker, journal, collection="mine").feed(lines())
        assert report.accepted == QUERIES
        await eventually(lambda: len(cores["sink"].ledger.query_states("mine")) == QUERIES)
    await broker.close()


@pytest.fixture
async def labelled(tmp_path: Path) -> tuple[Path, Run]:
    """(the BEIR folder, qrelay on an installation that has labelled it)."""
    corpus, data_dir = beir_folder(tmp_path / "beir"), tmp_path / "state"
    await label(corpus, data_dir)

    def qrelay(*words: object, code: int = 0) -> Result:
        found = CliRunner().invoke(command, [str(word) for word in words], env={"QRELAY_DATA_DIR": str(data_dir)})
        assert found.exit_code == code, (words, found.output, found.exception)
        return found

    return corpus, qrelay


async def test_a_beir_folder_becomes_qrels_that_ir_measures_reads_beside_a_run_of_documents(
    labelled: tuple[Path, Run], tmp_path: Path
) -> None:
    corpus, qrelay = labelled
    qrels, run = tmp_path / "mine.qrels", own_run(tmp_path / "own.run")
    qrelay("export", "qrels", "--by", "document", "--collection", "mine", "--out", qrels)
    graded = list(ir_measures.read_trec_qrels(str(qrels)))  # type: ignore[no-untyped-call]
    known = {str(n) for n in range(1, DOCUMENTS + 1)}
    assert {each.doc_id for each in graded} <= known
    assert len({(each.query_id, each.doc_id) for each in graded}) == len(graded) > 5 * QUERIES
    best = {n: max((each for each in graded if each.query_id == str(n)), key=lambda each: each.relevance)
            for n in range(1, QUERIES + 1)}  # fmt: skip
    assert all(each.relevance >= 2 for each in best.values())
    measured: Any = ir_measures.calc_aggregate(
        [ir_measures.nDCG @ 10, ir_measures.Judged @ 2],
        graded, ir_measures.read_trec_run(str(run)),  # type: ignore[no-untyped-call]
    )  # fmt: skip
    assert measured[ir_measures.nDCG @ 10] > 0 and measured[ir_measures.Judged @ 2] > 0.4

    by_eval = qrelay("eval", "--corpus", corpus, "--qrels", qrels, "--run", run, "--measure", "nDCG@10")
    assert "own: " in by_eval.output and "relevant from grade 2" in by_eval.output
    relevant = {each.query_id for each in graded if each.relevance >= 2}
    assert len(relevant) == QUERIES, "so that both are means over the same queries"
    assert f"{measured[ir_measures.nDCG @ 10]:.4f}" in by_eval.output


async def test_passages_are_folded_to_the_same_qrels_and_said_so(labelled: tuple[Path, Run], tmp_path: Path) -> None:
    corpus, qrelay = labelled
    found = []
    for by in ("passage", "document"):
        qrels = tmp_path / f"{by}.qrels"
        qrelay("export", "qrels", "--by", by, "--collection", "mine", "--out", qrels)
        given = ("--corpus", corpus, "--qrels", qrels, "--model", "bm25")
        found.append(qrelay("eval", *given, "--json-file", tmp_path / by))
    passages, documents = (json.loads((tmp_path / by).read_bytes()) for by in ("passage", "document"))
    assert passages["means"] == documents["means"] and passages["means"]["RR@5"] > 0.9
    assert "passages of the qrels stand for their documents" in found[0].output
    assert "stand for" not in found[1].output


async def test_peoples_qrels_of_documents_go_in_and_come_out_as_they_went_in(
    labelled: tuple[Path, Run], tmp_path: Path
) -> None:
    corpus, qrelay = labelled
    gold = corpus / "qrels" / "test.tsv"
    refused = qrelay("label", "import", gold, "--collection", "mine", "--scale", "0-1", code=1)
    assert "passages" in refused.output, "documents' ids are told, with the passages'"
    qrelay("label", "import", gold, "--collection", "mine", "--scale", "0-1", "--documents", "--skip-bad", code=3)
    rows = json.loads(qrelay("label", "list", "--collection", "mine", "--json").stdout)["overrides"]
    zeros = {(each["query_id"], document_of(each["passage_id"])) for each in rows if each["grade"] == 0}
    assert zeros
    qrels = tmp_path / "people.qrels"
    qrelay("export", "qrels", "--by", "document", "--overrides", "--collection", "mine", "--out", qrels)
    written = {tuple(line.split()[::2]): line.split()[3] for line in qrels.read_text().splitlines()}
    assert all(written[pair] == "0" for pair in zeros)
