"""The dense score of a training set's passages, for calibration maps that read it (`fused+stages`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from qrelay.models.embedder import Embedder
from qrelay.text import passage_text
from qrelay.types import DENSE, Candidate, CandidateSet, Score


def with_dense(sets: Sequence[CandidateSet], embedder: Embedder) -> list[CandidateSet]:
    """The sets, each passage with the product of its vector and its query's, as the retriever computes it."""
    queries = embedder.encode([each.query.text for each in sets], "query")
    texts = [passage_text(each.passage.title, each.passage.text) for one in sets for each in one.candidates]
    once = list(dict.fromkeys(texts))
    vectors = dict(zip(once, embedder.encode(once, "document"), strict=True))

    def scored(one: CandidateSet, query: int) -> Iterator[Candidate]:
        for each in one.candidates:
            vector = vectors[passage_text(each.passage.title, each.passage.text)]
            yield replace(each, scores=(*each.scores, Score(DENSE, float(queries[query] @ vector), 0)))

    return [replace(one, candidates=tuple(scored(one, place))) for place, one in enumerate(sets)]
