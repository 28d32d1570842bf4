"""The protocol of a backend: questions in, log-probabilities or text out.

Adding one: a module, a line in `qrelay.judging.engines`, a parameter in tests/llm/test_backends.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from qrelay.errors import ConfigError, InternalError, QrelayError
from qrelay.llm.exchange import (
    GENERATION,
    PAIR_SCORES,
    PROMPT_LOGPROBS,
    TOKEN_LOGPROBS,
    Chat,
    Continuation,
    Pair,
    PairScore,
    Prompt,
    Reply,
    TargetLogprobs,
    TokenLogprobs,
)

TOP_LOGPROBS = 20
"""How many first tokens are asked for: the most that OpenAI's API allows."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Which model answers: name, revision (hash or date) and quantisation."""

    model: str
    revision: str
    quantisation: str


class Backend(Protocol):
    """An engine. An answer does not depend on its company (within 4e-2 of probability).

    Every asking method takes any number of questions and gives one answer each, in order; neighbours should
    share their prefix. A question's error says why it has no answer: Oversized (does not fit the context),
    BackendTimeout, BackendUnavailable, RateLimited, or another QrelayError. A method that the `capabilities` do
    not name is never called: `qrelay.judging.engines.make_backend` refuses the combination at start.
    """

    @property
    def weights(self) -> Weights:
        """The model's identity; fixed from start to end."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can do: constants of `qrelay.llm.exchange`."""

    def decodings(self, capability: str) -> tuple[str, ...]:
        """Canonical texts of the decoding parameters of one kind of question: the usual one first, then what it
        may fall back to."""

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """TOKEN_LOGPROBS: the distribution of each prompt's first reply token."""

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        """PROMPT_LOGPROBS: the log-probability of each target's tokens."""

    async def generate(self, chats: Sequence[Chat]) -> list[Reply | QrelayError]:
        """GENERATION: a greedy reply to each chat."""

    async def pair_scores(self, pairs: Sequence[Pair]) -> list[PairScore | QrelayError]:
        """PAIR_SCORES: the score of each query and passage."""

    @property
    def notes(self) -> Mapping[str, str]:
        """What people should know of its state now, by a word; empty where all is as it should be."""

    def learn(self, needs: frozenset[str]) -> None:
        """Find out at the start what of `needs` depends on somebody else, where that answers. Blocks."""

    def close(self) -> None:
        """Free the engine. Callable from any thread; a second call does nothing."""


class Incapable:
    """A base for backends: the kinds of question that they do not answer."""

    @property
    def notes(self) -> Mapping[str, str]:
        """None."""
        return {}

    def learn(self, needs: frozenset[str]) -> None:
        """Nothing."""

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """Refused."""
        return [_incapable(self, TOKEN_LOGPROBS)] * len(prompts)

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        """Refused."""
        return [_incapable(self, PROMPT_LOGPROBS)] * len(continuations)

    async def generate(self, chats: Sequence[Chat]) -> list[Reply | QrelayError]:
        """Refused."""
        return [_incapable(self, GENERATION)] * len(chats)

    async def pair_scores(self, pairs: Sequence[Pair]) -> list[PairScore | QrelayError]:
        """Refused."""
        return [_incapable(self, PAIR_SCORES)] * len(pairs)


class Local(Incapable):
    """A base for engines that this process loads: they have one decoding for each capability."""

    _decodings: Mapping[str, str]

    @property
    def capabilities(self) -> frozenset[str]:
        """Those that have a decoding: without a chat template only PROMPT_LOGPROBS."""
        return frozenset(self._decodings)

    def decodings(self, capability: str) -> tuple[str, ...]:
        """One a capability; none for what it lacks."""
        return (self._decodings[capability],) if capability in self._decodings else ()


def used_after_close() -> InternalError:
    """What a call of an engine that was closed raises."""
    return InternalError("the judge's engine was used after close")


def _incapable(backend: object, capability: str) -> QrelayError:
    return ConfigError(
        f"the backend {type(backend).__name__} does not give {capability}: choose another judge.backend"
    )
