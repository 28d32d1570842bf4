"""The MedQuAD recipe's labels without a judge: what a query log says of a passage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.medquad.contrast import SYSTEM, Contrast
from qrelay.index.build import BuildRequest, build_index
from qrelay.models.embedder import load_embedder
from qrelay.training.data import Reading, read_examples

DISEASES: Final = ("asthma", "gout", "measles", "scurvy", "mumps", "rickets", "anthrax", "rabies")
LOG: Final = [f"what are the symptoms of {name}" for name in DISEASES]


@pytest.fixture
def contrast(tmp_path: Path) -> Contrast:
    """Over a page on each disease, and one on what symptoms are, which every query of the log resembles."""
    rows = [{"_id": name, "title": name, "text": f"{name} shows as {10 * n} signs and fever"} for n, name in
            enumerate(DISEASES)]  # fmt: skip
    rows.append({"_id": "all", "title": "symptoms", "text": "what are the symptoms of a disease"})
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf8")
    embedder = load_embedder("all-MiniLM-L6-v2")
    build_index(BuildRequest(str(tmp_path / "corpus.jsonl"), "c", tmp_path / "index"), embedder, lambda line: None)
    return Contrast(tmp_path / "index" / "c", embedder, LOG)


def asked(contrast: Contrast) -> list[dict[str, Any]]:
    return list(contrast.unjudged([{"_id": f"q{n}", "text": text} for n, text in enumerate(LOG)]))


def test_what_every_query_resembles_answers_none_of_them(contrast: Contrast) -> None:
    lines = asked(contrast)
    assert [line["passages"][0]["doc_id"] for line in lines] == list(DISEASES)
    assert all(len(line["passages"]) == 6 for line in lines)
    for line in lines:
        scores = [passage["scores"][SYSTEM] for passage in line["passages"]]
        assert scores == sorted(scores, reverse=True)


def test_a_judged_passage_gets_the_contrast_that_it_has_unjudged(contrast: Contrast) -> None:
    first = asked(contrast)[0]
    bare = {**first, "passages": [{**passage, "scores": {"dense": 0.5}} for passage in first["passages"]]}
    (judged,) = contrast.judged([bare])
    for passage, before in zip(judged["passages"], first["passages"], strict=True):
        assert passage["scores"] == {"dense": 0.5, SYSTEM: pytest.approx(before["scores"][SYSTEM])}


def test_its_lines_train_with_the_contrast_as_prior(contrast: Contrast, tmp_path: Path) -> None:
    (tmp_path / "contrast.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked(contrast)), "utf8")
    reading = Reading(positives="target", others=True, need_positive=False, prior=SYSTEM)
    examples = list(read_examples([tmp_path / "contrast.jsonl"], reading))
    for name, example in zip(DISEASES, examples, strict=True):
        assert example.documents[0].text.startswith(name)
        assert sum(document.target for document in example.documents) == pytest.approx(1)
