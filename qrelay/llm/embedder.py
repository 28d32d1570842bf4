"""`embedder`: a bi-encoder as a judge, by the cosine of query and passage.

The log-odds are a line in the cosine, fitted on LiveQA-Med's dev part with all-mpnet-base-v2, both sides weighing the
same; on LLMJudge's passages the same model turns at 0.44 too, and less steeply. Of another model P(relevant) is
a guess until a map is fitted: log-odds keep what the cosine knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qrelay.errors import QrelayError
from qrelay.llm.base import Local, Weights
from qrelay.llm.exchange import PAIR_SCORES, Pair, PairScore
from qrelay.models.embedder import Embedder, TextKind, Vectors

SLOPE: Final = 14.3
CUT: Final = 0.44
_AT_ONCE: Final = 8192
"""Pairs whose vectors are multiplied at once: some 50 MB."""


class EmbedderBackend(Local):
    """See the module. What a model cannot read at once it cuts off, as in an index."""

    def __init__(self, embedder: Embedder) -> None:
        model, _, revision = embedder.fingerprint.partition("@")
        self.weights = Weights(model, revision, "none")
        self._decodings = {PAIR_SCORES: f"cosine;log-odds={SLOPE}*(cosine-{CUT})"}
        self._embedder = embedder

    async def pair_scores(self, pairs: Sequence[Pair]) -> list[PairScore | QrelayError]:
        """One score a pair. Raises ModelError: the weights are damaged."""
        return await asyncio.to_thread(self._scores, pairs) if pairs else []

    def _scores(self, pairs: Sequence[Pair]) -> list[PairScore | QrelayError]:
        sides: list[tuple[str, TextKind]] = [
            *((pair.passage, "document") for pair in pairs),
            *((pair.query, "document" if pair.alike else "query") for pair in pairs),
        ]
        vectors, rows = self._directions(sides)
        passages, queries = rows[: len(pairs)], rows[len(pairs) :]
        parts = [slice(at, at + _AT_ONCE) for at in range(0, len(pairs), _AT_ONCE)]
        cosines = [(vectors[queries[n]] * vectors[passages[n]]).sum(1, dtype=np.float64) for n in parts]
        decoding = self._decodings[PAIR_SCORES]
        return [PairScore(SLOPE * (float(each) - CUT), decoding) for each in np.concatenate(cosines)]

    def _directions(self, sides: Sequence[tuple[str, TextKind]]) -> tuple[Vectors, NDArray[np.int64]]:
        """(vectors of unit length [distinct, dim], the row of each side). sides: text and kind; each encoded once."""
        once: dict[TextKind, list[str]] = {}
        for text, kind in dict.fromkeys(sides):
            once.setdefault(kind, []).append(text)
        place = {each: row for row, each in enumerate((text, kind) for kind, texts in once.items() for text in texts)}
        vectors = np.concatenate([self._embedder.encode(texts, kind) for kind, texts in once.items()])
        lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return np.asarray(vectors / lengths, np.float32), np.array([place[each] for each in sides], np.int64)

    def close(self) -> None:
        """Nothing to free that Python does not."""
