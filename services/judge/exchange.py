"""What a strategy asks and what a backend answers: the two records between them.

A `Prompt` is built so that everything that a query's passages share comes first (instructions, then the
query) and the passage last: an engine with prefix caching reads the shared part once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TOKEN_LOGPROBS: Final = "token_logprobs"  # noqa: S105 (no password)
"""A backend that gives log-probabilities of its first reply token."""
TEXT: Final = "text"
"""A backend whose endpoint may give text only."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One pair to judge. The chat is system = `instructions`, user = `question` + `evidence`.

    `labels` are the canonical replies, lowest grade first. `query` and `passage` are the raw texts, for
    doubles and for engines that compute on the texts themselves.
    """

    instructions: str
    question: str
    evidence: str
    labels: tuple[str, ...]
    query: str
    passage: str

    def messages(self) -> list[dict[str, str]]:
        """As chat messages; the passage ends the last one."""
        return [
            {"role": "system", "content": self.instructions},
            {"role": "user", "content": self.question + self.evidence},
        ]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A backend's answer to one prompt.

    tokens: (text, natural log-probability) of the most likely first reply tokens, best first; the same
    text may occur twice under two token ids. Empty where the endpoint gives none: then `text` counts.
    text: the greedy reply. prompt_tokens: tokens of the prompt, those from a prefix cache included.
    decoding: how this reply was decoded; one of the backend's `decodings`.
    """

    tokens: tuple[tuple[str, float], ...]
    text: str
    prompt_tokens: int
    decoding: str
