"""What the systems say of a passage: ranks and teacher scores.

The *current model* of a query is the first of cross_encoder, bi_encoder, dense that scored any of its
candidates: the last system in the pipeline is the one whose mistakes are worth training on. It is chosen
once a query, not once a passage, because ranks of two systems do not compare. Its scores are the guards'
*teacher* scores, for it is the strongest there is beside the judge. A passage that it scored without ranking it
(rank 0), or did not see, counts as ranked below everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from qrelay.labels.mining.rules import CURRENT_MODEL
from qrelay.types import DENSE, Candidate


def current_model(candidates: Sequence[Candidate]) -> str:
    """The system whose mistakes are mined: see the module's docstring."""
    present = {score.system for candidate in candidates for score in candidate.scores}
    return next((system for system in CURRENT_MODEL if system in present), DENSE)


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
