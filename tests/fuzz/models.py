"""Files of models and their registry, and the catalogue of models."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from qrelay.models.catalogue import load_catalogue
from qrelay.models.encoding import encoding, own_length
from qrelay.models.home import file_hashes
from qrelay.models.registry import Registry
from qrelay.models.registry.card import card
from qrelay.training.evaluation.embedding import _load as kept_vectors
from qrelay.training.evaluation.systems import is_cross_encoder
from tests.fuzz.parser import ROOT, Parser, beside, constant, file, written
from tests.models.registry.models import passed, published


def _registry(folder: Path) -> Registry:
    clock = iter(range(1_700_000_000_000_000, 1_800_000_000_000_000, 1_000_000))
    registry = Registry(folder / "registry", lambda: next(clock))
    one = passed(registry, published(registry, "w1"))
    registry.promote(one, by="ana")
    passed(registry, published(registry, "w2", parent=one), one, why="better", rows=[])
    return registry


def _all_of_it(folder: Path) -> None:
    """As services, the sink's ListModels, the commands and the card of a push read the registry."""
    from qrelay.models.registry.describe import versions
    from qrelay.services.sink.models import _listed

    registry = Registry(folder / "registry")
    at, taints = registry.standing(), registry.taints()
    versions(registry)
    _listed(registry, "").SerializeToString()
    for slot in ("bi_encoder", "cross_encoder"):
        if served := registry.serving(slot):
            served.fingerprint.encode()
    for name, found in at.versions.items():
        manifest = registry.manifest(name)
        card(
            manifest,
            repo="a/b",
            state=found.state.value,
            gate=found.gate,
            tainted_by=taints.get(name, []),
            datasets=(),
        )
        registry.verify(name)


def _registry_seed(pattern: str) -> Callable[[Path], Sequence[bytes]]:
    def seeds(folder: Path) -> Sequence[bytes]:
        _registry(folder)
        return [sorted(folder.glob(pattern))[-1].read_bytes()]

    return seeds


def _registry_file(pattern: str) -> Callable[[bytes, Path], None]:
    def call(data: bytes, folder: Path) -> None:
        _registry(folder)
        sorted(folder.glob(pattern))[-1].write_bytes(data)
        _all_of_it(folder)

    return call


def _catalogue(path: Path) -> None:
    load_catalogue({"QRELAY_CATALOGUE": str(path)})


def _vectors(folder: Path) -> None:
    np.savez(folder / "kept.npz", vectors=np.zeros((2, 3), np.float32), key=np.array("k"))


def _model_folder(name: str, document: Any) -> Parser:
    """A file of a model that says how it reads texts."""

    def others(folder: Path) -> None:
        (folder / "modules.json").write_text('[{"path": ""}]')
        (folder / "config.json").write_text('{"max_position_embeddings": 512}')

    def read(folder: Path) -> None:
        encoding(folder)
        own_length(folder)
        is_cross_encoder(folder)

    return Parser(f"model: {name}", "json", constant(json.dumps(document)), beside(others, name, read))


def _marker(folder: Path) -> None:
    (folder / "weights").write_bytes(b"x")
    file_hashes(folder, ["weights"], folder / "marker.json")


PARSERS: Final = (
    Parser(
        "model catalogue",
        "yaml",
        lambda _: [(ROOT / "qrelay/models/catalogue.yaml").read_bytes()],
        file("c.yaml", _catalogue),
        cost=3,
    ),
    Parser(
        "registry's event",
        "json",
        _registry_seed("registry/events/*.json"),
        _registry_file("registry/events/*.json"),
        cost=5,
    ),
    Parser(
        "registry's manifest",
        "json",
        _registry_seed("registry/versions/*/manifest.json"),
        _registry_file("registry/versions/*/manifest.json"),
        cost=5,
    ),
    Parser(
        "kept vectors", "bytes", written("kept.npz", _vectors), file("kept.npz", lambda path: kept_vectors(path, "k"))
    ),
    _model_folder("modules.json", [{"idx": 0, "name": "0", "path": "", "type": "Transformer"}]),
    _model_folder(
        "config.json", {"architectures": ["BertForSequenceClassification"], "max_position_embeddings": 512}
    ),
    _model_folder("tokenizer_config.json", {"model_max_length": 512}),
    _model_folder("sentence_bert_config.json", {"max_seq_length": 256}),
    _model_folder(
        "config_sentence_transformers.json", {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    ),
    Parser(
        "model's verification marker",
        "json",
        written("marker.json", _marker),
        beside(_marker, "marker.json", _marker),
    ),
)
