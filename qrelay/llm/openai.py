"""`openai`: any OpenAI-compatible endpoint, over HTTP (vLLM, llama.cpp's server, a hosted API).

    score          `/chat/completions`, one token with its log-probabilities; `/completions` with `chat` off
    generate       the same, with more tokens
    loglikelihood  `/completions` with `echo` and `logprobs`, only where `prompt_logprobs` is declared: vLLM does,
                   llama.cpp's server and most hosted chat APIs do not

A reply without a list of alternatives counts as text, under another decoding, so that the two kinds of measurement
never share an identity: with the first token's own log-probability where that is shown, else read strictly. Where
replies that hold an answer lack log-probabilities again and again, or the endpoint refuses the parameter, the judge
asks for text alone for a while, says so, and tries again later. A limit of `top_logprobs` that a refusal names is
taken, under a decoding of its own. Nothing turns a reasoning model's thinking off unless `extra_body` does: unknown
hosts refuse unknown fields. A thought is never read as a grade (see `replies`).

Errors: see `connection`. The API key is read from the environment variable that the settings name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from qrelay.errors import EndpointRefuses, MalformedInput, QrelayError
from qrelay.holds import Hold
from qrelay.http.connection import Connection, Limits
from qrelay.http.names import Names
from qrelay.http.pacing import Policy
from qrelay.http.refusals import ParameterRefused
from qrelay.llm.base import TOP_LOGPROBS, Incapable, Weights
from qrelay.llm.dialect import Asked, Dialect
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
from qrelay.llm.replies import begins_thinking, without_thoughts

Answer = TypeVar("Answer")
NAMES: Final = Names("judge.endpoint", "judge.model", "an OpenAI-compatible API and ends in /v1", "passage")
log = logging.getLogger(__name__)

_LOGPROBS: Final = frozenset({"logprobs", "top_logprobs"})
_LACKING: Final = 8
"""Answers in a row without log-probabilities after which they are not asked for, for _TEXT_S seconds."""
_TEXT_S: Final = 600.0


class OpenAIBackend(Incapable):
    """See the module. Use from one event loop at a time."""

    def __init__(
        self,
        url: str,
        weights: Weights,
        *,
        api_key: str = "",
        policy: Policy | None = None,
        limits: Limits | None = None,
        extra_body: Mapping[str, Any] | None = None,
        parameter_names: Mapping[str, str] | None = None,
        top_logprobs: int = TOP_LOGPROBS,
        accept_text: bool = True,
        prompt_logprobs: bool = False,
        chat: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url` is the base that ends in /v1. `extra_body` joins every request and the decoding identity.
        `parameter_names`: what the endpoint calls max_tokens, temperature or stop; empty: it is not sent.
        `accept_text`: whether replies without log-probabilities count. `prompt_logprobs`: whether the endpoint
        echoes a prompt with its log-probabilities. `chat`: False for a model without a chat template."""
        self.weights = weights
        self._connection = Connection(
            url, api_key=api_key, policy=policy or Policy(), limits=limits or Limits(), names=NAMES
        )
        self._dialect = Dialect(weights.model, chat, dict(extra_body or {}), dict(parameter_names or {}))
        self._accept_text = accept_text
        self._retry_refused_s = (limits or Limits()).retry_refused_s
        self._clock = clock
        self._top = top_logprobs
        self._lacking = 0
        self._text_until = 0.0
        self._text_only: Hold | None = None
        self.capabilities = frozenset(
            {TOKEN_LOGPROBS, TEXT, GENERATION, *([PROMPT_LOGPROBS] if prompt_logprobs else [])}
        )
        self._decodings = self._name_decodings()

    def _name_decodings(self) -> dict[str, tuple[str, ...]]:
        own = self._dialect
        exact = own.scored(self._top)
        named = {
            TOKEN_LOGPROBS: (exact, own.strictly) if self._accept_text else (exact,),
            PROMPT_LOGPROBS: (own.echoed,),
            GENERATION: (own.generated,),
        }
        return {capability: texts for capability, texts in named.items() if capability in self.capabilities}

    def decodings(self, capability: str) -> tuple[str, ...]:
        """Those of `score`: with log-probabilities, then text where `accept_text` holds, then with as many
        log-probabilities as the endpoint turned out to allow."""
        return self._decodings.get(capability, ())

    @property
    def notes(self) -> dict[str, str]:
        """What people should know of the endpoint now."""
        found = self._connection.notes
        if self._text_only:
            found["text only"] = str(self._text_only)
        if len(learned := self._decodings[TOKEN_LOGPROBS][1 + self._accept_text :]):
            found["top_logprobs"] = f"{self._top}, the endpoint's limit: {learned[-1]}"
        return found

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """One answer a prompt, as many requests at once as the endpoint bears."""
        return await self._all(self._score, prompts)

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        """One answer a continuation. An endpoint that echoes no log-probabilities is an EndpointRefuses; one that
        cuts its tokens across the target's begin a MalformedInput (context and target travel as one text)."""
        if PROMPT_LOGPROBS not in self.capabilities:
            return await super().loglikelihood(continuations)
        return await self._all(self._loglikelihood, continuations)

    async def generate(self, chats: Sequence[Chat]) -> list[Reply | QrelayError]:
        """One reply a chat; choices are left to whoever reads it."""
        return await self._all(self._generate, chats)

    async def _all(self, answer: Callable[[Any], Any], questions: Sequence[Any]) -> list[Any]:
        """Every answer, in order; a QrelayError stands in the place of the answer that it prevented."""

        async def attempt(question: Any) -> Any:
            try:
                return await answer(question)
            except QrelayError as error:
                return error

        answers = await asyncio.gather(*map(attempt, questions))
        return [self._connection.settled(each) if isinstance(each, QrelayError) else each for each in answers]

    async def _score(self, prompt: Prompt) -> TokenLogprobs:
        if self._clock() < self._text_until:
            return await self._score_strictly(prompt)
        try:
            reply = await self._score_exactly(prompt)
        except ParameterRefused as error:
            self._read_text(f"the endpoint refuses {error.parameter} with {error}")
            return await self._score_strictly(prompt)
        if reply.tokens:
            self._lacking, self._text_only = 0, None
            return reply
        if begins_thinking(reply.text) and not without_thoughts(reply.text):
            return reply
        if not self._accept_text and not reply.text.strip():
            raise MalformedInput("the reply holds no answer")
        if not self._accept_text:
            raise MalformedInput(
                "the reply gives no log-probabilities: choose an endpoint that does, or set "
                "judge.endpoint.accept_text to true to read its text (coarser, recorded in the decoding)"
            )
        if reply.text.strip():
            self._count_lacking()
        return await self._score_strictly(prompt)

    def _count_lacking(self) -> None:
        self._lacking += 1
        if self._lacking >= _LACKING:
            self._read_text(f"{self._lacking} answers in a row came without log-probabilities")

    def _read_text(self, why: str) -> None:
        """Ask for text alone for a while; without `accept_text` nobody may.

        Raises:
            EndpointRefuses: replies in text do not count.
        """
        if not self._accept_text:
            raise EndpointRefuses(
                f"{why}: choose an endpoint that gives log-probabilities, or set judge.endpoint.accept_text to true",
                retry_after_s=self._retry_refused_s,
            )
        hold = Hold.lasting(_TEXT_S, why)
        if self._text_only is None:
            log.warning("labels are read from text, %s", hold)
        self._text_only = self._text_only.going_on(hold) if self._text_only else hold
        self._text_until = self._clock() + _TEXT_S

    async def _score_exactly(self, prompt: Prompt) -> TokenLogprobs:
        """Asked for as many log-probabilities as the endpoint allows, which its refusals may say.

        Raises:
            ParameterRefused: it gives none.
        """
        _, *text = self._decodings[TOKEN_LOGPROBS][: 1 + self._accept_text]
        while True:
            top = self._top
            asked = self._dialect.scoring(prompt, top, alone=text[0] if text else "")
            try:
                return await self._ask(asked, may_refuse=_LOGPROBS)
            except ParameterRefused as error:
                if self._top >= top and not (error.limit and error.limit < top):
                    raise
                self._lower(error.limit or self._top)

    def _lower(self, limit: int) -> None:
        """Ask for no more log-probabilities than the endpoint allows, under a decoding that says so."""
        if limit >= self._top:
            return
        log.warning(
            "the endpoint allows %d log-probabilities, not %d: labels get another decoding; set "
            "judge.endpoint.top_logprobs to %d to have one from the start",
            limit, self._top, limit,
        )  # fmt: skip
        self._top = limit
        self._decodings[TOKEN_LOGPROBS] = (*self._decodings[TOKEN_LOGPROBS], self._dialect.scored(limit))

    async def _score_strictly(self, prompt: Prompt) -> TokenLogprobs:
        """Of a text that thinks first, what follows the thought counts; a thought without an end stays, no grade."""
        reply = await self._ask(self._dialect.strict(prompt))
        text = without_thoughts(reply.text) or reply.text
        return TokenLogprobs((), text, reply.prompt_tokens, reply.decoding)

    async def _loglikelihood(self, each: Continuation) -> TargetLogprobs:
        answer = await self._ask(self._dialect.echo(each))
        if answer is None:
            said = f"the endpoint does not echo a prompt with its log-probabilities: {_ADVICE['echo']}"
            raise EndpointRefuses(said, retry_after_s=self._retry_refused_s)
        return answer

    async def _generate(self, chat: Chat) -> Reply:
        return await self._ask(self._dialect.generation(chat))

    async def _ask(self, asked: Asked[Answer], may_refuse: frozenset[str] = frozenset()) -> Answer:
        return await self._connection.ask(
            asked.path, asked.body, asked.read, advice=self._advice, may_refuse=may_refuse
        )

    def _advice(self, parameter: str) -> str:
        """What to do where the endpoint refuses a parameter."""
        known = "extra_body" if parameter in self._dialect.extra else parameter
        return _ADVICE.get(known, "see judge.endpoint.parameter_names")

    def close(self) -> None:
        """Close the connections, on the loop that opened them if it still runs."""
        self._connection.close()


_RENAME: Final = "name it otherwise, or leave it out, in judge.endpoint.parameter_names: {%s}"
_NO_ECHO: Final = (
    "use an endpoint that echoes prompts with their log-probabilities (vLLM), or set judge.endpoint.prompt_logprobs "
    "to false and choose a strategy that does not need them"
)
_ADVICE: Final = {
    "max_tokens": _RENAME % "max_tokens: max_completion_tokens",
    "temperature": _RENAME % 'temperature: ""' + "; another value: besides, in judge.endpoint.extra_body",
    "stop": _RENAME % 'stop: ""',
    "extra_body": "take it out of judge.endpoint.extra_body",
    "echo": _NO_ECHO,
    "logprobs": _NO_ECHO,
}
