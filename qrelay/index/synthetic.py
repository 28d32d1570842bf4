"""SyntheticEngine: made-up candidates for pipeline benchmarks and tests. No model, no index."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final
from zlib import crc32

from qrelay.index.engine import Found, Vectors
from qrelay.naming import passage_name
from qrelay.simulated import ServiceTime
from qrelay.types import BM25, DENSE, Candidate, Passage, Score

CANDIDATES: Final = 100
PASSAGE_BYTES: Final = 1024
_SETS: Final = 32
_WORDS: Final = ("query", "passage", "relevance", "document", "index", "vector", "score", "judge", "ledger")


class SyntheticEngine:
    """100 candidates of about 1 KiB each, chosen by the query's text out of sets made in advance."""

    name = "synthetic"
    version = "synthetic-1"
    embedder = ""

    def __init__(self, service_time_s: float = 0.0) -> None:
        """service_time_s: seconds that each query takes, one after another."""
        self.service_time = ServiceTime(service_time_s)
        self._sets = [_candidate_set(number) for number in range(_SETS)]

    def search(
        self,
        texts: Sequence[str],
        vectors: Vectors | None,  # noqa: ARG002  the protocol's; no model here
        limit: int,
    ) -> Found:
        self.service_time.spend(len(texts))
        return [self._sets[crc32(text.encode()) % _SETS][:limit] for text in texts]

    def describe(self) -> dict[str, str]:
        return {"version": self.version, "passages": str(_SETS * CANDIDATES)}


def _candidate_set(number: int) -> tuple[Candidate, ...]:
    random_words = random.Random(number)
    bm25_ranks = random_words.sample(range(1, CANDIDATES + 1), CANDIDATES)
    candidates = []
    for rank, bm25_rank in enumerate(bm25_ranks, start=1):
        doc_id = f"synthetic-{number}-{rank}"
        text = ""
        while len(text) < PASSAGE_BYTES:
            text += f"{random_words.choice(_WORDS)}{random_words.randrange(100)} "
        passage = Passage(passage_name(doc_id, 0), doc_id, f"Synthetic document {rank}", text[:PASSAGE_BYTES])
        scores = (Score(BM25, round(20 / bm25_rank, 5), bm25_rank), Score(DENSE, round(1 / rank, 5), rank))
        candidates.append(Candidate(passage, scores))
    return tuple(candidates)
