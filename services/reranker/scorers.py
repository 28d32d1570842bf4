"""Scorers: what gives a candidate its second-stage score. One protocol, three implementations.

- `CrossEncoderScorer`: sentence-transformers' CrossEncoder over (query, title + passage) pairs, sorted by their
  tokens across queries (`qrelay.models.pairs`). Its engine is torch, or openvino: 8-bit integers
  (`qrelay.models.openvino_encoders`).
- `BiEncoderScorer`: the fallback until a cross-encoder exists: the dense scores that the set already
  carries; encodes only where it carries none.
- `FakeScorer`: the shipped double, deterministic and nearly free.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from qrelay.models.catalogue import resolve
from qrelay.models.embedder import Embedder
from qrelay.models.encoding import pair_length
from qrelay.models.engines import EncoderEngine
from qrelay.models.engines import fingerprint as identity
from qrelay.models.loading import load_encoder
from qrelay.models.pairs import PairModel
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

    def __init__(
        self,
        name: str,
        *,
        max_length: int,
        batch_pairs: int,
        engine: EncoderEngine = "torch",
        threads: int = 0,
        fingerprint: str = "",
        system: str = CROSS_ENCODER,
    ) -> None:
        """max_length: tokens of a pair at most; 0: as many as the model reads. fingerprint: of a registry's version.
        system: whose scores they are.

        Raises:
            ModelError: the model is absent, its bytes are not the catalogue's, or it cannot be loaded or
                converted.
        """
        resolved = resolve(name)
        length = pair_length(resolved.path, max_length)
        model = load_encoder("CrossEncoder", resolved, length, engine=engine, threads=threads)
        self._pairs = PairModel(model, batch_pairs)
        self.system = system
        self.fingerprint = identity(fingerprint or f"{resolved.name}@{resolved.revision}", engine)

    def score(self, sets: Sequence[CandidateSet]) -> list[list[float]]:
        """All pairs of all sets in one call, so that pairs of one length are computed together."""
        found = self._pairs.scores([(each.query.text, text) for each in sets for text in _texts(each)])
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
        found = [self._carried(each.candidates) for each in sets]
        fresh = iter(self._encode([each for each, known in zip(sets, found, strict=True) if known is None]))
        return [next(fresh) if known is None else known for known in found]

    @staticmethod
    def _carried(candidates: Sequence[Candidate]) -> list[float] | None:
        scores = [candidate.score(DENSE) for candidate in candidates]
        values = [score.score for score in scores if score is not None and score.score is not None]
        return values if len(values) == len(candidates) else None

    def _encode(self, sets: Sequence[CandidateSet]) -> Iterator[list[float]]:
        """Of each set its cosines, all texts embedded in one call."""
        if not sets:
            return
        if self._embedder is None:
            self._embedder = self._load_embedder()
            self.fingerprint = self._embedder.fingerprint
        queries = self._embedder.encode([each.query.text for each in sets], "query")
        passages = self._embedder.encode([text for each in sets for text in _texts(each)], "document")
        ends = accumulate(len(each.candidates) for each in sets)
        for query, each, end in zip(queries, sets, ends, strict=True):
            yield [float(value) for value in passages[end - len(each.candidates) : end] @ query]


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
