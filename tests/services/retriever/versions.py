"""A registry whose bi-encoders are doubles: a version's vectors are the hash embedder's times a factor of its own, so
that a dense score tells which models computed both its vectors."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qrelay.models.embedder import Embedder, HashEmbedder, TextKind, Vectors
from qrelay.models.engines import EncoderEngine
from qrelay.models.registry import BI_ENCODER, Registry
from tests.conftest import LONG_S


class Times(HashEmbedder):
    """See the module."""

    def __init__(self, factor: int) -> None:
        self.factor, self.texts = factor, 0
        self.name, self.fingerprint = f"times{factor}", f"times{factor}@1"

    def encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        self.texts += len(texts)
        vectors: Vectors = super().encode(texts, kind) * np.float32(self.factor)
        return vectors


def load(name: str, *, engine: EncoderEngine = "torch", threads: int = 0, dim: int = 0) -> Embedder:
    """What the service is given in place of `load_embedder`."""
    if name == "hash":
        return HashEmbedder()
    return Times(json.loads((Path(name.removeprefix("path:")) / "config.json").read_text())["factor"])


def published(registry: Registry, factor: int, slot: str = BI_ENCODER) -> str:
    """A candidate of this factor that has passed the gate against what serves."""
    folder = registry.folder.parent / f"trained-{factor}"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"factor": factor}))
    return registry.publish(folder, slot=slot, base="hash@1")


def promoted(registry: Registry, factor: int, slot: str = BI_ENCODER) -> str:
    """Publish and promote."""
    version = published(registry, factor, slot)
    registry.record_gate(version, {"passed": True, "against": registry.standing().serving(slot)})
    registry.promote(version)
    return version


class Held:
    """`load`, which waits with registered models until it is let go. In the place of a service's loader."""

    def __init__(self) -> None:
        self.loading, self.let_go = threading.Event(), threading.Event()

    def __call__(self, name: str, *, engine: EncoderEngine = "torch", threads: int = 0, dim: int = 0) -> Embedder:
        if name != "hash":
            self.loading.set()
            assert self.let_go.wait(LONG_S)
        return load(name, engine=engine, threads=threads, dim=dim)
