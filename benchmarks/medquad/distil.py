"""More labels without a judge: what the trained retriever believes of passages that BM25 finds. A cross-encoder
starts from them, for it will meet BM25's first 100, and the lists hold a query's first four alone.

P(relevant) is 1 throughout, so that the retriever's cosines, as the prior, become the soft targets of a list.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.medquad.matching import PRIOR, unjudged
from qrelay.index.settings import RetrieverSettings
from qrelay.services.retriever.retriever import load_retriever
from qrelay.types import Candidate, CandidateSet, Query

FOUND = 100
HEAD = 3
DRAWN = 5
SEED = 7
_AT_ONCE = 64


def distilled(index: Path, embedder: str, collection: str, queries: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """For each query a line in the format of an export of `labels`: of BM25's first 100 passages the three that the
    retriever likes best and five of the others."""
    settings = RetrieverSettings(
        index_dir=index, embedder=embedder, embedder_engine="openvino", bm25_top_k=FOUND, dense_top_k=1,
        max_candidates=FOUND, registry_poll_s=0,
    )  # fmt: skip
    retriever = load_retriever(settings)
    for start in range(0, len(queries), _AT_ONCE):
        part = [Query(row["_id"], row["text"], collection) for row in queries[start : start + _AT_ONCE]]
        for found in retriever.retrieve(part):
            if not isinstance(found, CandidateSet):
                raise SystemExit(f"the retriever refused a query: {found}")
            yield _line(found, random.Random(f"{SEED} {found.query.query_id}"))


def _line(found: CandidateSet, drawn: random.Random) -> dict[str, Any]:
    liked = sorted(found.candidates, key=lambda candidate: -_score(candidate))
    chosen = liked[:HEAD] + drawn.sample(liked[HEAD:], min(DRAWN, max(0, len(liked) - HEAD)))
    line = {"query_id": found.query.query_id, "query": found.query.text, "candidates": list(map(_told, chosen))}
    return unjudged(line)


def _told(candidate: Candidate) -> dict[str, Any]:
    passage = candidate.passage
    return {"passage_id": passage.passage_id, "doc_id": passage.doc_id, "title": passage.title, "text": passage.text,
            "scores": {PRIOR: _score(candidate)}}  # fmt: skip


def _score(candidate: Candidate) -> float:
    dense = candidate.score("dense")
    if dense is None or dense.score is None:
        raise SystemExit(f"{candidate.passage.passage_id} has no dense score: is the index one of vectors?")
    return dense.score
