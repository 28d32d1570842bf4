"""Frozen sets: what they say of their labels, that they cannot change unseen, and how they are made."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.eval.group import evaluate_command
from qrelay.errors import ConfigError, InputError, MalformedInput
from qrelay.labels.ledger.ledger import Ledger
from qrelay.training.evaluation.answering import answer
from qrelay.training.evaluation.evaluate import evaluate
from qrelay.training.evaluation.freezing import Labels, freeze, labels_of
from qrelay.training.evaluation.frozen import FrozenSet
from qrelay.types import JudgeIdentity
from tests.labels.builders import graded, judged_set
from tests.labels.exporting import export_file
from tests.training.beir import beir_folder, lines

QWEN = {"model": "qwen", "revision": "1", "strategy": "graded"}


def described(folder: Path, **changes: Any) -> Path:
    told = {"name": "small", "about": "", "labels": {"source": "gold"}} | changes
    (folder / "set.json").write_text(json.dumps(told))
    return folder


def data(folder: Path) -> tuple[Path, Path, Path]:
    return folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "test.tsv"


def test_a_folder_with_a_description_is_a_set_and_evaluates_models(tmp_path: Path) -> None:
    folder = described(beir_folder(tmp_path), labels={"source": "judge", "judges": [QWEN]}, about="by hand")
    found = FrozenSet.read(folder)
    assert (found.name, found.source, found.judges, found.about) == ("small", "judge", (QWEN,), "by hand")
    expected = evaluate(found.collection, "bm25", answer(found.collection, "bm25"))
    assert found.evaluate("bm25", "bm25").as_json() == expected.as_json()
    with pytest.raises(ConfigError, match="bm25, not a cross_encoder"):
        found.evaluate("bm25", "cross_encoder")


def test_the_least_relevant_grade_is_the_sets(tmp_path: Path) -> None:
    folder = described(beir_folder(tmp_path), labels={"source": "gold", "relevant_from": 2})
    assert set(FrozenSet.read(folder).collection.queries) == {"q2"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": ""}, "`name` must be a text"),
        ({"labels": {"source": "crowd"}}, "one of human, gold, judge"),
        ({"labels": {"source": "judge"}}, "must name who judged"),
        ({"labels": {"source": "judge", "judges": [{"revision": "1"}]}}, "objects with `model`"),
        ({"labels": {"source": "gold", "relevant_from": 0}}, "above 0"),
        ({"labels": None}, "`labels` must be an object"),
    ],
)
def test_a_description_that_does_not_hold_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(MalformedInput, match=told):
        FrozenSet.read(described(beir_folder(tmp_path), **changes))


def test_a_folder_without_description_or_data_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(MalformedInput, match="qrelay eval freeze"):
        FrozenSet.read(beir_folder(tmp_path / "a"))
    folder = described(beir_folder(tmp_path / "b"))
    (folder / "queries.jsonl").unlink()
    with pytest.raises(MalformedInput, match=r"no queries\.jsonl"):
        FrozenSet.read(folder)


def test_the_hash_covers_every_file_and_nothing_else(tmp_path: Path) -> None:
    one, other = (described(beir_folder(tmp_path / name)) for name in "ab")
    assert FrozenSet.read(one).sha256 == FrozenSet.read(other).sha256
    (other / "notes.txt").write_text("not part of it")
    assert FrozenSet.read(one).sha256 == FrozenSet.read(other).sha256
    hashes = {FrozenSet.read(one).sha256}
    for path in (*data(other), other / "set.json"):
        path.write_bytes(path.read_bytes() + b"\n")
        hashes.add(FrozenSet.read(other).sha256)
    assert len(hashes) == 5


def test_a_frozen_set_that_was_changed_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "set"
    freeze(out, data(beir_folder(tmp_path / "beir")), name="small", labels=Labels("gold"))
    qrels = out / "qrels" / "test.tsv"
    qrels.write_text(qrels.read_text().replace("d2\t1", "d4\t1"))
    with pytest.raises(MalformedInput, match=r"changed since it was frozen \(qrels/test\.tsv\)"):
        FrozenSet.read(out)


def test_freezing_keeps_the_collection_and_is_the_same_anywhere(tmp_path: Path) -> None:
    files = data(beir_folder(tmp_path / "beir"))
    labels = Labels("judge", (QWEN,), 1)
    found = freeze(tmp_path / "one", files, name="small", labels=labels, about="why")
    again = freeze(tmp_path / "deep" / "two", files, name="small", labels=labels, about="why")
    assert found.sha256 == again.sha256
    assert found.collection.qrels == {"q1": {"d2": 1}, "q2": {"d1": 2, "d3": 1}, "q3": {"d4": 1, "d3": 0}}
    assert found.collection.texts[0] == "Cats\na cat sleeps on the mat"
    with pytest.raises(ConfigError, match="does not change"):
        freeze(tmp_path / "one", files, name="small", labels=labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beir", "deep", "one"]


def test_a_sample_is_of_queries_and_follows_its_seed(tmp_path: Path) -> None:
    files = data(beir_folder(tmp_path / "beir"))
    drawn = {
        (seed, turn): freeze(tmp_path / f"{seed}-{turn}", files, name="s", labels=Labels("gold"), sample=1, seed=seed)
        for seed in range(4)
        for turn in (0, 1)
    }
    assert all(drawn[seed, 0].sha256 == drawn[seed, 1].sha256 for seed in range(4))
    assert all(len(found.collection.queries) == 1 for found in drawn.values())
    assert all(len(found.collection.doc_ids) == 4 for found in drawn.values())
    assert len({tuple(found.collection.queries) for found in drawn.values()}) > 1
    with pytest.raises(InputError, match="only 3 queries"):
        freeze(tmp_path / "many", files, name="s", labels=Labels("gold"), sample=9)


def test_whose_labels_they_are_must_be_said(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path)
    with pytest.raises(ConfigError, match="Give --labels"):
        labels_of(None, (), folder, None)
    with pytest.raises(ConfigError, match="--judge-model"):
        labels_of("judge", (), folder, None)
    assert labels_of("judge", (QWEN,), folder, None) == Labels("judge", (QWEN,), 1)
    assert labels_of("human", (), folder, 2) == Labels("human", (), 2)


def manifest(folder: Path, *judges: JudgeIdentity) -> Path:
    from dataclasses import asdict

    told = {"format": "beir", "judges": [{"judge": "0" * 64, **asdict(each), "generations": [0]} for each in judges]}
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


def judge(strategy: str, scale: str, model: str = "qwen") -> JudgeIdentity:
    return JudgeIdentity(model, "r1", "q4", "p" * 8, strategy, scale, "greedy")


def test_an_exports_manifest_says_who_judged_and_what_is_relevant(tmp_path: Path) -> None:
    folder = manifest(beir_folder(tmp_path), judge("graded", "1-4"))
    found = labels_of(None, (), folder, None)
    assert (found.source, found.relevant_from) == ("judge", 2)
    assert found.judges[0]["model"] == "qwen"
    assert found.judges[0]["strategy"] == "graded"
    with pytest.raises(ConfigError, match="say --labels judge"):
        labels_of("human", (), folder, None)
    people = manifest(folder, judge("human", "0-3", "people"))
    assert labels_of(None, (), people, None) == Labels("human", (), 2)
    mixed = manifest(folder, judge("binary", "0-1"), judge("graded", "0-3"))
    with pytest.raises(ConfigError, match="--relevant-from"):
        labels_of(None, (), mixed, None)
    assert labels_of(None, (), mixed, 1).relevant_from == 1


def test_an_export_of_a_ledger_becomes_a_set(tmp_path: Path) -> None:
    with closing(Ledger.open(tmp_path / "ledger.sqlite")) as ledger:
        ledger.commit(
            [judged_set(f"q{n}", f"what is number {n}?", (graded(3), graded(1), graded(0))) for n in (1, 2)]
        )
        export_file(ledger, "docs", "beir", tmp_path / "export")
    result = CliRunner().invoke(
        evaluate_command,
        ["freeze", "--corpus", str(tmp_path / "export"), "--name", "judged", "--out", str(tmp_path / "set")],
    )
    assert result.exit_code == 0, result.output
    found = FrozenSet.read(tmp_path / "set")
    assert (found.source, found.collection.relevant_from) == ("judge", 2)
    assert [judge["model"] for judge in found.judges] == ["judge-1.5b"]
    assert set(found.collection.queries) == {"q1", "q2"}


def test_the_command_freezes_and_prints_the_hash(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path / "beir")
    given = ["freeze", "--corpus", folder, "--labels", "judge", "--judge-model", "qwen", "--judge-strategy", "graded"]
    result = CliRunner().invoke(
        evaluate_command, [*map(str, given), "--name", "mine", "--out", str(tmp_path / "set")]
    )
    assert result.exit_code == 0, result.output
    found = FrozenSet.read(tmp_path / "set")
    assert found.judges == ({"model": "qwen", "revision": "", "strategy": "graded"},)
    assert found.sha256 in result.output
    lines(tmp_path / "alone.jsonl", [{"_id": "a", "text": "x"}])
    result = CliRunner().invoke(
        evaluate_command, ["freeze", "--corpus", str(tmp_path / "alone.jsonl"), "--labels", "gold", "--name", "x",
                           "--out", str(tmp_path / "other")])  # fmt: skip
    assert (result.exit_code, "--queries" in result.output) == (2, True)
