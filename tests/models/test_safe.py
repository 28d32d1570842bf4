"""A pickle among a model's files is refused by every loader, and never run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qrelay.errors import ConfigError, ModelError, QrelayError
from qrelay.llm.transformers import _load_model
from qrelay.llm.weights_folder import load_unpacked
from qrelay.models.catalogue import parse_catalogue, resolve
from qrelay.models.loading import load_encoder
from qrelay.models.records import ResolvedModel
from qrelay.models.safe import pickles
from qrelay.training.bi_encoder import BiEncoder
from qrelay.training.cross_encoder import CrossEncoderKind
from qrelay.training.experiment import load_experiment
from tests import tiny

Load = Callable[[Path], Any]


class Planted:
    """Unpickled, it writes its mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.write_text, (self.mark, "run")


def _encoder(kind: Any) -> Load:
    return lambda folder: load_encoder(kind, ResolvedModel(folder, "m", "r", "f32"), 32)


LOADERS: dict[str, Load] = {
    "embedder": _encoder("SentenceTransformer"),
    "reranker": _encoder("CrossEncoder"),
    "trained bi-encoder": lambda folder: BiEncoder().load(load_experiment("kl_margin", {}), folder),
    "trained cross-encoder": lambda folder: CrossEncoderKind().load(load_experiment("cross_encoder", {}), folder),
    "judge in transformers": lambda folder: _load_model(folder, "float32", "cpu"),
    "judge to be converted": lambda folder: load_unpacked(folder, "float32"),
}


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def model(tmp_path: Path, mark: Path) -> Path:
    """A whole model whose weights are a pickle, in files that ask for it to be trusted."""
    folder = tiny.bi_encoder(tmp_path / "model", ["a", "b"], seed=1)
    (folder / "model.safetensors").unlink()
    torch.save(Planted(mark), folder / "pytorch_model.bin")
    told = {"max_seq_length": 32, "model_kwargs": {"use_safetensors": False, "weights_only": False}}
    (folder / "sentence_bert_config.json").write_text(json.dumps(told), "utf8")
    return folder


def test_what_is_planted_here_runs_where_a_pickle_is_trusted(model: Path, mark: Path) -> None:
    torch.load(model / "pytorch_model.bin", weights_only=False)
    assert mark.read_text() == "run"


@pytest.mark.parametrize("loader", LOADERS)
def test_no_loader_runs_a_pickle(loader: str, model: Path, mark: Path) -> None:
    with pytest.raises((QrelayError, OSError, ValueError)):
        LOADERS[loader](model)
    assert not mark.exists()


def test_a_layer_of_its_own_folder_is_no_way_in(tmp_path: Path, mark: Path) -> None:
    folder = tiny.bi_encoder(tmp_path / "model", ["a", "b"], seed=1, dense=8)
    (weights,) = folder.glob("*Dense/model.safetensors")
    weights.unlink()
    torch.save(Planted(mark), weights.with_name("pytorch_model.bin"))
    with pytest.raises(ModelError, match=r"Dense/pytorch_model\.bin"):
        resolve(f"path:{folder}", home=tmp_path / "home")
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        LOADERS["embedder"](folder)
    assert not mark.exists()


def test_a_folder_whose_weights_are_a_pickle_is_refused_before_any_library_sees_it(
    model: Path, mark: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*safetensors"):
        resolve(f"path:{model}", home=tmp_path / "home")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["weights.pt", "weights.PKL", "model.joblib", "adapter_model.bin", "last.ckpt"])
def test_a_file_that_is_a_pickle_by_its_name_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps([1]))
    with pytest.raises(ModelError, match="can run code"):
        resolve(f"path:{tmp_path / name}", home=tmp_path / "home")


def test_a_pickle_that_is_called_safetensors_is_not_read(model: Path, mark: Path) -> None:
    (model / "pytorch_model.bin").rename(model / "model.safetensors")
    with pytest.raises(ModelError):
        LOADERS["embedder"](model)
    assert not mark.exists()


def test_a_pickle_beside_safetensors_does_no_harm_and_is_not_read(tmp_path: Path, mark: Path) -> None:
    folder = tiny.bi_encoder(tmp_path / "model", ["a", "b"], seed=1)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        torch.save(Planted(mark), folder / name)
    load_encoder("SentenceTransformer", resolve(f"path:{folder}", home=tmp_path / "home"), 32)
    assert not mark.exists()


def test_weights_of_openvino_are_no_pickle() -> None:
    assert pickles(["openvino/model.xml", "openvino/model.bin", "m.gguf", "tokenizer.json"]) == []
    assert pickles(["a/model.xml", "b/model.bin"]) == ["b/model.bin"]


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path, mark: Path) -> None:
    folder = tiny.bi_encoder(tmp_path / "model", ["a", "b"], seed=1)
    (folder / "own.py").write_text(f"import pathlib; pathlib.Path({str(mark)!r}).write_text('run')\n", "utf8")
    parts = json.loads((folder / "modules.json").read_text("utf8"))
    parts[-1]["type"] = "own.Own"
    (folder / "modules.json").write_text(json.dumps(parts), "utf8")
    config = json.loads((folder / "config.json").read_text("utf8"))
    config["auto_map"] = {"AutoModel": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoConfig": "own.Own"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own"}), "utf8")
    for loader in LOADERS.values():
        with pytest.raises((QrelayError, OSError, ValueError)):
            loader(folder)
    assert not mark.exists()


def test_a_catalogue_lists_no_pickle() -> None:
    text = f"""
models:
  - {{name: m, task: embedding, quantisation: f32, licence: MIT, files: [
      {{path: pytorch_model.bin, size_bytes: 1, sha256: {"a" * 64}}}]}}
"""
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin may hold a pickle"):
        parse_catalogue(text, "mine.yaml")
