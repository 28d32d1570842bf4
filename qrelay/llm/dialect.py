"""How an OpenAI-compatible endpoint is asked, whoever sends it: each question's request, its reader, its decoding.

scoring      `/chat/completions`, one token with its log-probabilities; `/completions` with `chat` off
strict       the same, a short text without log-probabilities
generation   the same, as many tokens as the chat asks for
echo         `/completions` with `echo` and `logprobs`: the log-probabilities of a prompt
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from qrelay.llm.exchange import Chat, Continuation, Message, Prompt, Reply, TargetLogprobs, TokenLogprobs
from qrelay.llm.replies import read_completion, read_echo, read_reply

Answer = TypeVar("Answer")

CHAT: Final = "/chat/completions"
COMPLETIONS: Final = "/completions"
_TEXT_ONLY: Final[dict[str, Any]] = {"max_tokens": 4, "stop": ["\n"]}
"""Four tokens: some vocabularies begin a reply with a token that is only a blank."""
_START: Final = "\n"
"""What stands before a target without a context: its first token needs one before it."""


@dataclass(frozen=True, slots=True)
class Asked(Generic[Answer]):
    """A request. path: below the base URL that ends in /v1, or beside it (`by_id.BESIDE`). read: what its reply's
    JSON says; raises as `replies.read_completion`."""

    path: str
    body: dict[str, Any]
    read: Callable[[Any], Answer]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What of the settings every request and every decoding holds. extra: fields that join every request. names: what
    the endpoint calls max_tokens, temperature or stop; empty: it is not sent. chat: False for a model without a chat
    template."""

    model: str
    chat: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def scoring(self, prompt: Prompt, top: int, *, alone: str = "") -> Asked[TokenLogprobs]:
        """The first token with `top` log-probabilities. alone: see `replies.read_completion`."""
        shown = {"logprobs": True, "top_logprobs": top} if self.chat else {"logprobs": top}
        decoding = self.scored(top)
        return self.completion(
            prompt.messages(), {"max_tokens": 1, **shown}, lambda body: read_completion(body, decoding, alone=alone)
        )

    def strict(self, prompt: Prompt) -> Asked[TokenLogprobs]:
        """A text."""
        decoding = self.strictly
        return self.completion(prompt.messages(), _TEXT_ONLY, lambda body: read_completion(body, decoding))

    def generation(self, chat: Chat) -> Asked[Reply]:
        """A reply in words."""
        decoding = self.generated
        return self.completion(
            chat.as_messages(), {"max_tokens": chat.max_tokens}, lambda body: read_reply(body, decoding)
        )

    def echo(self, each: Continuation) -> Asked[TargetLogprobs | None]:
        """The log-probabilities of a target, which travels with its context as one text; None: none were echoed."""
        prompt, decoding = (each.context or _START) + each.target, self.echoed
        asked = {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        return self.request(
            COMPLETIONS, {"prompt": prompt}, asked, lambda body: read_echo(body, prompt, each.target, decoding)
        )

    def scored(self, top: int) -> str:
        """The decoding of a reply with so many log-probabilities."""
        return f"{self.engine};{self.greedy};{self._named('max_tokens', 1)};top_logprobs={top}{self.suffix}"

    @property
    def strictly(self) -> str:
        """The decoding of a text."""
        limits = [self._named("max_tokens", 4), self._named("stop", "newline")]
        return ";".join([self.engine, self.greedy, *limits, "no-logprobs", f"strict-text{self.suffix}"])

    @property
    def generated(self) -> str:
        """The decoding of a reply in words."""
        return f"{self.engine};{self.greedy}{self.suffix}"

    @property
    def echoed(self) -> str:
        """The decoding of an echoed target; it is read without a template."""
        return f"engine=openai;echo;temperature=1;start=newline{self.suffix}"

    @property
    def by_label_ids(self) -> str:
        """The decoding of the log-probabilities of exactly the labels' tokens."""
        return f"{self.engine};{self.greedy};{self._named('max_tokens', 1)};logprob_token_ids=labels{self.suffix}"

    @property
    def by_label_shares(self) -> str:
        """The decoding of the probabilities of exactly the labels' tokens, each asked for by itself."""
        return f"{self.engine};generative_scoring=labels{self.suffix}"

    @property
    def by_target_ids(self) -> str:
        """The decoding of a target whose tokens travel as ids."""
        return f"engine=openai;prompt_logprobs=token_ids;temperature=1;start=model{self.suffix}"

    @property
    def engine(self) -> str:
        """How a decoding begins."""
        return "engine=openai" if self.chat else "engine=openai;chat=off"

    @property
    def greedy(self) -> str:
        """Temperature 0, by whatever name."""
        return self._named("temperature", 0)

    @property
    def suffix(self) -> str:
        """How a decoding ends: the extra fields."""
        return "".join(f";{key}={self.extra[key]!r}" for key in sorted(self.extra))

    @staticmethod
    def as_text(prompt: Prompt) -> str:
        """A prompt for a model without a chat template."""
        return _as_text(prompt.messages())

    def _named(self, parameter: str, value: object) -> str:
        name = self.names.get(parameter, parameter)
        return f"{name}={value}" if name else f"{parameter}=not-sent"

    def completion(
        self, messages: list[Message], parameters: dict[str, Any], read: Callable[[Any], Answer]
    ) -> Asked[Answer]:
        """A chat, or the same as text, continued greedily."""
        given: dict[str, Any] = {"messages": messages} if self.chat else {"prompt": _as_text(messages)}
        return self.request(CHAT if self.chat else COMPLETIONS, given, {"temperature": 0, **parameters}, read)

    def request(
        self, path: str, given: dict[str, Any], parameters: dict[str, Any], read: Callable[[Any], Answer]
    ) -> Asked[Answer]:
        """The request with what every request holds, its parameters called as the endpoint calls them."""
        named = {self.names.get(name, name): value for name, value in parameters.items()}
        named.pop("", None)
        return Asked(path, {"model": self.model, **given, **named, **self.extra}, read)


def _as_text(messages: Sequence[Mapping[str, str]]) -> str:
    """A chat as plain text for a base model: paragraphs; a reply stands on its question's last line."""
    text = ""
    for message in messages:
        before = " " if message["role"] == "assistant" else "\n\n"
        text += before + message["content"]
    return text.strip()
