"""The protocol of a strategy: how a query's passages become questions, and the answers measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from qrelay.errors import QrelayError
from qrelay.llm.base import Backend
from qrelay.llm.exchange import Message
from qrelay.scales import Scale
from qrelay.types import Graded, Missing, Passage, Query


@dataclass(frozen=True, slots=True)
class StrategySpec:
    """What identifies a strategy.

    prompt_hash: sha256 of everything in its questions but query, passage and answer, and of the spellings read as
    grades. needs: what it asks of a backend's `capabilities`; asks: the one of them whose decoding is part of its
    labels' identity. listwise: a label depends on the other passages of the list, so a list is measured whole or
    not at all. shares: several questions share a context (`Continuation.shared`), so that the decoding is that of
    SHARED_CONTEXT where the backend has one. metadata: the fields of a passage's metadata that its questions show ->
    what stands for one that a passage lacks; "": nothing does, and the passage is not judged.
    """

    name: str
    scale: Scale
    prompt_hash: str
    needs: frozenset[str]
    asks: str
    listwise: bool = False
    shares: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


def lacking(wanted: Mapping[str, str], metadata: Mapping[str, str]) -> list[str]:
    """The fields of `StrategySpec.metadata` that a passage with this metadata would have to have."""
    return [field for field, instead in wanted.items() if not instead and not metadata.get(field, "").strip()]


def shown(wanted: Mapping[str, str], metadata: Mapping[str, str]) -> list[str]:
    """The values that `StrategySpec.metadata` takes from a passage with this metadata, for its judgment key."""
    return [metadata.get(field) or instead for field, instead in wanted.items()]


@dataclass(frozen=True, slots=True)
class Measured:
    """One pair's outcome. decoding: how the backend decoded it; prompt_tokens: what it cost, the tokens of
    questions that several pairs share being counted once, with the first of them; reason: the judge's words for its
    grade, where it was asked for them."""

    outcome: Graded | Missing
    decoding: str
    raw_reply: str = ""
    prompt_tokens: int = 0
    reason: str = ""


class Strategy(Protocol):
    """Turns pairs into questions and answers into grades. It keeps no state: all I/O is the backend's."""

    @property
    def spec(self) -> StrategySpec:
        """Its identity and its needs."""

    def reads(self, query: Query, passages: Sequence[Passage]) -> str:
        """What a label depends on beside query text and passage: "" where nothing; it joins the judgment key."""

    async def measure(
        self, backend: Backend, query: Query, passages: Sequence[Passage]
    ) -> list[Measured | QrelayError]:
        """One outcome a passage, in order. May raise a QrelayError, which then stands for all of them."""

    def example(self, query: Query, passage: Passage) -> list[Message]:
        """What is asked about one pair, for people to read."""
