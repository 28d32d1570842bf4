"""Passage vectors: embedded shard by shard, resumed after an interruption, reused where nothing changed.

vectors.npy holds a row for each passage (`stored`). After each shard of `SHARD_PASSAGES` the file is synced and
`.scaffold/vectors.done` is replaced by the number of rows that are safe; a later run drops what is beyond and goes
on. Shards start at multiples of the shard size, so an interrupted build embeds the same batches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qrelay.files import write_atomic
from qrelay.index.arrays import NpyWriter, load_array
from qrelay.index.kinds import Form
from qrelay.index.manifest import SCAFFOLD
from qrelay.index.store import PassageStore
from qrelay.index.stored import VECTORS, StoredVectors, row_of, stored
from qrelay.models.embedder import Embedder
from qrelay.progress import step

SHARD_PASSAGES: Final = 256
DONE: Final = f"{SCAFFOLD}/vectors.done"
HASHES: Final = "hashes.npy"


class VectorReuse:
    """Vectors of earlier builds by the same model in the same form, found by the passage's hash.

    Memory: 24 bytes for each passage of those builds, while this build embeds.
    """

    def __init__(self, folders: Sequence[Path], form: Form = "float32") -> None:
        opened = (source for folder in folders if (source := _Source.open(folder)) is not None)
        self._sources = [source for source in opened if source.vectors.form == form]

    def fetch(self, hashes: NDArray[np.uint64], into: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Fill the rows of `into` [n, dim] whose hash [n, 2] is known; answers which were."""
        found = np.zeros(len(hashes), np.bool_)
        for source in self._sources:
            rows = source.find(hashes)
            hit = (rows >= 0) & ~found
            into[hit] = source.vectors.take(rows[hit])
            found |= hit
        return found


class _Source:
    def __init__(self, hashes: NDArray[Any], vectors: StoredVectors) -> None:
        self.vectors = vectors
        self._hashes = hashes
        self._order = np.argsort(hashes[:, 0], kind="stable")
        self._keys = hashes[self._order, 0]

    @classmethod
    def open(cls, folder: Path) -> _Source | None:
        """A finished version, or the finished shards of an interrupted build; None where neither is."""
        try:
            hashes = load_array(folder / HASHES)
            rows = done_rows(folder) if (folder / SCAFFOLD).exists() else len(hashes)
            vectors = StoredVectors.open(folder, rows)
        except (OSError, ValueError):
            return None  # damaged or not that far: only a reason to embed again
        return cls(hashes[:rows], vectors)

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row of each hash, -1 where unknown."""
        if not len(self._keys):
            return np.full(len(hashes), -1)
        place = np.minimum(np.searchsorted(self._keys, hashes[:, 0]), len(self._keys) - 1)
        rows = self._order[place]
        same = (self._hashes[rows] == hashes).all(axis=1)
        return np.where(same, rows, -1)


def done_rows(folder: Path) -> int:
    """How many vectors of an unfinished build are safe."""
    try:
        return int((folder / DONE).read_text("utf8"))
    except (OSError, ValueError):
        return 0


class Embedded(NamedTuple):
    """Passages embedded, reused from other versions, and left by an earlier run; rate: embedded a second."""

    embedded: int
    reused: int
    resumed: int
    rate: float


def embed_passages(
    folder: Path, embedder: Embedder, earlier: Sequence[Path], name: str, form: Form = "float32"
) -> Embedded:
    """Write vectors.npy for the store in `folder`, going on where an earlier run stopped; `name` is the step's.
    earlier: folders of vectors by the same model."""
    began = time.monotonic()
    reuse, store, hashes = VectorReuse(earlier, form), PassageStore(folder), load_array(folder / HASHES)
    start = min(done_rows(folder), len(store))
    embedded = 0
    with (
        step(name, total=len(store), unit="passages", done=start) as embedding,
        NpyWriter(folder / VECTORS, *row_of(form, embedder.dim), keep_rows=start) as out,
    ):
        for first in range(start, len(store), SHARD_PASSAGES):
            rows = np.arange(first, min(first + SHARD_PASSAGES, len(store)))
            shard = np.empty((len(rows), embedder.dim), np.float32)
            missing = ~reuse.fetch(hashes[rows], shard)
            if missing.any():
                shard[missing] = embedder.encode(store.passage_texts(rows[missing].tolist()), "document")
            embedded += int(missing.sum())
            out.append(stored(shard, form))
            out.sync()
            write_atomic(folder / DONE, str(out.rows))
            embedding.advance(len(rows))
    rate = embedded / max(time.monotonic() - began, 1e-9)
    return Embedded(embedded, len(store) - start - embedded, start, round(rate, 2))
