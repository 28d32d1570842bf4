"""What the retrieval systems say of a passage: ranks, scores, and whether it misled one of them.

The *current model* of a query is the first of cross_encoder, bi_encoder, dense that scored any of its
candidates: the last system in the pipeline is the one whose mistakes are worth training on. Of candidates that only
other systems returned, as those of a pool, it is the one that ranks the most of them. It is chosen
once a query, not once a passage, because ranks of two systems do not compare. A passage that it scored without
ranking it (rank 0), or did not see, counts as ranked below everything. Mining and early stopping share these rules.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from qrelay.types import BI_ENCODER, BM25, CROSS_ENCODER, DENSE, SYSTEMS, Candidate

CURRENT_MODEL: Final = (CROSS_ENCODER, BI_ENCODER, DENSE)


def current_model(candidates: Sequence[Candidate]) -> str:
    """The system whose mistakes are mined: see the module's docstring."""
    present = {score.system for candidate in candidates for score in candidate.scores}
    ours = next((system for system in CURRENT_MODEL if system in present), None)
    return ours or _foreign(candidates) or DENSE


def _foreign(candidates: Sequence[Candidate]) -> str:
    """The system that is none of ours and ranks the most candidates, the first by name of equals; "" for none."""
    scores = (score for candidate in candidates for score in candidate.scores)
    ranked = Counter(score.system for score in scores if score.rank > 0 and score.system not in SYSTEMS)
    return min(ranked, key=lambda system: (-ranked[system], system), default="")


def rank_of(candidate: Candidate, system: str) -> float:
    """The system's rank of the passage, from 1; infinite where it did not rank it."""
    score = candidate.score(system)
    return score.rank if score and score.rank > 0 else math.inf


def score_of(candidate: Candidate, system: str) -> float | None:
    """The system's score of the passage; None where it gave none."""
    score = candidate.score(system)
    return score.score if score else None


def ranking_systems(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """The systems that ranked any of the candidates, by name."""
    return tuple(sorted({score.system for each in candidates for score in each.scores if score.rank > 0}))


def why_hard(candidate: Candidate, system: str, top: int, disagreement: int) -> str:
    """What makes the passage hard, if it is not relevant: "top_rank", the current model `system` has it in its first
    `top`; else as `disagreed`; empty where nothing does."""
    return "top_rank" if rank_of(candidate, system) <= top else disagreed(candidate, disagreement)


def disagreed(candidate: Candidate, limit: int) -> str:
    """bm25_only or dense_only, where exactly this one of the two has the passage in its first `limit`, else
    empty."""
    in_bm25, in_dense = (rank_of(candidate, system) <= limit for system in (BM25, DENSE))
    if in_bm25 == in_dense:
        return ""
    return "bm25_only" if in_bm25 else "dense_only"
