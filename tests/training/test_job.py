"""The training job on a ledger: what it learns from, what it publishes, and that a killed one goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from qrelay.cli.job import run_job_file
from qrelay.errors import ConfigError, MalformedInput
from qrelay.exitcodes import EXIT_NOT_ENOUGH
from qrelay.labels.deciding import decide
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride
from qrelay.models.registry import BI_ENCODER, CROSS_ENCODER, Registry, slot_of
from qrelay.training.gate.facts import query_hash, read_query_hashes
from qrelay.training.job.data import divide
from qrelay.training.job.job import Job, read_job
from qrelay.training.job.result import NOT_ENOUGH, PROMOTED, REJECTED, UNCHANGED
from qrelay.training.settings import TrainerSettings
from tests.training import sets, tiny
from tests.training.ledgers import COLLECTION, MINER, toy_ledger
from tests.training.tiny import tiny_model

FAST = ["batch_size=16", "documents=4", "max_positives=1", "max_length=32", "checkpoint_every=1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    toy_ledger(tmp_path / "ledger.sqlite")
    sets.toy(tmp_path / "frozen")
    return tmp_path


def config(folder: Path, model: Path, *, rate: float = 1e-2, epochs: int = 6, **trainer: Any) -> Path:
    """Settings: tiny models, both slots on the toy set."""
    train = [*FAST, f"model=path:{model}", f"learning_rate={rate}", f"stages=[{{epochs: {epochs}}}]"]
    gate = {"frozen": str(folder / "frozen"), "baseline": ""}
    document = {
        "retriever": {"embedder": f"path:{model}"},
        "sink": {
            "guard_ratio": 0.0,  # the toy's wrong answers score above the right one
            "training": {"unmeasured": True},
        },
        "trainer": {
            "bi_encoder": {"experiment": "infonce_only", "overrides": train},
            "cross_encoder": {"train": False, "experiment": "cross_encoder", "overrides": train},
            "min_queries": 10,
            "gate": {"bi_encoder": gate, "cross_encoder": gate},
            **trainer,
        },
    }
    file = folder / "qrelay.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def job(folder: Path, name: str = "job-1") -> Path:
    return Job(name, COLLECTION, folder, ledger=str(folder / "ledger.sqlite")).write()


def kinds(folder: Path) -> Counter[str]:
    return Counter(event.kind for event in Registry(folder / "registry").history())


def test_labels_become_a_promoted_version_with_its_whole_descent(folder: Path, model: Path) -> None:
    result = run_job_file(job(folder), config(folder, model))
    (slot,) = result.slots
    assert slot.outcome == PROMOTED, slot.why
    registry = Registry(folder / "registry")
    served = registry.serving(BI_ENCODER)
    assert served is not None and served.version == slot.version
    manifest = registry.manifest(slot.version)
    assert manifest.collections == (COLLECTION,)
    assert [(judge.model, judge.labels) for judge in manifest.judges] == [(MINER.model, 4 * 64)]
    (source,) = manifest.data
    assert source.rows == slot.queries
    assert source.manifest["format"] == "triples"
    assert source.manifest["changes"] == {"from": 0, "to": 1}
    assert manifest.experiment["losses"] == {"infonce": 1.0}
    assert run_job_file(folder / "training/job-1/job.json", config(folder, model)) == result
    assert kinds(folder) == {"published": 1, "gated": 1, "promoted": 1}


def test_what_people_decided_trains_beside_the_judges_labels_unless_the_settings_say_no(
    folder: Path, model: Path
) -> None:
    ledger = Ledger.open(str(folder / "ledger.sqlite"))
    positive = tiny.answers(1)[0]["text"].replace(" ", "-")
    decide(ledger, COLLECTION, NewOverride("w0q1", positive, 3, "0-3", "ana"))
    ledger.close()
    registry = Registry(folder / "registry")
    (slot,) = run_job_file(job(folder), config(folder, model, epochs=1)).slots
    assert registry.manifest(slot.version).experiment["stages"][0]["labels"] == "mixed"
    (slot,) = run_job_file(job(folder, "job-2"), config(folder, model, epochs=1, human_labels=False)).slots
    assert registry.manifest(slot.version).experiment["stages"][0]["labels"] == "weak"


def test_a_version_that_did_not_learn_is_rejected_and_the_job_ends_well(folder: Path, model: Path) -> None:
    (slot,) = run_job_file(job(folder), config(folder, model, rate=1e-9, epochs=1)).slots
    assert slot.outcome == REJECTED
    assert Registry(folder / "registry").serving(BI_ENCODER) is None


def test_the_same_labels_again_train_nothing_new(folder: Path, model: Path) -> None:
    settings = config(folder, model)
    first = run_job_file(job(folder), settings).slots[0]
    again = run_job_file(job(folder, "job-2"), settings).slots[0]
    assert (first.outcome, again.outcome, again.version) == (PROMOTED, UNCHANGED, first.version)


def test_without_promote_a_version_waits_for_a_person(folder: Path, model: Path) -> None:
    (slot,) = run_job_file(job(folder), config(folder, model, promote=False)).slots
    assert slot.outcome == "passed"
    registry = Registry(folder / "registry")
    assert registry.serving(BI_ENCODER) is None
    assert registry.promote(slot.version)


def test_a_version_trained_from_the_one_that_serves_inherits_its_queries(folder: Path, model: Path) -> None:
    first = run_job_file(job(folder), config(folder, model, epochs=2)).slots[0]
    serving = {"experiment": "infonce_only", "start": "serving", "overrides": [*FAST, "learning_rate=1.0e-3"]}
    registry = Registry(folder / "registry")
    old = registry.model_dir(first.version) / "training-queries.txt"
    shown = read_query_hashes(registry.model_dir(first.version))
    assert shown is not None and len(shown) == first.queries
    second = run_job_file(job(folder, "job-2"), config(folder, model, bi_encoder=serving, dev_share=0.5)).slots[0]
    assert registry.manifest(second.version).parent == first.version
    assert second.queries < first.queries
    trained_on = read_query_hashes(registry.model_dir(second.version))
    assert trained_on is not None and set(old.read_text().split()) <= trained_on


def test_queries_of_the_gates_sets_are_never_trained_on(tmp_path: Path, model: Path) -> None:
    toy_ledger(tmp_path / "ledger.sqlite", ("capital of country c{}", "The capital of country c{}?", "c{} capital"))
    sets.toy(tmp_path / "frozen")
    (slot,) = run_job_file(job(tmp_path), config(tmp_path, model, dev_share=0.0)).slots
    assert slot.queries == 32
    trained_on = read_query_hashes(Registry(tmp_path / "registry").model_dir(slot.version))
    assert trained_on is not None
    assert query_hash("the capital of country c1") not in trained_on
    assert query_hash("c1 capital") in trained_on


def test_too_little_data_ends_with_a_code_of_its_own_and_publishes_nothing(folder: Path, model: Path) -> None:
    file, settings = job(folder), config(folder, model, min_queries=1000)
    done = subprocess.run(
        [sys.executable, "-m", "qrelay.cli.main", "train", "--job", str(file), "--config", str(settings)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == EXIT_NOT_ENOUGH, done.stderr
    assert NOT_ENOUGH in done.stdout
    assert "trainer.min_queries is 1000" in done.stdout
    assert kinds(folder) == {}


def test_a_job_trains_a_cross_encoder_that_must_beat_the_bi_encoder(folder: Path, model: Path) -> None:
    settings = config(folder, model)
    document = yaml.safe_load(settings.read_text())
    document["trainer"]["bi_encoder"]["train"] = False
    document["trainer"]["cross_encoder"]["train"] = True
    settings.write_text(yaml.safe_dump(document))
    (slot,) = run_job_file(job(folder), settings).slots
    assert (slot.slot, slot.outcome) in {(CROSS_ENCODER, PROMOTED), (CROSS_ENCODER, REJECTED)}
    assert slot.decision["baseline"].endswith("bi-encoder over BM25's top 100")


def test_an_experiment_of_the_other_kind_is_refused(folder: Path, model: Path) -> None:
    with pytest.raises(ConfigError, match="is of a cross_encoder"):
        run_job_file(job(folder), config(folder, model, bi_encoder={"experiment": "cross_encoder"}))


def test_a_file_that_is_no_job_is_named(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"name": "x"}')
    with pytest.raises(MalformedInput, match="is not a training job"):
        read_job(tmp_path / "job.json")


def test_the_division_is_by_words_and_loses_no_query(tmp_path: Path) -> None:
    texts = [f"question {n}" for n in range(200)] + ["Question 7!", "held back"]
    exported = tmp_path / "all.jsonl"
    exported.write_text("".join(json.dumps({"query": text}) + "\n" for text in texts))
    found = divide(exported, tmp_path / "data", 0.3, {query_hash("HELD back")})
    read = {side: (tmp_path / "data" / f"{side}.jsonl").read_text() for side in ("train", "dev")}
    assert (found.train + found.dev, found.held_back) == (201, 1)
    assert 30 < found.dev < 90
    assert ('"question 7"' in read["train"]) == ('"Question 7!"' in read["train"])
    assert "held back" not in read["train"] + read["dev"]


STEPS = (
    "sink.export.rename",  # exported, and its manifest is not there
    "training has begun",
    "registry.version.placed",  # published, and the history does not know
    "registry.event.linked",  # the history knows
    "registry.event.linked",  # gated
    "registry.event.linked",  # promoted
)
"""Where the job dies, run after run."""


def test_a_job_killed_at_every_step_goes_on_and_publishes_once(folder: Path, model: Path) -> None:
    file, settings, faults = job(folder), config(folder, model), folder / "faults"
    faults.mkdir()
    command = [sys.executable, "-m", "qrelay.cli.main", "train", "--job", str(file), "--config", str(settings)]
    environ = {**os.environ, "QRELAY_FAULTS": str(faults), "OMP_NUM_THREADS": "1"}
    begun = folder / "training/job-1/bi_encoder/run.json"
    for step in STEPS:
        (faults / step).write_text("1")
        process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while step == "training has begun" and process.poll() is None:
            if begun.exists():
                process.kill()
            time.sleep(0.02)
        assert process.wait() == -signal.SIGKILL, step
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert PROMOTED in done.stdout
    assert kinds(folder) == {"published": 1, "gated": 1, "promoted": 1}


def test_versions_of_a_collection_with_slots_of_its_own_serve_it_alone(folder: Path, model: Path) -> None:
    gate = {"frozen": str(folder / "none"), "collections": {COLLECTION: {"frozen": str(folder / "frozen")}}}
    sets.capitals(folder / "none")
    settings = config(folder, model, own_slots=[COLLECTION], gate={"bi_encoder": gate})
    (slot,) = run_job_file(job(folder), settings).slots
    own = slot_of(BI_ENCODER, COLLECTION)
    assert (slot.slot, slot.outcome) == (own, PROMOTED), slot.why
    registry = Registry(folder / "registry")
    served = registry.serving(own)
    assert served is not None and served.version == slot.version
    assert registry.serving(BI_ENCODER) is None and registry.serving(slot_of(BI_ENCODER, "other")) is None
    assert (folder / "training" / "job-1" / BI_ENCODER / "result.json").exists()


def test_settings_say_which_collections_have_slots_of_their_own() -> None:
    slots = {BI_ENCODER, CROSS_ENCODER}
    assert {*TrainerSettings().slots("docs")} == slots
    assert {*TrainerSettings(own_slots=("medquad",)).slots("docs")} == slots
    for names in (("docs",), ("*",), ("medquad", "*")):
        assert {*TrainerSettings(own_slots=names).slots("docs")} == {f"{slot}:docs" for slot in slots}
    with pytest.raises(ValueError, match="'Med Quad': use up to 64 of"):
        TrainerSettings(own_slots=("Med Quad",))
