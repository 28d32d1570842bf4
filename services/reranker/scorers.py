"""Scorers: what gives a candidate its second-stage score. One protocol, three implementations.

- `CrossEncoderScorer`: sentence-transformers' CrossEncoder over (query, title + passage) pairs, bucketed
  by length across queries (the library sorts by length, so a batch pads little). Its engine is torch, or openvino:
  8-bit integers (`qrelay.models.openvino_encoders`).
- `BiEncoderScorer`: the fallback until a cross-encoder exists: the dense scores that the set already
  carries; encodes only where it carries none.
- `FakeScorer`: the shipped double, deterministic and nearly free.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

from qrelay.models.catalogue import resolve
from qrelay.models.embedder import Embedder
from qrelay.models.encoding import pair_length
from qrelay.models.engines import EncoderEngine
from qrelay.models.engines import fingerprint as identity
from qrelay.models.loading import load_encoder
from qrelay.simulated import ServiceTime
from qrelay.text import passage_text
from qrelay.types import BI_ENCODER, CROSS_ENCODER, DENSE, Candidate, CandidateSet


class Scorer(Protocol):
    """Scores every candidate of every set, whatever the batch: a set alone gets the same scores, in torch within
    1e-4, in openvino within 0.02 of the scores' range: a last digit may carry an activation to the next integer."""

    system: str
    fingerprint: str

    def score(self, sets: Sequence[CandidateSet]) -> list[list[float]]:
        """One score a candidate, higher is better, in the sets' order."""


class CrossEncoderScorer:
    """A sentence-transformers cross-encoder loaded from a folder."""

    system = CROSS_ENCODER

    def __init__(
        self,
        name: str,
        *,
        max_length: int,
        batch_pairs: int,
        engine: EncoderEngine = "torch",
        threads: int = 0,
        fingerprint: str = "",
    ) -> None:
        """max_length: tokens of a pair at most; 0: as many as the model reads. fingerprint: of a registry's version.

        Raises:
            ModelError: the model is absent, its bytes are not the catalogue's, or it cannot be loaded or
                converted.
        """
        resolved = resolve(name)
        length = pair_length(resolved.path, max_length)
        self._model = load_encoder("CrossEncoder", resolved, length, engine=engine, threads=threads)
        self._batch_pairs = batch_pairs
        self._one_at_a_time = threading.Lock()  # the library sets padding on a tokenizer that calls share
        self.fingerprint = identity(fingerprint or f"{resolved.name}@{resolved.revision}", engine)

    def score(self, sets: Sequence[CandidateSet]) -> list[list[float]]:
        """All pairs of all sets in one call, so that lengths are bucketed across queries."""
        pairs = [(each.query.text, text) for each in sets for text in _texts(each)]
        if not pairs:
            return [[] for _ in sets]
        with self._one_at_a_time:
            found = self._model.predict(pairs, batch_size=self._batch_pairs, show_progress_bar=False)
        flat = iter(found.tolist())
        return [[float(next(flat)) for _ in each.candidates] for each in sets]


def _texts(each: CandidateSet) -> list[str]:
    """The candidates' texts."""
    return [passage_text(candidate.passage.title, candidate.passage.text) for candidate in each.candidates]


class BiEncoderScorer:
    """The bi-encoder's own scores: those in the set, else encoded here by a lazily loaded embedder."""

    system = BI_ENCODER

    def __init__(self, load_embedder: Callable[[], Embedder]) -> None:
        self._load_embedder = load_embedder
        self._embedder: Embedder | None = None
        self.fingerprint = "retriever's dense scores"

    def score(self, sets: Sequence[CandidateSet]) -> list[list[float]]:
        """The sets' dense scores, or cosine of fresh embeddings where any is missing."""
        return [self._carried(each.candidates) or self._encode(each) for each in sets]

    @staticmethod
    def _carried(candidates: Sequence[Candidate]) -> list[float] | None:
        scores = [candidate.score(DENSE) for candidate in candidates]
        values = [score.score for score in scores if score is not None and score.score is not None]
        return values if len(values) == len(candidates) else None

    def _encode(self, each: CandidateSet) -> list[float]:
        if not each.candidates:
            return []
        if self._embedder is None:
            self._embedder = self._load_embedder()
            self.fingerprint = self._embedder.fingerprint
        (query,) = self._embedder.encode([each.query.text], "query")
        return [float(value) for value in self._embedder.encode(_texts(each), "document") @ query]


class FakeScorer:
    """A score from a checksum of the two ids: no model, always the same; takes no time unless it is told to."""

    system = CROSS_ENCODER
    fingerprint = "fake-cross-encoder@1"

    def __init__(self, service_time_s: float = 0.0) -> None:
        """service_time_s: seconds that each set takes, one after another."""
        self.service_time = ServiceTime(service_time_s)

    def score(self, sets: Sequence[CandidateSet]) -> list[list[float]]:
        """Scores in [0, 1)."""
        self.service_time.spend(len(sets))
        return [
            [
                (zlib.crc32(candidate.passage.passage_id.encode(), seed) % 65536) / 65536
                for candidate in each.candidates
            ]
            for each in sets
            for seed in [zlib.crc32(each.query.query_id.encode())]
        ]
