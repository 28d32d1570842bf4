"""What every arrangement of judges can do: the protocol that the service, budgets and early stopping know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from qrelay.errors import QrelayError
from qrelay.runtime.stage import Info
from qrelay.types import CandidateSet, JudgedSet


class JudgeCore(Protocol):
    """Candidate sets in, judged sets out."""

    async def judge(self, sets: Sequence[CandidateSet]) -> list[JudgedSet | QrelayError]:
        """Each set with its judgments, in order; a set's own trouble comes back as its error."""

    def info(self) -> Info:
        """Who judges, and how."""

    def close(self) -> None:
        """Free the engines and the cache."""
