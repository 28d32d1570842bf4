"""The gate on real models: a worse one is rejected, a better one promoted, rollback restores the bytes; who judged,
and what was trained on, is checked first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.models.gate import gate_command
from qrelay.errors import ConfigError, ModelError
from qrelay.exitcodes import EXIT_GATE
from qrelay.models.catalogue import resolve
from qrelay.models.registry import BI_ENCODER, CROSS_ENCODER, JudgeRef, Registry, State, slot_of
from qrelay.training.gate.baseline import BI_RERANK, evaluated, of_model, serving
from qrelay.training.gate.facts import JUDGES, UNSEEN, query_hash, write_query_hashes
from qrelay.training.gate.gate import gate
from qrelay.training.gate.rules import GateRules, Guard, Sets, SlotRules, read_rules
from tests.training.sets import capitals, toy
from tests.training.tiny import tiny_model

MINER = JudgeRef("hash-of-the-miner", "qwen2.5-1.5b-instruct", "rev1", "graded", 100)


def rules(frozen: Path, **fields: Any) -> GateRules:
    slot = SlotRules(frozen=frozen, **fields)
    return GateRules(bi_encoder=slot, cross_encoder=slot)


def noisy(source: Path, folder: Path, noise: float) -> Path:
    """The model with noise on its weights."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(source), local_files_only=True, device="cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * noise * parameter.std(unbiased=False))
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def published(
    registry: Registry, model: Path, *, slot: str = BI_ENCODER, trained_on: tuple[str, ...] = ("a training query",),
    judge: JudgeRef = MINER, parent: str = "",
) -> str:  # fmt: skip
    write_query_hashes(model, trained_on)
    return registry.publish(model, slot=slot, base="base@1", judges=(judge,), parent=parent)


@pytest.fixture(scope="module")
def minilm() -> Path:
    try:
        return resolve("all-MiniLM-L6-v2").path
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def noise(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noisy(minilm, tmp_path_factory.mktemp("models") / "noisy", 0.7)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def test_a_deliberately_worse_model_is_rejected(registry: Registry, noise: Path, tmp_path: Path) -> None:
    version = published(registry, shutil.copytree(noise, tmp_path / "worse"))
    decision = gate(registry, version, rules(capitals(tmp_path / "set")), {BI_ENCODER: "all-MiniLM-L6-v2"})
    assert not decision.passed
    assert "did not rise" in decision.why
    assert registry.standing().versions[version].state is State.REJECTED
    with pytest.raises(Exception, match="the gate failed"):
        registry.promote(version)


def test_a_better_model_is_promoted_and_rollback_restores_the_bytes(
    registry: Registry, minilm: Path, noise: Path, tmp_path: Path
) -> None:
    frozen, configured = capitals(tmp_path / "set"), {BI_ENCODER: f"path:{noise}"}
    half = noisy(minilm, tmp_path / "half", 0.45)
    first = published(registry, half)
    assert gate(registry, first, rules(frozen), configured).passed
    registry.promote(first)
    second = published(registry, shutil.copytree(minilm, tmp_path / "best"))
    decision = gate(registry, second, rules(frozen, guard=(Guard(set=frozen, metric="RR@10"),)), configured)
    assert decision.passed, decision.why
    assert decision.against == first
    registry.promote(second)
    assert registry.rollback(BI_ENCODER) == first
    served = registry.serving(BI_ENCODER)
    assert served is not None
    weights = "model.safetensors"
    assert (served.path / weights).read_bytes() == (half / weights).read_bytes()
    registry.verify(first)


def test_what_was_measured_once_is_not_measured_again(registry: Registry, tiny: Path, tmp_path: Path) -> None:
    from qrelay.training.evaluation.frozen import FrozenSet

    frozen, keep = FrozenSet.read(toy(tmp_path / "set")), tmp_path / "kept"
    model = shutil.copytree(tiny, tmp_path / "model")
    subject = of_model(f"path:{model}", "exact search")
    first = evaluated(subject, frozen, "nDCG@10", keep)
    shutil.rmtree(model)  # a second measurement would fail
    again = evaluated(subject, frozen, "nDCG@10", keep)
    assert (again.values["nDCG@10"] == first.values["nDCG@10"]).all()
    assert json.loads(next(keep.iterdir()).read_text())["fingerprint"] == subject.fingerprint


def test_the_first_cross_encoder_must_beat_the_bi_encoder_on_the_same_documents(
    registry: Registry, tiny: Path, tmp_path: Path
) -> None:
    from qrelay.training.evaluation.frozen import FrozenSet
    from qrelay.training.evaluation.systems import bm25_run

    subject = serving(registry, CROSS_ENCODER, {BI_ENCODER: f"path:{tiny}", CROSS_ENCODER: ""})
    assert subject.how == BI_RERANK
    frozen = FrozenSet.read(toy(tmp_path / "set"))
    found = evaluated(subject, frozen, "R@100", tmp_path / "kept")
    first = bm25_run(frozen.collection)
    reached = [any(doc in first[q] for doc in frozen.collection.qrels[q]) for q in found.query_ids]
    assert found.values["R@100"].tolist() == [float(each) for each in reached]


@pytest.mark.parametrize(
    ("judge", "demand", "fine"),
    [
        ({"model": "qwen2.5-1.5b-instruct", "revision": "rev1"}, "other_model", False),
        ({"model": "qwen2.5-1.5b-instruct", "revision": "rev2"}, "other_model", True),
        ({"model": "qwen2.5-1.5b-instruct"}, "other_model", False),
        ({"model": "Qwen/Qwen3-8B", "revision": "1"}, "other_model", True),
        ({"model": "Qwen/Qwen3-8B", "revision": "1"}, "other_family", False),
        ({"model": "smollm2-1.7b", "revision": "1"}, "other_family", True),
    ],
)
def test_the_evaluation_judge_is_not_the_mining_judge(
    registry: Registry, tiny: Path, tmp_path: Path, judge: dict[str, str], demand: str, fine: bool
) -> None:
    frozen = toy(tmp_path / "set", source="judge", judges=[judge])
    version = published(registry, shutil.copytree(tiny, tmp_path / "model"))
    decision = gate(registry, version, rules(frozen, evaluation_judge=demand), {BI_ENCODER: f"path:{tiny}"})
    row = next(row for row in decision.rows if row.rule == JUDGES)
    assert row.passed is fine
    if not fine:
        assert "qwen2.5-1.5b-instruct" in decision.why
        assert not decision.passed


def test_a_parents_judge_counts_as_ones_own(registry: Registry, tiny: Path, tmp_path: Path) -> None:
    frozen = toy(tmp_path / "set", source="judge", judges=[{"model": MINER.model, "revision": MINER.revision}])
    parent = published(registry, shutil.copytree(tiny, tmp_path / "parent"))
    other = JudgeRef("another", "smollm2", "1", "graded")
    child = published(registry, shutil.copytree(tiny, tmp_path / "child"), judge=other, parent=parent)
    decision = gate(registry, child, rules(frozen), {BI_ENCODER: f"path:{tiny}"})
    assert not next(row for row in decision.rows if row.rule == JUDGES).passed


def test_human_and_gold_sets_may_be_used_whoever_mined(registry: Registry, tiny: Path, tmp_path: Path) -> None:
    version = published(registry, shutil.copytree(tiny, tmp_path / "model"))
    for source in ("human", "gold"):
        decision = gate(registry, version, rules(toy(tmp_path / source, source=source)), {BI_ENCODER: f"path:{tiny}"})
        assert next(row for row in decision.rows if row.rule == JUDGES).passed


@pytest.mark.parametrize("query", ["the capital of country c3", "  The CAPITAL of (country) c3?"])
def test_a_version_that_was_trained_on_a_query_of_the_set_is_refused(
    registry: Registry, tiny: Path, tmp_path: Path, query: str
) -> None:
    version = published(registry, shutil.copytree(tiny, tmp_path / "model"), trained_on=("other", query))
    decision = gate(registry, version, rules(toy(tmp_path / "set")), {BI_ENCODER: f"path:{tiny}"})
    row = next(row for row in decision.rows if row.rule == UNSEEN)
    assert (row.passed, row.queries) == (False, 1)
    assert "a3" in row.why
    assert not decision.passed


def test_a_version_that_does_not_say_what_it_was_trained_on_is_refused(
    registry: Registry, tiny: Path, tmp_path: Path
) -> None:
    version = registry.publish(tiny, slot=BI_ENCODER, base="base@1")
    decision = gate(registry, version, rules(toy(tmp_path / "set")), {BI_ENCODER: f"path:{tiny}"})
    assert not decision.passed
    assert "does not say what queries it was trained on" in decision.why


def test_nothing_passes_where_no_set_is_configured(registry: Registry, tiny: Path, tmp_path: Path) -> None:
    version = published(registry, shutil.copytree(tiny, tmp_path / "model"))
    decision = gate(registry, version, GateRules(), {BI_ENCODER: f"path:{tiny}"})
    assert not decision.passed
    assert "no frozen set is configured" in decision.why


def test_the_command_takes_the_beginning_of_a_versions_name(registry: Registry, tiny: Path, tmp_path: Path) -> None:
    version = published(registry, shutil.copytree(tiny, tmp_path / "model"))
    settings = tmp_path / "qrelay.yaml"
    settings.write_text(f"retriever: {{embedder: 'path:{tiny}'}}\n")
    options = ["--data-dir", str(tmp_path), "--config", str(settings)]
    assert CliRunner().invoke(gate_command, [version[:-3], *options]).exit_code == EXIT_GATE
    assert registry.standing().versions[version].state is State.REJECTED


def test_the_same_model_does_not_beat_itself(registry: Registry, tiny: Path, tmp_path: Path) -> None:
    version = published(registry, shutil.copytree(tiny, tmp_path / "model"))
    assert not gate(registry, version, rules(toy(tmp_path / "set")), {BI_ENCODER: f"path:{tiny}"}).passed


def test_every_problem_of_a_rules_file_is_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text("bi_encoder: {alpha: 0.9, minimum_effect: -1}\nretriever: {}\n")
    with pytest.raises(ConfigError) as caught:
        read_rules(file)
    for word in ("3 problem(s)", "bi_encoder.alpha", "bi_encoder.minimum_effect", "retriever"):
        assert word in str(caught.value)


def test_folders_in_a_rules_file_are_beside_it(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text("bi_encoder: {frozen: sets/a, guard: [{set: sets/b}]}\n")
    read = read_rules(tmp_path / "gate.yaml").bi_encoder
    assert read.frozen == tmp_path / "sets" / "a"
    assert read.guard[0].set == tmp_path / "sets" / "b"


def test_queries_that_differ_in_spacing_and_case_are_one() -> None:
    assert query_hash("What is  it?") == query_hash("what IS it")
    assert query_hash("किताब मिलती है?") != query_hash("किताब मिलता है?")  # vowel signs are no punctuation
    assert query_hash("Cafe\u0301?") == query_hash("caf\u00e9")


def test_a_collections_own_slot_is_measured_on_its_own_sets_against_what_serves_the_collection(
    registry: Registry, tiny: Path, tmp_path: Path
) -> None:
    medquad, docs = slot_of(BI_ENCODER, "medquad"), slot_of(BI_ENCODER, "docs")
    frozen = {name: toy(tmp_path / name) for name in ("of-all", "of-medquad", "of-docs")}
    own = {"medquad": Sets(frozen=frozen["of-medquad"]), "docs": Sets(frozen=frozen["of-docs"])}
    demanded, configured = rules(frozen["of-all"], collections=own), {BI_ENCODER: f"path:{tiny}"}
    default = published(registry, shutil.copytree(tiny, tmp_path / "default"))
    registry.record_gate(default, {"passed": True, "against": ""})
    registry.promote(default)
    for slot, name in ((medquad, "of-medquad"), (docs, "of-docs")):
        version = published(registry, shutil.copytree(tiny, tmp_path / f"model-{name}"), slot=slot)
        decision = gate(registry, version, demanded, configured)
        assert (decision.slot, decision.against) == (slot, default)
        assert {row.set for row in decision.rows} == {name}


def test_a_collections_own_slot_without_sets_lets_nothing_pass_and_names_the_setting(
    registry: Registry, tiny: Path, tmp_path: Path
) -> None:
    version = published(registry, shutil.copytree(tiny, tmp_path / "model"), slot=slot_of(BI_ENCODER, "medquad"))
    decision = gate(registry, version, rules(toy(tmp_path / "set")), {BI_ENCODER: f"path:{tiny}"})
    assert not decision.passed
    assert "set trainer.gate.bi_encoder.collections.medquad.frozen" in decision.why


def test_sets_of_collections_are_beside_the_rules_file_and_inherit_the_other_rules(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(
        "bi_encoder: {frozen: sets/a, alpha: 0.01, collections: {medquad: {frozen: b, guard: [{set: sets/c}]}}}\n"
    )
    read = read_rules(tmp_path / "gate.yaml")
    own = read.of(slot_of(BI_ENCODER, "medquad"))
    assert (own.frozen, own.guard[0].set, own.alpha) == (tmp_path / "b", tmp_path / "sets" / "c", 0.01)
    assert read.folders() == {tmp_path / "sets" / "a", tmp_path / "b", tmp_path / "sets" / "c"}
    (tmp_path / "gate.yaml").write_text("bi_encoder: {collections: {Med Quad: {}}}\n")
    with pytest.raises(ConfigError, match="'Med Quad': use up to 64 of"):
        read_rules(tmp_path / "gate.yaml")
