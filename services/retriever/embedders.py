"""The embedding models in service: each loaded once, shared between collections, gone when no index uses it.

An index names the model whose vectors it holds: the configured one, or a version of the registry
(`bi-encoder-…@registry`). Its queries are embedded by that model and no other.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from typing import Final

from qrelay.errors import ModelError
from qrelay.models.embedder import Embedder, load_embedder
from qrelay.progress import step
from qrelay.registry import BI_ENCODER, Registry, ServedVersion

REGISTERED: Final = "@registry"
Load = Callable[[str], Embedder]


def load_version(registry: Registry, version: str, load: Load = load_embedder) -> Embedder:
    """A registry's version, its files checked against its manifest, under its own name.

    Raises:
        ModelError: it is damaged, or cannot be loaded; the text says how to roll back.
    """
    served = ServedVersion(version, BI_ENCODER, registry.model_dir(version))
    try:
        with step(f"loading {version}"):
            registry.verify(version)
            embedder = load(f"path:{served.path}")
    except Exception as error:  # whatever a model library raises
        raise ModelError(
            f"the embedder {version} of the registry {registry.folder} cannot be loaded: {error}. Restore it, or go "
            f"back to the model before it: `qrelay models rollback {BI_ENCODER}`"
        ) from error
    embedder.name, embedder.fingerprint = version, served.fingerprint
    return embedder


class Embedders:
    """See the module. `configured`: the name in the settings; `threads`: of torch, for the process."""

    def __init__(self, configured: str, registry: Registry, load: Load, threads: int = 0) -> None:
        self.registry = registry
        self._configured, self._load, self._threads = configured, load, threads
        self._configured_fingerprint = ""
        self._kept: Embedder | None = None
        self._loaded: weakref.WeakValueDictionary[str, Embedder] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def has(self, fingerprint: str) -> bool:
        """Whether `of` answers at once."""
        return fingerprint in self._loaded

    def of(self, fingerprint: str) -> Embedder:
        """The registry's version of this fingerprint, or else the configured model, whose fingerprint may differ.

        Raises:
            ModelError: it is absent or damaged.
        """
        name = fingerprint if fingerprint.endswith(REGISTERED) else self._configured_fingerprint
        with self._lock:
            found = self._loaded.get(name)
            if found is None:
                found = self._kept = self._fresh(fingerprint)
                self._loaded[found.fingerprint] = found
                limit_threads(self._threads)
            return found

    def let_go(self) -> None:
        """Keep no model any longer only because it was the last one loaded."""
        self._kept = None

    def _fresh(self, fingerprint: str) -> Embedder:
        if fingerprint.endswith(REGISTERED):
            return load_version(self.registry, fingerprint.removesuffix(REGISTERED), self._load)
        found = self._load(self._configured)
        self._configured_fingerprint = found.fingerprint
        return found

    def wanted(self) -> str:
        """Fingerprint of the model that shall serve: the promoted version, else the configured one.

        Raises:
            ModelError: the registry's history is damaged, or the configured model is absent.
        """
        served = self.registry.serving(BI_ENCODER)
        return served.fingerprint if served else self.configured()

    def configured(self) -> str:
        """Fingerprint of the configured model; loads it once to know."""
        return self._configured_fingerprint or self.of("").fingerprint


def limit_threads(threads: int) -> None:
    """Embedding gets `threads`; numpy's BLAS one, because its idle workers spin and take the embedder's cores:
    with one each, 32 queries took 190 ms instead of 260 (2 busy cores, 51,000 passages)."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1, user_api="blas")
    if threads and (torch := sys.modules.get("torch")):
        torch.set_num_threads(threads)
