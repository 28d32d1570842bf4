"""The demo's answer key: its questions, its documents, and what the demo says by it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from qrelay.demo.answers import HERE, SETS, Key, Verdict, demo_documents, read_key, read_line
from qrelay.demo.run import by_key, cleared, strategy
from qrelay.errors import ConfigError
from qrelay.index.documents import Document
from qrelay.parsing import yaml_document
from qrelay.types import Passage

FOLDERS: Final = list(SETS.values())
NOT_IN_NEWER: Final = ("datetime.", "pathlib.", "os.path.lexists")
"""Documents that the corpus of Python 3.12 or 3.13 lacks: the source that it reads has moved to private modules."""
QUESTION: Final = "How do I make a deep copy of a nested object?"


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return list(demo_documents())


@pytest.fixture(scope="module")
def key(documents: list[Document]) -> Key:
    return read_key(HERE, documents)


def questions(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "queries.jsonl").read_text("utf8").splitlines()]


def answers(folder: Path) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = yaml_document((folder / "answers.yaml").read_bytes())
    return found


def passage(text: str, doc_id: str) -> Passage:
    return Passage(f"{doc_id}#0", doc_id, doc_id, text)


def row(best: Passage | None) -> dict[str, Any]:
    return {"query": QUESTION, "passage": best}


def test_twenty_further_questions_are_asked_nowhere_else() -> None:
    asked = [each for folder in (*FOLDERS, HERE / "loop") for each in questions(folder)]
    assert len(questions(HERE / "further")) == 20
    assert len({each["query_id"] for each in asked}) == len({each["text"] for each in asked}) == len(asked)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_key_answers_each_question_of_its_file_and_no_other(folder: Path) -> None:
    assert list(answers(folder)) == [each["query_id"] for each in questions(folder)]
    for each in answers(folder).values():
        assert each
        assert all(isinstance(word, str) and word.strip() for words in each.values() for word in words)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_answers_are_documents_of_this_python_that_hold_the_words_named(
    folder: Path, documents: list[Document]
) -> None:
    texts = {each.doc_id: " ".join(each.text.split()) for each in documents}
    for question, found in answers(folder).items():
        for doc_id, words in found.items():
            if sys.version_info >= (3, 12) and doc_id not in texts:
                assert doc_id.startswith(NOT_IN_NEWER)
            else:
                assert all(word in texts[doc_id] for word in words), (question, doc_id, words)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_question_has_an_answer_in_the_documentation_of_python_311(
    folder: Path, documents: list[Document]
) -> None:
    unanswered = read_key(folder, documents).unanswered
    assert not unanswered if sys.version_info < (3, 12) else len(unanswered) <= 3


def test_nearly_all_documents_of_this_python_were_read(documents: list[Document], key: Key) -> None:
    assert len(key.unread) <= len(documents) // 20


def test_of_a_long_document_only_the_passages_with_the_words_are_right(key: Key) -> None:
    shown = passage("Interface summary:\n\n   x = copy.deepcopy(y)   # make a deep copy of y", "copy")
    rest = passage("Two problems often exist with deep copy operations", "copy")
    assert key.verdict(QUESTION, shown) is Verdict.RIGHT
    assert key.verdict(QUESTION, rest) is Verdict.WRONG
    assert key.verdict(QUESTION, passage("Deep copy operation", "copy.deepcopy")) is Verdict.RIGHT
    assert key.verdict(QUESTION, passage("Deep copy operation", "copy.copy")) is Verdict.WRONG


def test_what_nobody_has_read_is_neither_right_nor_wrong() -> None:
    changed = Document("copy.copy", "copy.copy(x)", "Copies whatever lies within, too.")
    assert read_line(changed) not in (HERE / "read.tsv").read_text("utf8").splitlines()
    key = read_key(HERE, [changed, Document("copy.deepcopy", "", "Says something else now.")])
    assert key.verdict(QUESTION, passage(changed.text, "copy.copy")) is Verdict.UNREAD
    assert key.verdict(QUESTION, passage("Says something else now.", "copy.deepcopy")) is Verdict.RIGHT
    assert len(key.unanswered) == 39


def test_the_demo_says_how_many_best_passages_are_right_and_how_many_negatives_are_answers(key: Key) -> None:
    right, wrong = passage("Deep copy operation", "copy.deepcopy"), passage("Shallow copy operation", "copy.copy")
    negatives = [
        {"passage_id": each.passage_id, "doc_id": each.doc_id, "title": each.title, "text": each.text}
        for each in (right, wrong, wrong)
    ]
    said = list(by_key(key, [row(right), row(wrong), row(None)], [{"query": QUESTION, "negatives": negatives}]))
    assert said == ["1 of 3 best passages are right", "1 of 3 negatives are answers"]
    unread = read_key(HERE, [Document("copy.copy", "", "Something new about copies.")])
    best, _, nowhere = by_key(unread, [row(wrong)], [])
    assert best == "0 of 1 best passages are right; 1 not checked by anyone"
    assert nowhere == "1 of 1 questions have no answer in this Python's documentation"


def test_the_key_says_nothing_about_other_questions(key: Key) -> None:
    mine = {"query": "Where is my umbrella?", "passage": None}
    assert not list(by_key(key, [mine], [{"query": mine["query"], "negatives": []}]))


@pytest.mark.parametrize(
    ("model", "asked"), [("qwen2.5-coder-1.5b-instruct", True), ("qwen2.5-coder-0.5b-instruct", False)]
)
def test_only_the_larger_judge_is_asked_about_what_it_has_read(
    model: str, asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QRELAY_JUDGE__MODEL", model)
    assert strategy(tmp_path) == ({"QRELAY_JUDGE__STRATEGY": "confirmed_likelihood"} if asked else {})


def test_a_folder_that_no_demo_made_is_refused_and_stays(tmp_path: Path) -> None:
    state = cleared(tmp_path / "new")
    (state / "ledger.sqlite").touch()
    assert cleared(tmp_path / "new") == state and not list(state.iterdir())
    (tmp_path / "new" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="choose another --out"):
        cleared(tmp_path / "new")
    assert (tmp_path / "new" / "thesis.tex").exists()
