"""The embedding models in service: each loaded once, shared between collections, gone when no index uses it.

An index names the model whose vectors it holds, and the engine that computed them: the configured model in torch or
openvino, or a version of the registry (`bi-encoder-…@registry`), which runs in torch, as the gate measured it. Its
queries are embedded by that model in that engine and no other.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from qrelay.errors import ModelError
from qrelay.models.embedder import Embedder, load_embedder
from qrelay.models.engines import EncoderEngine, dim_of, engine_of
from qrelay.models.registry import BI_ENCODER, Registry, ServedVersion, Serving
from qrelay.progress import step

_REGISTERED: Final = "@registry"
_Form = tuple[EncoderEngine, int]
"""What computes a model, and how many numbers of its vectors are kept; 0: all."""


def registered(fingerprint: str) -> str:
    """The version of the registry whose fingerprint it is; "": of none."""
    version, at, _ = fingerprint.partition(_REGISTERED)
    return version.partition("+")[0] if at else ""


class Load(Protocol):
    """What loads an embedding model; `load_embedder`, or a test's."""

    def __call__(self, name: str, *, engine: EncoderEngine = "torch", threads: int = 0, dim: int = 0) -> Embedder:
        """name: "hash", a catalogue name or `path:FOLDER`. dim: kept of its vectors; 0: all."""


def load_version(registry: Registry, version: str, load: Load = load_embedder, threads: int = 0) -> Embedder:
    """A registry's version, its files checked against its manifest, under its own name.

    Raises:
        ModelError: it is damaged, or cannot be loaded; the text says how to roll back.
    """
    slot = BI_ENCODER
    try:
        with step(f"loading {version}"):
            slot = registry.manifest(version).slot
            served = ServedVersion(version, slot, registry.model_dir(version))
            registry.verify(version)
            embedder = load(f"path:{served.path}", threads=threads)
    except Exception as error:  # whatever a model library raises
        raise ModelError(
            f"the embedder {version} of the registry {registry.folder} cannot be loaded: {error}. Restore it, or go "
            f"back to the model before it: `qrelay models rollback {slot}`"
        ) from error
    embedder.name, embedder.fingerprint = version, served.fingerprint
    return embedder


class Embedders:
    """See the module. `configured`: the name in the settings, `engine` and `dim`: what computes it, and how much of
    its vectors is kept, where no index says it; `threads`: of torch, for the process, and of a model in openvino."""

    def __init__(
        self,
        configured: str,
        registry: Registry,
        load: Load,
        threads: int = 0,
        engine: EncoderEngine = "torch",
        dim: int = 0,
    ) -> None:
        self.registry = registry
        self._configured, self._load, self._threads = configured, load, threads
        self._own: _Form = engine, dim
        self._fingerprints: dict[_Form, str] = {}
        self._kept: Embedder | None = None
        self._loaded: weakref.WeakValueDictionary[str, Embedder] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def has(self, fingerprint: str) -> bool:
        """Whether `of` answers at once."""
        return fingerprint in self._loaded

    def of(self, fingerprint: str) -> Embedder:
        """The registry's version of this fingerprint, or else the configured model in the fingerprint's engine and
        dimensions ("": in the configured ones); its fingerprint may differ.

        Raises:
            ModelError: it is absent or damaged, or its engine is not to be had.
        """
        version = registered(fingerprint)
        form: _Form = (engine_of(fingerprint), dim_of(fingerprint)) if fingerprint else self._own
        name = fingerprint if version else self._fingerprints.get(form, "")
        with self._lock:
            found = self._loaded.get(name)
            if found is None:
                registry, load = self.registry, self._load
                found = self._kept = load_version(registry, version, load) if version else self._model(form)
                self._loaded[found.fingerprint] = found
                limit_threads(self._threads)
            return found

    def let_go(self) -> None:
        """Keep no model any longer only because it was the last one loaded."""
        self._kept = None

    def _model(self, form: _Form) -> Embedder:
        engine, dim = form
        found = self._load(self._configured, engine=engine, threads=self._threads, dim=dim)
        self._fingerprints[form] = found.fingerprint
        return found

    def wanted(self) -> Wanted:
        """The models that shall serve by now. Raises ModelError: the registry's history is damaged."""
        return Wanted(self.registry.serving_all(BI_ENCODER), self.configured)

    def configured(self) -> str:
        """Fingerprint of the configured model; loads it once to know."""
        return self._fingerprints.get(self._own) or self.of("").fingerprint


@dataclass(frozen=True, slots=True)
class Wanted:
    """The models that shall serve, as of one look at the registry. `configured`: answers the configured model's
    fingerprint, and loads it where that is not known yet."""

    serving: Serving
    configured: Callable[[], str]

    def of(self, collection: str) -> str:
        """Fingerprint of the model that shall serve the collection: the version of its own slot, else of the default
        slot, else the configured model. Raises ModelError: the configured model is absent."""
        served = self.serving.of(collection)
        return served.fingerprint if served else self.configured()


def limit_threads(threads: int) -> None:
    """Embedding gets `threads`; numpy's BLAS one, because its idle workers spin and take the embedder's cores:
    with one each, 32 queries took 190 ms instead of 260 (2 busy cores, 51,000 passages)."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1, user_api="blas")
    if threads and (torch := sys.modules.get("torch")):
        torch.set_num_threads(threads)
