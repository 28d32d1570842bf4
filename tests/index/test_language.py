"""A build finds the language of its corpus, says so, and BM25 then stems and stops in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qrelay.index.bm25 import Bm25
from qrelay.index.build import BuildRequest, BuildResult, build_index
from qrelay.index.language import detected
from qrelay.models.embedder import load_embedder
from tests.index.documents import made_up, write_jsonl

GERMAN = [
    "Die Häuser in der alten Stadt wurden im vergangenen Jahrhundert gebaut und später renoviert.",
    "Ein Arzt untersucht die Patienten und verschreibt ihnen ein Medikament gegen den hohen Blutdruck.",
    "Der Zug nach Hamburg fährt heute wegen einer Störung auf der Strecke nicht pünktlich ab.",
    "Kinder spielen am Nachmittag gerne im Garten hinter dem Haus ihrer Großeltern.",
]


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (GERMAN, "de"),
        (["Le médecin examine les patients et leur prescrit un médicament contre l'hypertension."], "fr"),
        (["The doctor examines the patients and prescribes a drug against high blood pressure."], "en"),
        (["高血压的治疗方法有哪些", "糖尿病患者的饮食应该注意什么问题"], "en"),
        (["Bác sĩ khám cho bệnh nhân và kê đơn thuốc điều trị bệnh cao huyết áp cho họ."], "any"),
        (["def f(x): return x + 1", "json.dumps(obj, *, skipkeys=False)", "word1 word2 word3"], "en"),
        ([row["text"] for row in made_up(50)], "en"),
        ([], "en"),
    ],
)
def test_the_language_of_most_texts_is_found(texts: list[str], language: str) -> None:
    assert detected(texts) == language


def test_a_german_corpus_is_searched_by_german_stems(build: Callable[..., BuildResult]) -> None:
    result = build([{"_id": f"d{number}", "text": text} for number, text in enumerate(GERMAN)])
    assert any("German" in remark for remark in result.remarks())
    bm25 = Bm25.load(result.folder / "bm25", result.manifest.tokenize(result.folder))
    assert np.argmax(bm25.scores("altes Haus")) == 0
    assert not bm25.scores("der und die").any()


def test_the_language_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "c.jsonl", [{"_id": "a", "text": "talossa on koira"}])
    request = BuildRequest(str(source), "c", tmp_path / "index", language="fi")
    manifest = build_index(request, load_embedder("hash"), print).manifest
    assert manifest.parameters["bm25_tokenizer"] == "words-bigrams-lower-stop_none-snowball_fi"
