"""`openai`: any OpenAI-compatible endpoint, over HTTP (vLLM, llama.cpp's server, a hosted API).

    score          `/chat/completions`, one token with its log-probabilities; `/completions` with `chat` off
    generate       the same, with more tokens
    loglikelihood  `/completions` with `echo` and `logprobs`, only where `prompt_logprobs` is declared: vLLM does,
                   llama.cpp's server and most hosted chat APIs do not

An endpoint that gives no log-probabilities of the first token (it ignores the parameter, or answers 400 to it) is
asked for text from then on: the reply is read strictly, and the label carries another decoding, so that the two
kinds of measurement never share an identity. Nothing turns a reasoning model's thinking off unless `extra_body`
does: unknown hosts refuse unknown fields. A thought is never read as a grade (see `replies`).

Errors: see `connection`. The API key is read from the environment variable that the settings name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from qrelay.errors import ConfigError, QrelayError
from qrelay.llm.base import TOP_LOGPROBS, Incapable, Weights
from qrelay.llm.connection import Connection, LogprobsRefusedError
from qrelay.llm.exchange import (
    GENERATION,
    PROMPT_LOGPROBS,
    TEXT,
    TOKEN_LOGPROBS,
    Chat,
    Continuation,
    Prompt,
    Reply,
    TargetLogprobs,
    TokenLogprobs,
)
from qrelay.llm.pacing import Policy
from qrelay.llm.replies import has_logprobs, read_completion, read_echo, read_reply, without_thoughts

Answer = TypeVar("Answer")

_TEXT_ONLY: dict[str, Any] = {"max_tokens": 4, "stop": ["\n"]}
"""Four tokens: some vocabularies begin a reply with a token that is only a blank."""
_START = "\n"
"""What stands before a target without a context: its first token needs one before it."""


class OpenAIBackend(Incapable):
    """See the module. Use from one event loop at a time."""

    def __init__(
        self,
        url: str,
        weights: Weights,
        *,
        api_key: str = "",
        policy: Policy | None = None,
        request_timeout_s: float = 30.0,
        extra_body: Mapping[str, Any] | None = None,
        accept_text: bool = True,
        prompt_logprobs: bool = False,
        chat: bool = True,
    ) -> None:
        """`url` is the base that ends in /v1. `extra_body` joins every request and the decoding identity.
        `accept_text`: whether replies without log-probabilities count. `prompt_logprobs`: whether the endpoint
        echoes a prompt with its log-probabilities. `chat`: False for a model without a chat template."""
        self.weights = weights
        self._connection = Connection(
            url, api_key=api_key, policy=policy or Policy(), request_timeout_s=request_timeout_s
        )
        self._extra = dict(extra_body or {})
        self._accept_text = accept_text
        self._chat = chat
        self._text_only = False
        self.capabilities = frozenset(
            {TOKEN_LOGPROBS, TEXT, GENERATION, *([PROMPT_LOGPROBS] if prompt_logprobs else [])}
        )
        self._decodings = self._name_decodings()

    def _name_decodings(self) -> dict[str, tuple[str, ...]]:
        engine = "engine=openai" if self._chat else "engine=openai;chat=off"
        extra = "".join(f";{key}={self._extra[key]!r}" for key in sorted(self._extra))
        exact = f"{engine};temperature=0;max_tokens=1;top_logprobs={TOP_LOGPROBS}{extra}"
        strict = f"{engine};temperature=0;max_tokens=4;stop=newline;no-logprobs;strict-text{extra}"
        named = {
            TOKEN_LOGPROBS: (exact, strict) if self._accept_text else (exact,),
            PROMPT_LOGPROBS: (f"engine=openai;echo;temperature=1;start=newline{extra}",),
            GENERATION: (f"{engine};temperature=0{extra}",),
        }
        return {capability: texts for capability, texts in named.items() if capability in self.capabilities}

    def decodings(self, capability: str) -> tuple[str, ...]:
        """Those of `score`: with log-probabilities, then strict text where `accept_text` holds."""
        return self._decodings.get(capability, ())

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """One answer a prompt, as many requests at once as the endpoint bears."""
        return await _all(self._score, prompts)

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        """One answer a continuation. An endpoint that echoes no log-probabilities is a ConfigError; one that cuts
        its tokens across the target's begin a MalformedInput (context and target travel as one text)."""
        if PROMPT_LOGPROBS not in self.capabilities:
            return await super().loglikelihood(continuations)
        return await _all(self._loglikelihood, continuations)

    async def generate(self, chats: Sequence[Chat]) -> list[Reply | QrelayError]:
        """One reply a chat; choices are left to whoever reads it."""
        return await _all(self._generate, chats)

    async def _score(self, prompt: Prompt) -> TokenLogprobs:
        if not self._text_only:
            try:
                return await self._score_exactly(prompt)
            except LogprobsRefusedError:
                if not self._accept_text:
                    raise ConfigError(
                        "the endpoint gives no log-probabilities: use one that does, or set "
                        "judge.endpoint.accept_text to true to read its text (coarser, recorded in the decoding)"
                    ) from None
                self._text_only = True
        return await self._score_strictly(prompt)

    async def _score_exactly(self, prompt: Prompt) -> TokenLogprobs:
        asked = {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if self._chat else {"logprobs": TOP_LOGPROBS}
        decoding = self._decodings[TOKEN_LOGPROBS][0]

        def read(body: Any) -> tuple[bool, TokenLogprobs]:
            return has_logprobs(body), read_completion(body, decoding)

        exact, reply = await self._complete(prompt.messages(), {"max_tokens": 1, **asked}, read)
        if not exact:
            raise LogprobsRefusedError
        return reply

    async def _score_strictly(self, prompt: Prompt) -> TokenLogprobs:
        """Of a text that thinks first, what follows the thought counts; a thought without an end stays, no grade."""
        decoding = self._decodings[TOKEN_LOGPROBS][-1]
        reply = await self._complete(prompt.messages(), _TEXT_ONLY, lambda body: read_completion(body, decoding))
        text = without_thoughts(reply.text) or reply.text
        return TokenLogprobs((), text, reply.prompt_tokens, decoding)

    async def _loglikelihood(self, each: Continuation) -> TargetLogprobs:
        prompt = (each.context or _START) + each.target
        parameters = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        decoding = self._decodings[PROMPT_LOGPROBS][0]
        try:
            answer = await self._connection.ask(
                "/completions",
                {"model": self.weights.model, **parameters, **self._extra},
                lambda body: read_echo(body, prompt, each.target, decoding),
            )
        except LogprobsRefusedError:
            answer = None
        if answer is None:
            raise ConfigError(
                "the endpoint does not echo a prompt with its log-probabilities: use one that does (vLLM), or set "
                "judge.endpoint.prompt_logprobs to false and choose a strategy that does not need them"
            )
        return answer

    async def _generate(self, chat: Chat) -> Reply:
        decoding = self._decodings[GENERATION][0]
        return await self._complete(
            chat.as_messages(), {"max_tokens": chat.max_tokens}, lambda body: read_reply(body, decoding)
        )

    async def _complete(
        self, messages: list[dict[str, str]], parameters: dict[str, Any], read: Callable[[Any], Answer]
    ) -> Answer:
        given: dict[str, Any] = {"messages": messages} if self._chat else {"prompt": _as_text(messages)}
        request = {"model": self.weights.model, **given, "temperature": 0, **parameters, **self._extra}
        return await self._connection.ask("/chat/completions" if self._chat else "/completions", request, read)

    def close(self) -> None:
        """Close the connections, on the loop that opened them if it still runs."""
        self._connection.close()


async def _all(answer: Callable[[Any], Any], questions: Sequence[Any]) -> list[Any]:
    """Every answer, in order; a QrelayError stands in the place of the answer that it prevented."""

    async def settled(question: Any) -> Any:
        try:
            return await answer(question)
        except QrelayError as error:
            return error

    return list(await asyncio.gather(*map(settled, questions)))


def _as_text(messages: Sequence[Mapping[str, str]]) -> str:
    """A chat as plain text for a base model: paragraphs; a reply stands on its question's last line."""
    text = ""
    for message in messages:
        before = " " if message["role"] == "assistant" else "\n\n"
        text += before + message["content"]
    return text.strip()
