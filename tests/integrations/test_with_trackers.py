"""MLflow with a real store, W&B as it works offline: what `qrelay track` and a job's end leave there."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from click.testing import CliRunner
from mlflow import MlflowClient
from wandb.proto import wandb_internal_pb2

from qrelay.cli.track import track
from qrelay.errors import BackendUnavailable
from qrelay.integrations.track_mlflow import MlflowTracker
from qrelay.integrations.tracking import records
from qrelay.models.registry import Registry
from qrelay.training.experiment import load_experiment
from qrelay.training.job.result import PROMOTED, SlotResult
from qrelay.training.job.tracked import track as track_job
from qrelay.training.train import train
from tests.models.registry.models import a_model, passed, published, row
from tests.training import tiny

REPORT = {"system": "mine@1", "queries": 3, "means": {"nDCG@10": 0.5, "R@100": 0.9}, "facts": {"documents": 7}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a registry of two versions, a report, and stores of both tools."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()  # a process keeps the folder and the mode of its first run
    registry = Registry(tmp_path / "registry")
    a_model(tmp_path / "trained-a", "a")
    first = passed(
        registry, published(registry, "a", experiment={"losses": {"kl": 0.5}}, metrics={"dev": {"after": 0.4}}),
        rows=[row("nDCG@10", "frozen", 0.3, 0.4)],
    )  # fmt: skip
    registry.promote(first, by="ana")
    published(registry, "b", slot="bi_encoder:docs")
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    return tmp_path


def tracked(*arguments: str) -> str:
    found = CliRunner().invoke(track, [*arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def runs(kind: str) -> list[Any]:
    client = MlflowClient()
    experiment = client.get_experiment_by_name("qrelay")
    return list(client.search_runs([experiment.experiment_id], f"tags.`qrelay.kind` = '{kind}'"))


def offline(folder: Path) -> list[wandb_internal_pb2.Record]:
    """What W&B would send, of every run."""
    wandb.teardown()  # ends its process, which writes the file of a run after the run has ended
    files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
    return [wandb_internal_pb2.Record.FromString(each) for file in files for each in logged(file.read_bytes())]


def logged(data: bytes) -> Iterator[bytes]:
    """The records of a file of W&B's, in LevelDB's log format: blocks of 32 KiB; a piece has a checksum, its length,
    and whether it is whole (1), or a record's first (2), middle (3) or last (4)."""
    assert data.startswith(b":W&B")
    place, pieces = 7, []
    while len(data) - place >= 7:
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        _, length, kind = struct.unpack_from("<IHB", data, place)
        pieces.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):
            yield b"".join(pieces)
            pieces = []


def test_mlflow_has_every_version_once_and_serving_follows_the_registry(folder: Path) -> None:
    registry, client = Registry(folder / "registry"), MlflowClient()
    assert tracked("registry", "--to", "mlflow").count("mlflow: version") == 2
    served = registry.serving("bi_encoder")
    assert served
    (run,) = [each for each in runs("version") if each.info.run_name == served.version]
    assert run.data.params == {"slot": "bi_encoder", "base": "base@1", "experiment.losses.kl": "0.5"}
    assert run.data.metrics == {"dev.after": 0.4, "nDCG_10 on frozen": 0.4}
    assert run.data.tags.items() >= {"state": "promoted", "gate": "passed", "tainted": "false"}.items()
    files = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert files == {"manifest.json", "gate.json"}
    made = client.get_model_version_by_alias("bi_encoder", "serving")
    assert made.source == served.path.resolve().as_uri() and made.tags["state"] == "promoted"
    assert [each.name for each in client.search_registered_models()] == ["bi_encoder", "bi_encoder.docs"]

    better = passed(registry, published(registry, "c"), against=served.version)
    registry.promote(better, by="ana")
    tracked("registry", "--to", "mlflow")
    assert len(runs("version")) == 3
    assert client.get_model_version_by_alias("bi_encoder", "serving").tags["qrelay.id"] == better
    assert client.get_run(run.info.run_id).data.tags["state"] == "retired"

    registry.rollback("bi_encoder", to="", by="ana")
    tracked("registry", "--to", "mlflow")
    assert client.get_registered_model("bi_encoder").aliases == {}


def test_mlflow_has_an_evaluation_with_its_report_and_what_was_begun_is_finished(folder: Path) -> None:
    (record,) = records(folder / "report.json")
    tracker = MlflowTracker()
    tracker._begun(tracker._experiment(), record)  # as a process that was killed leaves it
    for _ in range(2):
        tracked("report.json", "--to", "mlflow")
    (run,) = runs("evaluation")
    assert (run.info.run_name, run.info.status) == ("mine@1", "FINISHED")
    assert (run.data.params, run.data.metrics) == ({"facts.documents": "7"}, {"nDCG_10": 0.5, "R_100": 0.9})
    assert [each.path for each in MlflowClient().list_artifacts(run.info.run_id)] == ["report.json"]


def test_wandb_has_a_version_with_its_artefact(folder: Path) -> None:
    tracked("registry", "report.json", "--to", "wandb")
    found = offline(folder)
    served = Registry(folder / "registry").serving("bi_encoder")
    assert served
    names = {each.run.run_id for each in found if each.HasField("run")}
    assert {served.version} < names and len(names) == 3
    artefacts = [each.request.log_artifact.artifact for each in found if each.request.HasField("log_artifact")]
    artefacts = artefacts or [each.artifact for each in found if each.HasField("artifact")]
    (model,) = [each for each in artefacts if "serving" in each.aliases]
    assert (model.type, model.name) == ("model", "bi_encoder")
    keys = {item.key: json.loads(item.value_json) for each in found for item in each.summary.update}
    assert keys["nDCG@10"] == 0.5


def test_a_training_is_logged_with_its_curve_and_its_makings(folder: Path) -> None:
    torch.set_num_threads(1)
    model, data = tiny.tiny_model(folder / "tiny"), tiny.labels(folder / "labels.jsonl")
    experiment = load_experiment(
        "infonce_only", [f"model=path:{model}", "batch_size=8", "documents=4", "max_length=32"]
    )
    train(experiment, [str(data)], folder / "job" / "bi_encoder")
    version = Registry(folder / "registry").standing().stack["bi_encoder"][-1]
    slot = SlotResult("bi_encoder", PROMOTED, "", version)
    track_job(["mlflow", "wandb"], Registry(folder / "registry"), folder / "job", [slot])
    (run,) = runs("training")
    assert run.data.params["experiment.batch_size"] == "8"
    assert run.data.metrics["stages.train.steps"] > 0
    curve = MlflowClient().get_metric_history(run.info.run_id, "train.loss")
    assert [each.step for each in curve] == sorted({each.step for each in curve}) and len(curve) > 1
    assert len(runs("version")) == 1
    assert any("train.loss" in (item.key, *item.nested_key) for each in offline(folder) for item in each.history.item)


def test_a_store_that_cannot_be_opened_is_a_refusal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "closed").write_text("no database")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/closed")
    with pytest.raises(BackendUnavailable, match="MLflow did not take"):
        tracked("report.json", "--to", "mlflow")
