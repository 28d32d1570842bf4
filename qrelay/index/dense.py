"""Dense search over one version's stored vectors: exact, or approximate by FAISS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from qrelay.index.ann import AnnSearch, Approximation
from qrelay.index.ranking import near_top
from qrelay.index.stored import StoredVectors, Vectors

Rows = NDArray[np.int64]
_SIMILARITY_BYTES: Final = 64 * 1024**2
"""Most memory for one block of query-passage similarities."""


class Dense(Protocol):
    """Proposes neighbours. Shared between threads."""

    def near(self, vectors: Vectors, k: int) -> Iterator[Rows]:
        """For each of [n, dim] the rows that may be among its k nearest, more than k where that is undecided."""


class ExactDense:
    """A matrix product with all vectors."""

    def __init__(self, vectors: StoredVectors, dead: Rows) -> None:
        self._vectors, self._dead = vectors, dead

    def near(self, vectors: Vectors, k: int) -> Iterator[Rows]:
        block = max(1, _SIMILARITY_BYTES // (4 * len(self._vectors)))
        for start in range(0, len(vectors), block):
            for similar in self._vectors.similarities(vectors[start : start + block]):
                if not len(self._dead):
                    yield near_top(similar, k)
                    continue
                similar[self._dead] = -np.inf
                rows = near_top(similar, k)
                yield rows[np.isfinite(similar[rows])]


class ApproximateDense:
    """FAISS, as widely as the build found right for the wanted recall."""

    def __init__(self, search: AnnSearch, facts: Approximation) -> None:
        self._search, self._effort = search, facts.effort

    def near(self, vectors: Vectors, k: int) -> Iterator[Rows]:
        yield from self._search.near(vectors, k, self._effort)


def open_dense(folder: Path, vectors: StoredVectors, facts: Approximation | None, dead: Rows) -> Dense:
    """What a version's manifest says. Raises CorpusIndexError: FAISS cannot read its files."""
    if facts is None:
        return ExactDense(vectors, dead)
    return ApproximateDense(AnnSearch(folder, facts.kind, dead), facts)
