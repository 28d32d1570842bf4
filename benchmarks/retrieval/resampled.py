"""A corpus of any size made from a real index: real text resampled, real vectors with noise.

The first passages are the base's own, with their own vectors, so that real questions meet real neighbours. Each
further one is made of the middle thirds of three passages drawn at random, and its vector is the first one's with
Gaussian noise of length `NOISE`, brought back to unit length: a cosine of about 0.86 to the original, between that of
two windows of one document (0.8 to 0.95) and of two documents on one topic. Everything follows from the seed. Noisy
copies make clusters, which flatter an index of lists and punish one of product-quantised codes: so recall is measured
on the real vectors alone as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from qrelay.index.manifest import read_manifest
from qrelay.index.store import PassageStore
from qrelay.index.stored import StoredVectors, Vectors
from qrelay.models.embedder import Embedder, TextKind, load_embedder

NOISE: Final = 0.6
SEED: Final = 7
_BLOCK: Final = 2048


class Resampled:
    """See the module. base: a version's folder."""

    def __init__(self, base: Path, count: int) -> None:
        self._store, self._vectors, self.count = PassageStore(base), StoredVectors.open(base), count
        self.dim = self._vectors.dim

    def _sources(self, start: int, stop: int) -> Any:
        """[stop - start, 3] rows of the base."""
        blocks = range(start // _BLOCK, (stop - 1) // _BLOCK + 1)
        drawn = [np.random.default_rng((SEED, block)).integers(0, len(self._store), (_BLOCK, 3)) for block in blocks]
        offset = start - blocks[0] * _BLOCK
        return np.concatenate(drawn)[offset : offset + stop - start]

    def passages(self) -> Iterator[dict[str, str]]:
        """Rows of a BEIR corpus: a document a passage."""
        for start in range(0, self.count, _BLOCK):
            stop = min(start + _BLOCK, self.count)
            sources = self._sources(start, stop)
            drawn = np.unique(sources)
            texts = dict(zip(drawn.tolist(), self._store.passages(drawn), strict=True))
            for row in range(start, stop):
                if row < len(self._store):
                    (passage,) = self._store.passages(np.asarray([row]))
                    yield {"_id": f"p{row}", "title": passage.title, "text": passage.text}
                    continue
                parts = [texts[source].text.split() for source in sources[row - start].tolist()]
                words = [word for part in parts for word in part[len(part) // 3 : 2 * len(part) // 3]]
                title = texts[int(sources[row - start][0])].title
                yield {"_id": f"p{row}", "title": title, "text": " ".join(words) or title or "empty"}

    def vectors(self, start: int, stop: int) -> Vectors:
        """[stop - start, dim], of unit length."""
        first = self._vectors.take(self._sources(start, stop)[:, 0])
        noise = np.random.default_rng((SEED, 1, start)).standard_normal(first.shape, np.float32)
        made = first + NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        real = np.arange(start, min(stop, len(self._store)))
        if len(real):
            made[: len(real)] = self._vectors.take(real)
        return np.asarray(made, np.float32)

    def write(self, path: Path) -> None:
        """The corpus as JSONL, unless it is there."""
        if not path.exists():
            begun = path.with_suffix(".begun")
            with begun.open("w", encoding="utf8") as out:
                for passage in self.passages():
                    out.write(json.dumps(passage) + "\n")
            begun.rename(path)


class Prepared:
    """An embedder whose documents' vectors are those of a `Resampled`, in the order in which they are asked for."""

    notes: Mapping[str, str] = {}

    def __init__(self, inner: Embedder, made: Resampled) -> None:
        self._inner, self._made, self._next = inner, made, 0
        self.name, self.fingerprint, self.dim = inner.name, inner.fingerprint, inner.dim

    @classmethod
    def of(cls, base: Path, made: Resampled) -> Prepared:
        """With the base's own model for queries."""
        name, _, engine = read_manifest(base).embedder.partition("@")
        return cls(load_embedder(name, engine="openvino" if "+openvino-" in engine else "torch"), made)

    def encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        if kind == "query":
            return self._inner.encode(texts, kind)
        self._next += len(texts)
        return self._made.vectors(self._next - len(texts), self._next)

    def windows(self, text: str, size: int, stride: int) -> list[str]:
        return [text]

    def unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        return 0, 0
