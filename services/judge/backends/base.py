"""The protocol of a backend: prompts in, first-token log-probabilities out.

Adding one: a module, a line in `services.judge.backends.make_backend`, a parameter in tests/judge/test_backends.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from qrelay.errors import QrelayError
from services.judge.exchange import Prompt, TokenLogprobs

TOP_LOGPROBS = 20
"""How many first tokens are asked for: the most that OpenAI's API allows."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Which model answers: name, revision (hash or date) and quantisation."""

    model: str
    revision: str
    quantisation: str


class Backend(Protocol):
    """An engine. A prompt's answer does not depend on its company (within 4e-2 of probability)."""

    @property
    def weights(self) -> Weights:
        """The model's identity; fixed from start to end."""

    @property
    def decodings(self) -> tuple[str, ...]:
        """Canonical texts of the decoding parameters: the usual one first, then what it may fall back to."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can do: constants of `services.judge.exchange`."""

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """One answer a prompt, in order. Neighbours should share their prefix.

        An item's error says why it has no answer: Oversized (does not fit the context), BackendTimeout,
        BackendUnavailable, RateLimited, or another QrelayError.
        """

    def close(self) -> None:
        """Free the engine. Callable from any thread; a second call does nothing."""
