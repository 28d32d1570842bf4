"""Training of either kind, on a tiny model: that it learns, goes on after a kill, and leaves a record."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from qrelay.errors import ConfigError, InputError
from qrelay.formats.beir import Collection
from qrelay.training import weights
from qrelay.training.bi_encoder import BiEncoder
from qrelay.training.cross_encoder import CrossEncoderKind
from qrelay.training.experiment import load_experiment, shipped
from qrelay.training.gate.facts import read_query_hashes
from qrelay.training.stages import Kind, _last_checkpoint
from qrelay.training.train import train
from tests.training import tiny

FAST = ["batch_size=8", "documents=4", "max_positives=1", "learning_rate=3.0e-3", "max_length=32"]
KINDS = ("infonce_only", "cross_encoder")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"path:{tiny.tiny_model(tmp_path_factory.mktemp('tiny'))}"


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.labels(tmp_path_factory.mktemp("data") / "labels.jsonl"))


def experiment(name: str, model: str, *overrides: str) -> Any:
    return load_experiment(name, [f"model={model}", *FAST, *overrides])


def record(out: Path) -> Any:
    return json.loads((out / "run.json").read_text())


def dev(count: int = tiny.COUNT) -> Collection:
    corpus = {each["passage_id"]: each["text"] for n in range(count) for each in tiny.answers(n)[:3]}
    qrels = {f"q{n}": {f"the seat is city t{n}": 1} for n in range(count)}
    queries = {f"q{n}": tiny.query(n) for n in range(count)}
    return Collection(list(corpus), list(corpus.values()), queries, qrels)


def scores(kind: str, folder: Path, n: int = 3) -> np.ndarray[Any, Any]:
    """Of the right answer and a wrong one."""
    from sentence_transformers import CrossEncoder, SentenceTransformer

    right, wrong = (each["text"] for each in tiny.answers(n)[:2])
    if kind == "cross_encoder":
        return np.asarray(
            CrossEncoder(str(folder), device="cpu").predict([(tiny.query(n), right), (tiny.query(n), wrong)])
        )
    encoder = SentenceTransformer(str(folder), device="cpu")
    q, *found = encoder.encode([tiny.query(n), right, wrong], normalize_embeddings=True)
    return np.asarray([q @ each for each in found])


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_experiment_trains_and_reduces_its_loss(
    name: str, model: str, labels: str, tmp_path: Path
) -> None:
    train(experiment(name, model, "stages=[{epochs: 6}]"), [labels], tmp_path)
    (stage,) = record(tmp_path)["stages"]
    assert stage["steps"] >= 2
    assert stage["losses"]["loss"] < 0.95 * stage["first_loss"]


@pytest.mark.parametrize("loss", ["mse", "pairwise", "listwise"])
def test_the_other_losses_of_cross_encoders_reduce_too(loss: str, model: str, labels: str, tmp_path: Path) -> None:
    train(
        experiment("cross_encoder", model, f"losses={{bce: 0, {loss}: 1}}", "stages=[{epochs: 12}]"),
        [labels],
        tmp_path,
    )
    (stage,) = record(tmp_path)["stages"]
    assert stage["losses"]["loss"] < 0.95 * stage["first_loss"]


@pytest.mark.parametrize("name", KINDS)
def test_training_puts_the_right_answer_first_and_the_folder_loads(
    name: str, model: str, labels: str, tmp_path: Path
) -> None:
    folder = train(experiment(name, model, "stages=[{epochs: 15}]", "learning_rate=5.0e-3"), [labels], tmp_path)
    right, wrong = scores(name, folder)
    assert right > wrong
    if name == "cross_encoder":
        assert 0 < wrong < right < 1


@pytest.mark.parametrize(
    ("name", "extra"),
    [("infonce_only", ["lora={r: 4}"]), ("cross_encoder", ["lora={r: 4}"]), ("infonce_only", ["merge=0.7"])],
)
def test_a_run_that_was_killed_goes_on_and_ends_as_an_undisturbed_one(
    name: str, extra: list[str], model: str, labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    wanted = experiment(name, model, "stages=[{name: one}, {name: two}]", "checkpoint_every=0.25", *extra)
    whole = train(wanted, [labels], tmp_path / "whole")
    steps = record(tmp_path / "whole")["stages"][0]["steps"]
    real, calls = Trainer.training_step, 0

    def dies(self: Trainer, *arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2 * steps:
            raise KeyboardInterrupt
        return real(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            train(wanted, [labels], tmp_path / "killed")
    assert record(tmp_path / "killed")["state"] == "running"
    resumed = train(wanted, [labels], tmp_path / "killed")
    assert scores(name, resumed) == pytest.approx(scores(name, whole), abs=1e-5)
    assert [each["stage"] for each in record(tmp_path / "killed")["stages"]] == ["one", "two"]


@pytest.mark.parametrize("name", KINDS)
def test_lora_leaves_a_plain_folder_and_the_frozen_weights_as_they_were(
    name: str, model: str, labels: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    folder = train(experiment(name, model, "lora={r: 4}", "stages=[{epochs: 3}]"), [labels], tmp_path)
    assert not list(folder.glob("adapter*"))
    base, trained = (load_file(each / "model.safetensors") for each in (Path(model.removeprefix("path:")), folder))
    trained = {key.removeprefix("bert."): value for key, value in trained.items()}
    changed = {key for key, value in base.items() if not torch.equal(value, trained[key])}
    assert changed and all("query" in key or "value" in key for key in changed)


def test_merging_stays_between_the_base_and_the_trained_weights(model: str, labels: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    base = load_file(Path(model.removeprefix("path:")) / "model.safetensors")
    key = "encoder.layer.0.attention.self.query.weight"
    whole, half = (
        load_file(
            train(experiment("infonce_only", model, f"merge={share}"), [labels], tmp_path / share)
            / "model.safetensors"
        )
        for share in ("1.0", "0.5")
    )
    assert torch.allclose(half[key], (base[key] + whole[key]) / 2, atol=1e-6)
    assert not torch.allclose(base[key], whole[key], atol=1e-5)


def test_a_head_that_is_new_is_not_merged_with_what_was_drawn(model: str, labels: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    heads = [
        load_file(
            train(experiment("cross_encoder", model, f"merge={share}"), [labels], tmp_path / share)
            / "model.safetensors"
        )
        for share in ("1.0", "0.5")
    ]
    assert torch.equal(heads[0]["classifier.weight"], heads[1]["classifier.weight"])
    assert not torch.equal(heads[0]["bert.pooler.dense.weight"], heads[1]["bert.pooler.dense.weight"])


@pytest.mark.parametrize("name", KINDS)
def test_early_stop_keeps_the_best_checkpoint_on_dev(name: str, model: str, labels: str, tmp_path: Path) -> None:
    stop = "early_stop={metric: RR@10, patience: 2, every: 1}"
    wanted = experiment(name, model, stop, "stages=[{epochs: 40}]", "learning_rate=5.0e-3")
    folder = train(wanted, [labels], tmp_path, dev())
    found = record(tmp_path)
    (stage,) = found["stages"]
    log = json.loads((tmp_path / "checkpoints" / "train" / "log.json").read_text())
    measured = [entry["eval_RR@10"] for entry in log if "eval_RR@10" in entry]
    assert stage["best"]["dev"] == max(measured) == pytest.approx(found["dev"]["after"])
    assert found["dev"]["metric"] == "RR@10" and 0 <= found["dev"]["before"] <= 1
    assert len(measured) < 40, "it did not stop"
    assert folder.is_dir()


def test_early_stop_without_dev_and_an_unknown_metric_are_refused(model: str, labels: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs dev queries"):
        train(experiment("infonce_only", model, "early_stop={}"), [labels], tmp_path / "a")
    with pytest.raises(InputError, match="ir-measures"):
        train(experiment("infonce_only", model, "early_stop={metric: hits}"), [labels], tmp_path / "b", dev())


def test_weak_labels_come_first_and_human_ones_go_on_from_them(model: str, labels: str, tmp_path: Path) -> None:
    human = tiny.labels(tmp_path / "human.jsonl", 8, human=True)
    stages = f"stages=[{{name: weak}}, {{name: human, labels: human, data: ['{human}'], learning_rate: 1.0e-3}}]"
    train(experiment("infonce_only", model, stages), [labels], tmp_path / "run")
    weak, people = record(tmp_path / "run")["stages"]
    assert (weak["examples"], people["examples"]) == (16, 8)
    assert people["first_loss"] != weak["first_loss"]
    with pytest.raises(ConfigError, match=r"stage weak takes weak labels alone, and 24 of its labels are people's"):
        train(experiment("infonce_only", model, stages), [str(human)], tmp_path / "other")


def test_the_record_names_the_bytes_and_the_rows(model: str, labels: str, tmp_path: Path) -> None:
    import hashlib

    train(experiment("kl_only", model, "every_label=true"), [labels], tmp_path)
    found = record(tmp_path)
    assert found["data"] == {labels: hashlib.sha256(Path(labels).read_bytes()).hexdigest()}
    assert found["experiment"]["losses"] == {"kl": 1.0, "margin": 0.0}
    assert (found["stages"][0]["examples"], found["stages"][0]["rows"]) == (16, 16)
    assert len(found["base"]["revision"]) >= 12
    assert {"torch", "sentence-transformers", "qrelay"} <= found["versions"].keys()


def test_data_that_goes_while_it_trains_costs_no_model(
    model: str, labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "labels.jsonl"
    data.write_bytes(Path(labels).read_bytes())
    fold = weights.fold_adapters
    monkeypatch.setattr(weights, "fold_adapters", lambda trained: (data.unlink(), fold(trained)))
    folder = train(experiment("infonce_only", model), [str(data)], tmp_path / "out")
    assert len(read_query_hashes(folder) or ()) == tiny.COUNT


def test_a_folder_of_another_run_is_not_gone_on_with(model: str, labels: str, tmp_path: Path) -> None:
    train(experiment("infonce_only", model), [labels], tmp_path)
    with pytest.raises(ConfigError, match="another experiment"):
        train(experiment("infonce_only", model, "seed=14"), [labels], tmp_path)
    other = tiny.labels(tmp_path / "other.jsonl", 4)
    with pytest.raises(ConfigError, match="another data"):
        train(experiment("infonce_only", model), [str(other)], tmp_path)


def test_the_same_seed_gives_the_same_weights_and_another_one_does_not(
    model: str, labels: str, tmp_path: Path
) -> None:
    folders = [
        train(experiment("cross_encoder", model, f"seed={seed}"), [labels], tmp_path / f"{i}")
        for i, seed in enumerate((1, 1, 2))
    ]
    first, again, other = (scores("cross_encoder", folder) for folder in folders)
    assert (first == again).all() and (first != other).any()


def test_soft_labels_of_queries_without_a_positive_train_where_they_are_let(model: str, tmp_path: Path) -> None:
    path = tmp_path / "soft.jsonl"
    tiny.labels(path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["passages"] = [{**each, "role": ""} for each in row["passages"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match="need_positive: false"):
        train(experiment("kl_margin", model), [str(path)], tmp_path / "strict")
    train(
        experiment("kl_margin", model, "need_positive=false", "stages=[{epochs: 6}]"), [str(path)], tmp_path / "soft"
    )
    (stage,) = record(tmp_path / "soft")["stages"]
    assert stage["losses"]["loss"] < 0.9 * stage["first_loss"]


def test_answer_likelihoods_train_by_their_softmax(model: str, labels: str, tmp_path: Path) -> None:
    wanted = experiment("kl_only", model, "target=answer_nll", "stages=[{epochs: 20}]", "teacher_temperature=0.5")
    folder = train(wanted, [labels], tmp_path)
    right, wrong = scores("bi_encoder", folder)
    odds = math.exp((right - wrong) / wanted.temperature)
    assert odds == pytest.approx(math.exp((0.9 - 0.2) / 0.5), rel=0.35)


def test_tensorboard_events_are_written(model: str, labels: str, tmp_path: Path) -> None:
    train(experiment("infonce_only", model, "report_to=[tensorboard]"), [labels], tmp_path)
    assert list((tmp_path / "checkpoints" / "train").rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_reporter_that_is_not_installed_is_named(name: str, model: str, labels: str, tmp_path: Path) -> None:
    import importlib.util

    if importlib.util.find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(ConfigError, match=f"pip install {name}"):
        train(experiment("infonce_only", model, f"report_to=[{name}]"), [labels], tmp_path)


def test_bf16_and_eager_attention_train(model: str, labels: str, tmp_path: Path) -> None:
    train(experiment("infonce_only", model, "bf16=true", "attention=eager"), [labels], tmp_path)
    assert record(tmp_path)["state"] == "done"


@pytest.mark.parametrize("kind", [BiEncoder(), CrossEncoderKind()])
def test_attention_is_dropped_as_the_experiment_says_or_else_the_model(kind: Kind, model: str) -> None:
    def dropped(*overrides: str) -> set[tuple[bool, float]]:
        loaded = kind.load(load_experiment("infonce_only", overrides), Path(model.removeprefix("path:")))
        layers = ((name, part) for name, part in loaded.named_modules() if isinstance(part, torch.nn.Dropout))
        return {(".attention.self." in name, part.p) for name, part in layers}

    assert {(True, 0.1), (False, 0.1)} <= dropped()
    assert {(True, 0.0), (False, 0.1)} == dropped("attention_dropout=0")


def test_a_checkpoint_that_a_kill_tore_is_passed_over(model: str, labels: str, tmp_path: Path) -> None:
    wanted = experiment("infonce_only", model, "stages=[{name: one, epochs: 3}]", "checkpoint_every=1")
    train(wanted, [labels], tmp_path)
    (tmp_path / "run.json").unlink()
    folder = tmp_path / "checkpoints" / "one"
    (folder / "done").unlink()
    whole, last = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))[-2:]
    assert _last_checkpoint(folder) == str(last)
    (last / "trainer_state.json").write_text('{"epoch"')
    assert _last_checkpoint(folder) == str(whole)
    shutil.rmtree(last)
    last.mkdir()
    (last / "model.safetensors").write_bytes(b"torn")
    train(wanted, [labels], tmp_path)
    assert record(tmp_path)["state"] == "done"
    (whole / "trainer_state.json").unlink()
    shutil.rmtree(last)
    assert _last_checkpoint(folder) is None


def test_a_new_head_starts_at_the_log_odds_of_the_mean_target(model: str, labels: str, tmp_path: Path) -> None:
    kind, path = CrossEncoderKind(), Path(model.removeprefix("path:"))
    data = {"label": [0.9, 0.1, 0.0, 0.0]}

    def bias(folder: Path, loss: str = "bce", targets: dict[str, list[float]] = data) -> float:
        asked = load_experiment("cross_encoder", ["losses.bce=0", f"losses.{loss}=1"])
        loaded = kind.load(asked, folder)
        kind.begin(asked, loaded, Dataset.from_dict(targets))
        return float(loaded.model.classifier.bias.detach())

    assert bias(path) == bias(path, "mse") == pytest.approx(math.log(0.25 / 0.75))
    assert bias(path, targets={"label": [0.0]}) == pytest.approx(math.log(0.001))
    assert bias(path, "pairwise") == 0
    train(experiment("cross_encoder", model), [labels], tmp_path)
    assert bias(tmp_path / "model") == pytest.approx(bias(tmp_path / "model", targets={"label": [0.9]})) != 0


def test_two_processes_train_one_model_and_one_of_them_saves(model: str, labels: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "--no-python", str(Path(sys.executable).with_name("qrelay")), "train", "--experiment", "infonce_only",
               "--data", labels, "--out", str(out), "--json"]  # fmt: skip
    for override in (f"model={model}", *FAST[1:], "batch_size=4", "stages=[{epochs: 2}]"):
        command += ["--set", override]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 1 and json.loads(lines[0])["state"] == "done"
    assert record(out)["stages"][0]["steps"] == 2 * 2, "16 rows in batches of 4 by 2 processes, twice"
    assert scores("bi_encoder", out / "model").shape == (2,)
