"""The files of `make demo-loop`: labels name documents that exist, and nothing that is tested is trained on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from qrelay.cli.serve import load_definition
from qrelay.demo.answers import CORPUS
from qrelay.demo.loop.run import ALTERNATIVES, SETS, evaluation_set, training_queries
from qrelay.formats.queries import parse_line
from qrelay.index.corpus import read_corpus
from qrelay.judging.strategies.contrastive import alternatives
from qrelay.settings import load_settings
from qrelay.settings.sections import SERVICES
from qrelay.training.evaluation.frozen import FrozenSet
from qrelay.training.experiment import load_experiment
from qrelay.training.gate.rules import read_rules
from qrelay.training.settings import trainer_settings

DEMO = Path(__file__).resolve().parents[1] / "qrelay" / "demo"
LOOP = DEMO / "loop"
STOPWORDS = frozenset(
    re.findall(r"\w+", "how do does can i a an the of to in is it for with and or from by at on that as my be")
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sets as the demo completes them, with this Python's documents."""
    folder = tmp_path_factory.mktemp("loop")
    with (folder / "corpus.jsonl").open("w") as file:
        for document in read_corpus(CORPUS, lambda where, why: None):
            row = {"_id": document.doc_id, "title": document.title, "text": document.text}
            file.write(json.dumps(row) + "\n")
    for name in SETS:
        evaluation_set(name, folder / "corpus.jsonl", folder)
    return folder


def texts(file: Path) -> Iterator[str]:
    return (json.loads(line)["text"] for line in file.read_text("utf8").splitlines())


def words(text: str) -> frozenset[str]:
    return frozenset(word.rstrip("s") for word in re.findall(r"\w+", text.lower())) - STOPWORDS


@pytest.mark.parametrize("name", SETS)
def test_every_query_of_a_set_has_an_answer_in_the_corpus(out: Path, name: str) -> None:
    frozen = FrozenSet.read(out / name)
    asked = list(texts(LOOP / name / "queries.jsonl"))
    assert len(frozen.collection.queries) == len(set(asked)) == len(asked)
    assert frozen.source == "gold" and not frozen.judges
    assert frozen.collection.absent == 0


def test_labels_of_documents_that_another_python_lacks_are_left_out(out: Path, tmp_path: Path) -> None:
    whole = FrozenSet.read(out / "guard").collection
    lost = "queue.LifoQueue"
    rows = [row for row in (out / "corpus.jsonl").read_text("utf8").splitlines() if json.loads(row)["_id"] != lost]
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows))
    evaluation_set("guard", tmp_path / "corpus.jsonl", tmp_path)
    left = FrozenSet.read(tmp_path / "guard").collection
    assert left.absent == 0
    assert set(whole.queries) - set(left.queries) == {q for q, grades in whole.qrels.items() if set(grades) == {lost}}
    assert len(whole.queries) - len(left.queries) == 1


def test_guard_and_frozen_set_ask_about_different_modules(out: Path) -> None:
    frozen, guard = (
        {doc_id.split(".")[0] for grades in FrozenSet.read(out / name).collection.qrels.values() for doc_id in grades}
        for name in SETS
    )
    assert frozen & guard <= {"queue"}, "a priority queue is also a queue.PriorityQueue"


def test_no_training_query_is_a_query_of_a_set_or_close_to_one(tmp_path: Path) -> None:
    count = 160
    training_queries(tmp_path, count, dict(os.environ))
    lines = (tmp_path / "queries.jsonl").read_text("utf8").splitlines()
    trained = [parse_line(line, "python-docs") for line in lines]
    assert count == len(trained) == len({query.query_id for query in trained})
    assert count == len({query.text for query in trained})
    assert all(len(alternatives(query)) == ALTERNATIVES for query in trained)
    tested = {text: words(text) for name in SETS for text in texts(LOOP / name / "queries.jsonl")}
    close = [
        (query.text, text)
        for query in trained
        for asked in [words(query.text)]
        for text, its in tested.items()
        if len(asked & its) > 0.5 * len(asked | its)
    ]
    assert close == []


def test_the_loops_settings_rules_and_experiments_hold(out: Path) -> None:
    config = LOOP / "qrelay.yaml"
    for name in SERVICES:
        load_settings(load_definition(name).settings, name, file=config, environ={})
    settings = trainer_settings(config, out)
    for slot in settings.kinds:
        load_experiment(settings.of(slot).experiment, settings.of(slot).overrides)
        (out / "gate.yaml").write_bytes((LOOP / "gate.yaml").read_bytes())
        rules = read_rules(out / "gate.yaml").of(slot)
        assert rules.frozen is not None and rules.frozen.samefile(out / "frozen")
        assert [guard.set.name for guard in rules.guard] == ["guard"]
