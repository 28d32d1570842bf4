"""The protocol of a strategy: how a pair becomes a prompt and a reply becomes a grade."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from qrelay.types import Graded, Missing, Passage
from services.judge.exchange import Prompt, TokenLogprobs


@dataclass(frozen=True, slots=True)
class Scale:
    """The grades of one strategy. `variants[i]` are the case-folded spellings that stand for grade
    `min_grade + i`, the canonical label first; grades from `relevant_grade` on count as relevant."""

    name: str
    min_grade: int
    relevant_grade: int
    variants: tuple[tuple[str, ...], ...]

    @property
    def max_grade(self) -> int:
        """The best grade."""
        return self.min_grade + len(self.variants) - 1


@dataclass(frozen=True, slots=True)
class StrategySpec:
    """What identifies a strategy. prompt_hash: sha256 of everything in the prompt but query and passage,
    and of the spellings read as grades. needs: what it asks of a backend's `capabilities`."""

    name: str
    scale: Scale
    prompt_hash: str
    needs: frozenset[str]


class Strategy(Protocol):
    """Turns pairs into prompts and replies into grades. Pure: no I/O, no state."""

    @property
    def spec(self) -> StrategySpec:
        """Its identity and its needs."""

    def prompt(self, query: str, passage: Passage) -> Prompt:
        """The prompt of one pair."""

    def grade(self, reply: TokenLogprobs) -> Graded | Missing:
        """The grade in a reply; Missing("unparseable") where there is none."""
