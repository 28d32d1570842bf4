"""The MedQuAD recipe's labels without a judge: a query log matched with the collection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from benchmarks.medquad.__main__ import HERE
from benchmarks.medquad.matching import LOSS_TEMPERATURE, PRIOR, Line, Matching, surety, unjudged
from qrelay.formats.candidates import parse_candidates
from qrelay.index.build import BuildRequest, build_index
from qrelay.models.embedder import load_embedder
from qrelay.training.data import Reading, read_examples
from qrelay.training.experiment import load_experiment

DISEASES: Final = ("asthma", "gout", "measles", "scurvy", "mumps", "rickets", "anthrax", "rabies")
LOG: Final = [
    *({"_id": name, "text": f"what are the symptoms of {name}"} for name in DISEASES),
    {"_id": "all", "text": "what is a symptom"},
]


@pytest.fixture(scope="module")
def matched(tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    """Over a page on each disease, of two passages, and one on what symptoms are, which every query resembles."""
    folder = tmp_path_factory.mktemp("matching")
    rows = [
        {"_id": name, "title": name, "text": f"{name} shows as {10 * n} signs and fever. " + "It is rare. " * 60}
        for n, name in enumerate(DISEASES)
    ]
    rows.append({"_id": "all", "title": "symptoms", "text": "what are the symptoms of a disease"})
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf8")
    embedder = load_embedder("all-MiniLM-L6-v2")
    build_index(BuildRequest(str(folder / "corpus.jsonl"), "c", folder / "index"), embedder, lambda line: None)
    return list(Matching(folder / "index" / "c", embedder, LOG).lists())


def test_every_query_has_its_document_and_what_all_resemble_is_one_querys(matched: list[Line]) -> None:
    assert [line["query_id"] for line in matched] == [row["_id"] for row in LOG]
    for line in matched:
        candidates = line["candidates"]
        assert candidates[0]["doc_id"] == line["query_id"]
        assert len({each["doc_id"] for each in candidates}) == 4
        scores = [each["scores"][PRIOR] for each in candidates]
        assert scores == sorted(scores, reverse=True)


def test_a_document_is_shown_by_its_nearest_passage(matched: list[Line]) -> None:
    assert {each["text"][:30] for line in matched for each in line["candidates"] if each["doc_id"] == "gout"} == {
        "gout shows as 10 signs and fev"
    }


def test_a_list_is_as_sure_as_its_first_posterior(matched: list[Line], tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(unjudged(line)) + "\n" for line in matched), "utf8")
    reading = Reading(positives="target", others=True, need_positive=False, prior=PRIOR)
    examples = list(read_examples([tmp_path / "labels.jsonl"], reading))
    for line, example in zip(matched, examples, strict=True):
        targets = [document.target for document in example.documents]
        assert sum(targets) == pytest.approx(1)
        assert max(targets) == pytest.approx(surety(line))


def test_the_experiments_read_the_prior_as_it_is_written() -> None:
    retriever, reranker = (load_experiment(str(HERE / f"{name}.yaml")) for name in ("bi_encoder", "cross_encoder"))
    assert (retriever.prior, retriever.temperature) == (PRIOR, LOSS_TEMPERATURE)
    assert reranker.prior == PRIOR


def test_its_lines_can_be_fed_to_the_judge(matched: list[Line]) -> None:
    query, found = parse_candidates(json.dumps(matched[0]), "medquad")
    assert query.text == LOG[0]["text"]
    assert [each.passage_id for each in found] == [each["passage_id"] for each in matched[0]["candidates"]]
    assert [score.system for score in found[0].scores] == [PRIOR]
