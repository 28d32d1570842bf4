"""Which of a pair's labels counts first: the order itself, for `choice.py` and for the summaries of queries.

A person's before a cascade's before a fused one before a single judge's; of one kind a graded one before a missing
one, then the latest generation, then the lowest judge hash.
"""

from __future__ import annotations

from typing import Final

from qrelay.types import COMBINED, JudgeIdentity

HUMAN: Final = "human"
"""The strategy of people, as judges."""
_KINDS: Final = (HUMAN, *COMBINED)

Rank = tuple[int, bool, int, str]


def kind_of(judge: JudgeIdentity) -> int:
    """Which kind of judge counts first, from 0."""
    return _KINDS.index(judge.strategy) if judge.strategy in _KINDS else len(_KINDS)


def rank(kind: int, missing: bool, generation: int, judge_hash: str) -> Rank:
    """A label's sort key within its pair; the least counts."""
    return kind, missing, -generation, judge_hash
