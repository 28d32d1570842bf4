"""The benchmark of utility labels: the reference is no candidate, labels are of the same pairs, and no question is
measured by what was trained on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.relabel.plant import MedQuad
from benchmarks.utility import __main__ as command
from benchmarks.utility import answering, grid, head, labels, measuring
from benchmarks.utility.grid import FOLDS, Places, cross_trained
from benchmarks.utility.pairs import candidates, copies, in_parts, medquad, reference_of
from qrelay.errors import InputError
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.formats.beir import Collection
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.judge import Judge
from qrelay.judging.panel import Panel
from qrelay.judging.strategies.answer_nll import AnswerNll
from qrelay.llm.base import Weights
from qrelay.llm.fake import FakeBackend
from qrelay.training.experiment import load_experiment
from tests.training import utility_data

ANSWER = "Asthma narrows the airways of the lungs and makes breathing hard. It often begins in childhood."
TEXTS = {
    "first": ANSWER,
    "copy": f"Note: {ANSWER} See a doctor.",
    "second": "In asthma the airways swell, so that a person cannot breathe well.",
    "other": "Doctors treat asthma by inhalers, which carry a drug into the airways.",
}
DATA = MedQuad(
    {
        name: {"_id": name, "title": "Asthma", "text": text, "metadata": {"source": f"source of {name}"}}
        for name, text in TEXTS.items()
    },
    {"q": "What is asthma?"},
    {"q": ["first", "second"]},
)


def pair(query_id: str, passage_id: str, grade: int = 0) -> GradedPair:
    return GradedPair(query_id, passage_id, grade, f"question {query_id}", "", f"text {passage_id}", ("an answer",))


def test_neither_the_reference_nor_a_copy_of_it_is_a_candidate() -> None:
    found = list(candidates(DATA, "q", list(TEXTS)))
    assert {each.passage_id: each.grade for each in found} == {"second": 1, "other": 0}
    assert {each.reference_answers for each in found} == {(ANSWER,)}


def test_a_question_before_an_answer_is_no_part_of_the_reference() -> None:
    assert reference_of(f"What is asthma?\n\n{ANSWER}") == ANSWER
    assert reference_of(f"{ANSWER} Is it inherited?") == f"{ANSWER} Is it inherited?"


def test_a_copy_has_eight_words_in_a_row_whatever_its_punctuation() -> None:
    assert copies("one, TWO three four - five six seven eight nine", "x one two three four five six seven eight")
    assert not copies("one two three four five six seven", "one two three four five six seven")


def test_questions_have_answers_of_two_sources_and_both_kinds_of_candidates() -> None:
    assert {each.passage_id for each in medquad(DATA)} == {"second", "other"}
    for row in DATA.documents.values():
        row["metadata"]["source"] = "one"
    assert medquad(DATA) == []


def test_every_part_holds_a_share_of_every_question() -> None:
    pairs = [pair(query, f"{query}{n}") for query in "ab" for n in range(6)]
    parts = in_parts(pairs, 3)
    assert [sorted(each.query_id for each in part) for part in parts] == [list("aabb")] * 3
    assert sorted(each.passage_id for part in parts for each in part) == sorted(each.passage_id for each in pairs)


def test_labels_of_every_kind_spread_alike_and_the_best_are_positive(tmp_path: Path) -> None:
    pairs = [pair(query, f"{query}{n}") for query in "ab" for n in range(3)]
    path = tmp_path / "labels.jsonl"
    for scale in (1.0, 50.0):
        labels.write(path, labels.lines(pairs, scale * np.array([1.0, 0.9, 0.0, np.nan, -1.0, -2.0])))
        one, other = head.read(path)
        assert [len(one.positives), len(one.negatives)] == [2, 1]
        assert [len(other.positives), len(other.negatives)] == [0, 2]
        spread = np.mean([np.std([each.target for each in example.documents]) for example in (one, other)])
        assert spread == pytest.approx(1.0)


def test_what_the_cache_does_not_hold_is_no_label(tmp_path: Path) -> None:
    pairs = [pair("a", "a0"), pair("a", "a1"), pair("b", "b0")]
    backend, cache = FakeBackend(), SqlCache(str(tmp_path / "cache.sqlite"))
    backend.weights = Weights("small", "1", "none")
    labels.label(Panel({"answer": Judge(backend, AnswerNll(), cache)}, cache), [pairs[0], pairs[2]])
    column = labels.recorded(cache, pairs, "answer", "small").column("answer")
    assert np.isfinite(column).tolist() == [True, False, True]
    cache.close()


def test_no_question_is_ranked_by_what_was_trained_on_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = [f"q{n}" for n in range(2 * FOLDS)]
    pairs = [pair(query, f"{query}-{n}", n) for query in asked for n in range(2)]
    labels.write(tmp_path / "labels.jsonl", labels.lines(pairs, np.array([float(each.grade or 0) for each in pairs])))
    known = {text: np.ones(2, np.float32) for each in pairs for text in (each.query, each.text)}
    collection = Collection(
        [each.passage_id for each in pairs],
        [each.text for each in pairs],
        {each.query_id: each.query for each in pairs},
        {each.query_id: {each.passage_id: 1} for each in pairs},
    )
    trained: list[set[str]] = []
    plain = head.train

    def watched(examples, *others):  # type: ignore[no-untyped-def]
        trained.append({each.query_id for each in examples})
        return plain(examples, *others)

    monkeypatch.setattr(grid, "train", watched)
    experiment = load_experiment("kl_only", ["target=answer_nll"])
    places = Places(collection, collection, collection, known)
    found = cross_trained(places, experiment, head.read(tmp_path / "labels.jsonl"), 0)
    assert set(found) == set(asked)
    assert [set(asked) - each for each in trained] == [set(sorted(asked)[fold::FOLDS]) for fold in range(FOLDS)]


@pytest.mark.parametrize("name", ["kl_only", "kl_margin", "sum_marginal"])
def test_a_layer_learns_the_order_of_its_labels(name: str, tmp_path: Path) -> None:
    """Questions and texts that are at right angles, until a layer is trained."""
    turned = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
    pairs = [pair(f"q{n}", f"d{m}", int(n == m)) for n in range(6) for m in range(6)]
    known = {f"question q{n}": turned[n] for n in range(6)} | {f"text d{n}": turned[6 + n] for n in range(6)}
    path = tmp_path / "labels.jsonl"
    labels.write(path, labels.lines(pairs, np.array([float(each.grade or 0) for each in pairs])))
    experiment = load_experiment(name, ["target=answer_nll", "learning_rate=1e-2", "teacher_temperature=0.25"])
    layer = head.train(head.read(path), known, experiment, 0)
    ids = [f"d{n}" for n in range(6)]
    texts, queries = [f"text {each}" for each in ids], {f"q{n}": f"question q{n}" for n in range(6)}
    collection = Collection(ids, texts, queries, {f"q{n}": {f"d{n}": 1} for n in range(6)})
    before, after = (
        grid.measured(collection, head.run(collection, known, each))["RR@5"].mean() for each in (None, layer)
    )
    assert after > before
    assert after > 0.8


SMALL = "smollm2-135m-instruct"


def run(step: str, folder: Path) -> Any:
    """What the step writes to its file, of two made-up collections and the smallest model."""
    data, out = folder / "data", folder / "work"
    if not data.exists():
        utility_data.write(data)
    told = [step, "--data", str(data), "--out", str(out), "--cache", str(folder / "cache"), "--model", SMALL]
    command.main([*told, "--questions", "3"])
    written = out / f"{step}.json"
    return json.loads(written.read_text()) if written.exists() else None


def test_every_step_runs_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it finds means nothing: a model that knows nothing labels sentences that say little."""
    for name in ("READER", "GRADER", "LIKELIHOOD"):
        monkeypatch.setattr(answering, name, SMALL)
    monkeypatch.setattr(answering, "MAX_TOKENS", 8)
    monkeypatch.setattr(command, "SELECTED", 3)
    monkeypatch.setattr(grid, "SEEDS", 2)
    with pytest.raises(SystemExit, match="label first"):
        run("agree", tmp_path)
    assert run("label", tmp_path) is None
    agreed = run("agree", tmp_path)
    assert {name: each["questions"] for name, each in agreed.items()} == {"medquad": 12, "liveqa-med": 10}
    assert run("select", tmp_path)["pairs"] > 0
    trained = run("train", tmp_path)["results"]
    assert {*trained} == {grid.DEV, grid.TRANSFER, grid.CROSSED}
    assert {*trained[grid.DEV]} == {*grid.LOSSES}
    likely, answered = run("likelihood", tmp_path), run("answers", tmp_path)
    assert {*likely["systems"]} == {*answered["systems"]} and "base" in likely["systems"]
    assert {*run("whole", tmp_path)} == {grid.DEV, grid.TRANSFER}
    capsys.readouterr()
    run("report", tmp_path)
    assert capsys.readouterr().out.count("| --- |") >= 5, "a table each of agree, train, likelihood, answers, whole"


def test_a_collection_with_too_few_labels_ends_the_step_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_few(table: object) -> None:
        raise InputError("a class is empty")

    monkeypatch.setattr(measuring, "agreement", too_few)
    monkeypatch.setattr(command.Study, "recorded", lambda *_: None)
    with pytest.raises(SystemExit, match=r"medquad has too few labels.*run `label` to its end"):
        run("agree", tmp_path)
    assert not (tmp_path / "work" / "agree.json").exists()
