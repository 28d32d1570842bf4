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

from qrelay.errors import QrelayError
from qrelay.llm.base import Local, Weights
from qrelay.llm.exchange import PAIR_SCORES, Pair, PairScore
from qrelay.models.embedder import Embedder, TextKind, Vectors

SLOPE: Final = 14.3
CUT: Final = 0.44


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
        queries = self._directions([pair.query for pair in pairs], "query")
        passages = self._directions([pair.passage for pair in pairs], "document")
        cosines = (queries * passages).sum(1, dtype=np.float64)
        decoding = self._decodings[PAIR_SCORES]
        return [PairScore(SLOPE * (float(cosine) - CUT), decoding) for cosine in cosines]

    def _directions(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        """Vectors [texts, dim] of unit length, each text encoded once."""
        place = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        vectors = self._embedder.encode(list(place), kind)[[place[text] for text in texts]]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)

    def close(self) -> None:
        """Nothing to free that Python does not."""
