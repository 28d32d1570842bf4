"""The MedQuAD recipe's labels without a judge: what a query log and encoders say of a passage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from benchmarks.medquad.contrast import PRIOR, SYSTEM, Contrast, Line, unjudged, with_prior
from qrelay.formats.candidates import parse_candidates
from qrelay.index.build import BuildRequest, build_index
from qrelay.models.embedder import load_embedder
from qrelay.text import passage_text
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


def asked(contrast: Contrast) -> list[Line]:
    return list(contrast.lists([{"_id": f"q{n}", "text": text} for n, text in enumerate(LOG)]))


def test_what_every_query_resembles_answers_none_of_them(contrast: Contrast) -> None:
    lines = asked(contrast)
    assert [line["candidates"][0]["doc_id"] for line in lines] == list(DISEASES)
    assert all(len(line["candidates"]) == 6 for line in lines)
    for line in lines:
        scores = [each["scores"][SYSTEM] for each in line["candidates"]]
        assert scores == sorted(scores, reverse=True)


def test_the_prior_is_the_contrast_and_the_second_encoders_cosine(contrast: Contrast) -> None:
    second = load_embedder("hash")
    for before, line in zip(asked(contrast), with_prior(asked(contrast), second), strict=True):
        contrasts = {each["passage_id"]: each["scores"][SYSTEM] for each in before["candidates"]}
        (query,) = second.encode([line["query"]], "query")
        priors = [each["scores"][PRIOR] for each in line["candidates"]]
        assert len(priors) == 4
        assert priors == sorted(priors, reverse=True)
        for each, prior in zip(line["candidates"], priors, strict=True):
            (vector,) = second.encode([passage_text(each["title"], each["text"])], "document")
            assert prior == pytest.approx(contrasts[each["passage_id"]] + float(vector @ query))


def test_its_lines_can_be_fed_to_the_judge(contrast: Contrast) -> None:
    line = next(with_prior(asked(contrast), load_embedder("hash")))
    query, found = parse_candidates(json.dumps(line), "medquad")
    assert query.text == LOG[0]
    assert [each.passage_id for each in found] == [each["passage_id"] for each in line["candidates"]]
    assert {score.system for score in found[0].scores} == {SYSTEM, PRIOR}


def test_its_lines_train_with_the_prior(contrast: Contrast, tmp_path: Path) -> None:
    lines = map(unjudged, with_prior(asked(contrast), load_embedder("all-MiniLM-L6-v2")))
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf8")
    reading = Reading(positives="target", others=True, need_positive=False, prior=PRIOR)
    examples = list(read_examples([tmp_path / "labels.jsonl"], reading))
    for name, example in zip(DISEASES, examples, strict=True):
        assert example.documents[0].text.startswith(name)
        assert sum(document.target for document in example.documents) == pytest.approx(1)
