"""What a strategy asks and what a backend answers: the records between them.

Four kinds of question, each a capability that a backend has or lacks:

    TOKEN_LOGPROBS   `Prompt`        -> `TokenLogprobs`    the distribution of the first reply token
    PROMPT_LOGPROBS  `Continuation`  -> `TargetLogprobs`   the log-probability of every token of a given text
    GENERATION       `Chat`          -> `Reply`            a greedy reply in words
    PAIR_SCORES      `Pair`          -> `PairScore`        a score of query and passage, of a model without a prompt

Whatever several questions of one query share stands first and what differs last, so that an engine with prefix
caching reads the shared part once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TOKEN_LOGPROBS: Final = "token_logprobs"  # noqa: S105 (no password)
"""A backend that gives log-probabilities of its first reply token."""
PROMPT_LOGPROBS: Final = "prompt_logprobs"
"""A backend that gives the log-probability of each token of a text that it is given."""
SHARED_CONTEXT: Final = "shared_context"
"""A backend that computes the `shared` targets of a context otherwise than a lone one, which their decoding says."""
GENERATION: Final = "generation"
"""A backend that replies in words."""
PAIR_SCORES: Final = "pair_scores"
"""A backend whose model scores a query and a passage itself: an encoder."""
TEXT: Final = "text"
"""A backend whose endpoint may give text only."""

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One pair to judge. The chat is system = `instructions`, then `shots`, then user = `question` + `evidence`.

    `labels` are the canonical replies, lowest grade first; `spellings` the texts that count as each of them, in any
    case (none: the labels alone). `query` and `passage` are the raw texts, for
    fakes and for engines that compute on the texts themselves. `shots`: worked examples, each (the user's
    message, the right reply).
    """

    instructions: str
    question: str
    evidence: str
    labels: tuple[str, ...]
    query: str
    passage: str
    shots: tuple[tuple[str, str], ...] = ()
    spellings: tuple[tuple[str, ...], ...] = ()

    def messages(self) -> list[Message]:
        """As chat messages; the passage ends the last one."""
        worked = [
            {"role": role, "content": content}
            for shot in self.shots
            for role, content in zip(("user", "assistant"), shot, strict=True)
        ]
        return [
            {"role": "system", "content": self.instructions},
            *worked,
            {"role": "user", "content": self.question + self.evidence},
        ]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A backend's answer to one prompt.

    tokens: (text, natural log-probability) of the most likely first reply tokens, best first; the same
    text may occur twice under two token ids. Empty where the endpoint gives none: then `text` counts.
    text: the greedy reply. prompt_tokens: tokens of the prompt, those from a prefix cache included.
    decoding: how this reply was decoded; one of the backend's `decodings(TOKEN_LOGPROBS)`.
    unseen: the probability of all tokens that a short list leaves out; 0 where the list is long.
    """

    tokens: tuple[tuple[str, float], ...]
    text: str
    prompt_tokens: int
    decoding: str
    unseen: float = 0.0


@dataclass(frozen=True, slots=True)
class Continuation:
    """How likely is `target` right after `context`? Both are plain text, read without a chat template; only the
    target's tokens count. The two are tokenised apart and joined, so that the target's tokens are the same after
    every context. `query` and `passage` are the raw texts, for fakes. `shared`: other targets of this context are
    asked beside it, so that an engine may read the context once."""

    context: str
    target: str
    query: str = ""
    passage: str = ""
    shared: bool = False


@dataclass(frozen=True, slots=True)
class TargetLogprobs:
    """A backend's answer to one continuation.

    logprobs: natural log-probability of each target token given all before it, at temperature 1; never empty.
    prompt_tokens: tokens of context and target together. decoding: one of `decodings(PROMPT_LOGPROBS)`, or of
    `decodings(SHARED_CONTEXT)`.
    """

    logprobs: tuple[float, ...]
    prompt_tokens: int
    decoding: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation to be continued greedily with at most `max_tokens` tokens. `choices`: where not empty, the
    reply is one of these texts (a backend that can guide its decoding does; the others leave it to the parser)."""

    messages: tuple[tuple[str, str], ...]
    """(role, content) of each message."""
    max_tokens: int
    choices: tuple[str, ...] = ()

    def as_messages(self) -> list[Message]:
        """As chat APIs take them."""
        return [{"role": role, "content": content} for role, content in self.messages]


@dataclass(frozen=True, slots=True)
class Reply:
    """A backend's answer to one chat. text: the reply, a `<think>` part taken off. completion_tokens: its tokens.
    decoding: one of `decodings(GENERATION)`."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    decoding: str


@dataclass(frozen=True, slots=True)
class Pair:
    """What an encoder reads: a query, and a passage with its title, as `qrelay.text.passage_text` joins them. alike:
    the query is a passage too, and is read as one."""

    query: str
    passage: str
    alike: bool = False


@dataclass(frozen=True, slots=True)
class PairScore:
    """A backend's answer to one pair. log_odds: of the passage being relevant, as the model was trained to say, or as
    the backend reads its score. decoding: one of `decodings(PAIR_SCORES)`."""

    log_odds: float
    decoding: str
