"""Approximate nearest neighbours by FAISS: which index, built how, searched how widely.

| kind | FAISS | bytes a vector | while it serves |
|---|---|---|---|
| exact | none: a matrix product over the stored vectors | 0 | vectors.npy, mapped from disk; each batch reads all |
| hnsw | HNSW over 8-bit codes | dim + 8 links + 16 | mapped from disk (IO_FLAG_MMAP_IFC alone does) |
| ivf-sq | inverted lists of 8-bit codes | dim + 8 | its lists are mapped from disk |
| ivf-pq | inverted lists of product-quantised codes | dim / 8 + 8 | its lists are mapped from disk |

Whatever FAISS proposes is scored again with the stored vectors, so scores do not depend on its codes. (A rotation
before the product quantiser, OPQ, took minutes to train for 51,062 vectors; with eight proposals a neighbour the
recall is 0.99 without.)

A build survives a kill: the index is written after each `CHECKPOINT_ROWS` vectors. Memory: the index, and before it
the training sample. (Lists merged on disk would need less, but FAISS then writes to standard output wherever it finds
the file in another folder than it was built in.)

After the build, how widely to search (`effort`: HNSW's efSearch, or the number of lists) is raised until the recall
against exact search is the wanted one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import psutil
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from qrelay.errors import CorpusIndexError, SetupError
from qrelay.index.kinds import KINDS, AnyKind, Kind
from qrelay.index.stored import StoredVectors, Vectors
from qrelay.progress import step

INDEX: Final = "ann.faiss"
EXACT_UPTO: Final = 1 << 16
"""Vectors up to which exact search costs less than embedding the query: 1.3 ms at 50,000 of 384 dimensions, 4.7 at
100,000, where HNSW takes 0.4 and 0.5 (one thread, batches of 32)."""
CHECKPOINT_ROWS: Final = 1 << 18
STEP_ROWS: Final = 1 << 13
TRAINING_BYTES: Final = 384 * 1024**2
RECALL_AT: Final = 100
CONSTRUCTION: Final = 200
"""HNSW's efConstruction."""
_A_LIST: Final = 40
"""Training vectors for each inverted list, about as few as k-means takes without complaint."""
_SUBVECTOR: Final = 8
"""Dimensions that one byte of a product-quantised code stands for."""
_FETCH: Final[Mapping[Kind, float]] = {"hnsw": 1.3, "ivf-sq": 1.3, "ivf-pq": 8.0}
"""Proposals for each wanted neighbour, which the stored vectors put in order."""
_WIDER: Final = 1.4


@dataclass(frozen=True, slots=True)
class AnnRequest:
    """What is asked for. recall: of the `RECALL_AT` best, least that is accepted; links: of a graph's nodes; memory:
    bytes that the index may take while it serves, 0: half of the machine's."""

    kind: AnyKind = "auto"
    recall: float = 0.98
    links: int = 32
    memory: int = 0

    @property
    def parameters(self) -> dict[str, int | float | str]:
        """What of it decides a version's content, where it is not the default."""
        default = _named(AUTO)
        return {name: value for name, value in _named(self).items() if value != default[name]}

    @classmethod
    def of(cls, parameters: Mapping[str, int | float | str]) -> Self:
        """What a version's parameters ask for."""
        found = {**_named(AUTO), **parameters}
        return cls(_kind(found["ann"]), float(found["ann_recall"]), int(found["ann_links"]))

    def choose(self, vectors: int, dim: int) -> Kind:
        """The kind for so many vectors."""
        if self.kind != "auto":
            return self.kind
        if vectors <= EXACT_UPTO:
            return "exact"
        memory = self.memory or psutil.virtual_memory().total // 2
        fitting = (kind for kind in KINDS[1:] if vectors * bytes_a_vector(kind, dim, self.links) <= memory)
        return next(fitting, "ivf-pq")


def _named(request: AnnRequest) -> dict[str, int | float | str]:
    """As a version's parameters name it."""
    return {"ann": request.kind, "ann_recall": request.recall, "ann_links": request.links}


AUTO: Final = AnnRequest()


def _kind(name: object) -> AnyKind:
    return next((kind for kind in KINDS if kind == name), "auto")


class Approximation(BaseModel):
    """Of a built index. effort: as searched; recall: of the `recall_at` best, the mean over `queries` questions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    effort: int
    recall: float
    recall_at: int
    queries: int
    seconds: float


def bytes_a_vector(kind: Kind, dim: int, links: int) -> int:
    """See the table; vectors.npy comes on top."""
    return {"exact": 0, "hnsw": dim + 8 * links + 16, "ivf-sq": dim + 8, "ivf-pq": dim // _SUBVECTOR + 8}[kind]


def faiss_name(kind: Kind, vectors: int, dim: int, links: int) -> str:
    """For faiss.index_factory."""
    lists = min(1 << max(2, round(math.log2(4 * math.sqrt(vectors)))), max(1, vectors // _A_LIST))
    codes = next(count for count in range(max(1, dim // _SUBVECTOR), 0, -1) if dim % count == 0)
    return {
        "hnsw": f"HNSW{links}_SQ8",
        "ivf-sq": f"IVF{lists},SQ8",
        "ivf-pq": f"IVF{lists},PQ{codes}x8",
    }[kind]


def build_ann(stored: StoredVectors, out: Path, scaffold: Path, kind: Kind, links: int) -> None:
    """Write the index of all stored vectors into `out`, going on where a killed run stopped; `scaffold`: the folder
    for what only the build needs."""
    import faiss

    partial = scaffold / "ann.partial"
    with step(f"approximate index ({kind})", total=len(stored), unit="vectors") as building:
        index = faiss.read_index(str(partial)) if partial.exists() else _trained(stored, kind, links)
        while index.ntotal < len(stored):
            stop = min(len(stored), (index.ntotal // CHECKPOINT_ROWS + 1) * CHECKPOINT_ROWS)
            for first in range(index.ntotal, stop, STEP_ROWS):
                index.add(stored.take(np.arange(first, min(first + STEP_ROWS, stop))))
                building.at(index.ntotal)
            _save(index, partial)
    partial.replace(out / INDEX)


def _trained(stored: StoredVectors, kind: Kind, links: int) -> Any:
    import faiss

    index = faiss.index_factory(
        stored.dim, faiss_name(kind, len(stored), stored.dim, links), faiss.METRIC_INNER_PRODUCT
    )
    sample = min(len(stored), TRAINING_BYTES // (4 * stored.dim))
    rows = np.sort(np.random.default_rng(0).choice(len(stored), sample, replace=False))
    index.train(stored.take(rows))
    if kind == "hnsw":
        index.hnsw.efConstruction = CONSTRUCTION
    return index


def _save(index: Any, path: Path) -> None:
    """Whole or absent."""
    import faiss

    begun = path.with_name(f"{path.name}.begun")
    faiss.write_index(index, str(begun))
    begun.replace(path)


class AnnSearch:
    """A built index, mapped from disk where FAISS can. Safe to share between threads."""

    def __init__(self, folder: Path, kind: Kind, dead: NDArray[np.int64]) -> None:
        """dead: rows that are never proposed. Raises CorpusIndexError: FAISS cannot read the files."""
        import faiss

        flags = faiss.IO_FLAG_MMAP_IFC if kind == "hnsw" else faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_MMAP
        try:
            self._index = faiss.read_index(str(folder / INDEX), flags)
        except RuntimeError as error:
            raise CorpusIndexError(
                f"{folder / INDEX} is damaged ({error}); remove the folder and run `qrelay index build` again"
            ) from error
        self._kind = kind
        self._selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(dead)) if len(dead) else None
        self._dead = dead

    def near(self, vectors: Vectors, k: int, effort: int) -> list[NDArray[np.int64]]:
        """For each vector the rows that may be among its k nearest."""
        fetch = min(self._index.ntotal, math.ceil(k * _FETCH[self._kind]))
        _, rows = self._index.search(vectors, fetch, params=self._parameters(max(effort, 1), fetch))
        return [found[found >= 0] for found in rows]

    @property
    def widest(self) -> int:
        """The effort above which a search is hardly approximate any more."""

        if self._kind == "hnsw":
            return int(min(self._index.ntotal, 4096))
        return int(self._index.nlist)

    def _parameters(self, effort: int, fetch: int) -> Any:
        import faiss

        more = {"sel": self._selector} if self._selector else {}
        if self._kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(effort, fetch), **more)
        return faiss.SearchParametersIVF(nprobe=effort, **more)


def tuned(
    search: AnnSearch, kind: Kind, stored: StoredVectors, queries: Vectors, wanted: float, seconds: float
) -> Approximation:
    """The least effort whose recall is the wanted one. queries: [n, dim]. seconds: that the build took.

    Raises:
        SetupError: no effort gives that recall; the text says what to change.
    """
    k = min(RECALL_AT, len(stored))
    exact = [near for block in _of(queries) for near in _exact(stored, block, k)]
    recall = 0.0
    for effort in efforts(math.ceil(k * _FETCH[kind]) if kind == "hnsw" else 4, search.widest):
        proposed = search.near(queries, k, effort)
        ordered = [best(stored, rows, query, k) for rows, query in zip(proposed, queries, strict=True)]
        recall = float(
            np.mean([len(np.intersect1d(one, other)) / k for one, other in zip(exact, ordered, strict=True)])
        )
        if recall >= wanted:
            return Approximation(
                kind=kind, effort=effort, recall=recall, recall_at=k, queries=len(queries), seconds=seconds
            )
    raise SetupError(
        f"the approximate index ({kind}) finds {recall:.1%} of the {k} nearest passages, wanted are {wanted:.1%}: "
        + _ADVICE[kind]
    )


_ADVICE: Final[Mapping[str, str]] = {
    "hnsw": "raise retriever.ann_links, or take --ann ivf-sq or --ann exact, or lower retriever.ann_recall",
    "ivf-sq": "take --ann hnsw or --ann exact, or lower retriever.ann_recall",
    "ivf-pq": "take --ann ivf-sq or raise retriever.ann_memory_gb, or lower retriever.ann_recall",
}


def efforts(least: int, widest: int) -> Iterator[int]:
    """From the least to the widest, each about 40 % above the one before."""
    effort = least
    while effort < widest:
        yield effort
        effort = math.ceil(effort * _WIDER)
    yield widest


def best(stored: StoredVectors, rows: NDArray[np.int64], query: Vectors, k: int) -> NDArray[np.int64]:
    """The k of `rows` whose stored vectors are nearest to the query."""
    scores = stored.take(rows) @ query
    return rows[np.argsort(-scores, kind="stable")[:k]]


def _of(queries: Vectors, many: int = 16) -> Sequence[Vectors]:
    return [queries[start : start + many] for start in range(0, len(queries), many)]


def _exact(stored: StoredVectors, queries: Vectors, k: int) -> list[NDArray[np.int64]]:
    scores = stored.similarities(queries)
    return list(np.argpartition(-scores, k - 1, axis=1)[:, :k])
