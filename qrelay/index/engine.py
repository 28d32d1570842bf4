"""Engines: who finds the candidates, and where the versions of an engine's collections stand.

| engine | finds by |
|---|---|
| EmbeddedEngine (embedded.py) | bm25s and dense search over memory-mapped vectors, on this machine |
| HttpEngine (http/) | a search engine of the user's own, asked over HTTP |
| MilvusEngine (milvus/) | BM25 and dense search in a Milvus cluster |
| SyntheticEngine (synthetic.py) | the fake: made-up candidates for pipeline benchmarks, no model |
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qrelay.errors import QrelayError
from qrelay.types import Candidate

Vectors = NDArray[np.float32]
Found = list[tuple[Candidate, ...] | QrelayError]
"""Of each query its candidates, best first, or the error of that query alone."""


class Engine(Protocol):
    """Finds candidates in one version of one collection. Shared between threads."""

    @property
    def version(self) -> str:
        """The index version that answers come from."""

    @property
    def embedder(self) -> str:
        """Fingerprint of the model whose query vectors `search` needs; "" where it needs none."""

    @property
    def name(self) -> str:
        """What a candidate set's trace calls an engine that needs no model."""

    def search(self, texts: Sequence[str], vectors: Vectors | None, limit: int) -> Found:
        """At most `limit` candidates for each text. vectors: [len(texts), dim].

        Raises:
            QrelayError: none of the texts can be answered.
        """

    def describe(self) -> dict[str, str]:
        """Facts for GetInfo, such as counts."""


class Versions(Protocol):
    """Where an engine's collections and their current versions stand."""

    def marks(self) -> Mapping[str, Hashable]:
        """Of each collection that has a version and shall be served: a mark, which changes when another version
        becomes the current one. Called every second or so.

        Raises:
            QrelayError: it cannot be told now; what is served goes on being served.
        """

    def open(self, name: str) -> Engine:
        """The current version of a collection.

        Raises:
            CorpusIndexError: there is none, or it is damaged.
        """

    def reembed_command(self, name: str, model: str) -> str:
        """The command that embeds a collection again. model: as its option --model takes it, with the engine."""


class Followed(Versions, Protocol):
    """Versions that may be of another model than the one that shall serve."""

    def catch_up(
        self, wanted: Callable[[str], str], concerns: Callable[[str, str], bool]
    ) -> tuple[dict[str, Path], list[str]]:
        """Make a version of the model that each collection wants (by its name) the current one, where there is one of
        the same passages. concerns: asked whether a collection may be switched from a model to another.

        Returns:
            The collections without such a version, with the folders in which they would be re-embedded, and what is
            wrong with others.
        """
