"""`openai`: any OpenAI-compatible endpoint, over HTTP (vLLM, llama.cpp's server, a hosted API).

    score          `/chat/completions`, one token with its log-probabilities; `/completions` with `chat` off
    generate       the same, with more tokens
    loglikelihood  `/completions` with `echo` and `logprobs`: vLLM gives them, llama.cpp's server and most hosted chat
                   APIs do not

A server that tells token ids is asked by them (`exact`): exactly the labels' log-probabilities, and those of a target
that is tokenised apart. How an endpoint is asked is set, or found out once and written down (`ways`, `probing`).

What a reply without log-probabilities counts for: `first_tokens`. Nothing turns a reasoning model's thinking off
unless `extra_body` does: unknown hosts refuse unknown fields. A thought is never read as a grade (see `replies`).

Errors: see `connection`. The API key is read from the environment variable that the settings name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from qrelay.errors import EndpointRefuses, QrelayError
from qrelay.http.connection import Connection, Limits
from qrelay.http.names import Names
from qrelay.http.pacing import Policy
from qrelay.llm.base import TOP_LOGPROBS, Incapable, Weights
from qrelay.llm.by_id import BESIDE, VERSION
from qrelay.llm.dialect import Answer, Asked, Dialect
from qrelay.llm.exact import Exact
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
from qrelay.llm.first_tokens import FirstTokens
from qrelay.llm.probing import Prober
from qrelay.llm.ways import AUTO, ECHO, OFF, SHARES, TOKEN_IDS, TOP, WAYS, Notebook, Way, Ways

NAMES: Final = Names("judge.endpoint", "judge.model", "an OpenAI-compatible API and ends in /v1", "passage")
log = logging.getLogger(__name__)

_LEFT_OPEN: Final = frozenset(WAYS)


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
        label_logprobs: str = TOP,
        prompt_logprobs: str = OFF,
        notebook: Notebook | None = None,
        chat: bool = True,
        connection: Connection | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url` is the base that ends in /v1. `extra_body` joins every request and the decoding identity.
        `parameter_names`: what the endpoint calls max_tokens, temperature or stop; empty: it is not sent.
        `accept_text`: whether replies without log-probabilities count. `label_logprobs`, `prompt_logprobs`: a way of
        `ways.WAYS`, or AUTO; `notebook`: where that is written down. `chat`: False for a model without a template.
        `connection`: how requests travel; None: over HTTP, each by itself."""
        self.weights = weights
        limits = limits or Limits()
        self._connection = connection or Connection(
            url, api_key=api_key, policy=policy or Policy(), limits=limits, names=NAMES, beside=BESIDE
        )
        self._dialect = Dialect(weights.model, chat, dict(extra_body or {}), dict(parameter_names or {}))
        self._retry_refused_s = limits.retry_refused_s
        self._top = top_logprobs
        self._shown = FirstTokens(
            self._dialect,
            self._ask,
            top=top_logprobs,
            accept_text=accept_text,
            retry_refused_s=limits.retry_refused_s,
            clock=clock,
        )
        self._exact = Exact(self._dialect, self._ask, limits.retry_refused_s)
        self._ways = Ways(
            weights,
            {TOKEN_LOGPROBS: label_logprobs, PROMPT_LOGPROBS: prompt_logprobs},
            self._every_decoding(),
            notebook,
        )

    def _every_decoding(self) -> dict[str, dict[str, list[str]]]:
        """Capability -> way -> decodings, the oldest way first."""
        own = self._dialect
        shown = [*map(own.scored, range(self._top, 0, -1)), own.strictly]
        exact = {TOKEN_IDS: [own.by_label_ids], SHARES: [own.by_label_shares]}
        return {
            TOKEN_LOGPROBS: {TOP: shown, **exact},
            PROMPT_LOGPROBS: {ECHO: [own.echoed], TOKEN_IDS: [own.by_target_ids]},
        }

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can do; PROMPT_LOGPROBS also as long as it is not known whether."""
        reads = [] if self._ways.name(PROMPT_LOGPROBS) == OFF else [PROMPT_LOGPROBS]
        return frozenset({TOKEN_LOGPROBS, TEXT, GENERATION, *reads})

    def decodings(self, capability: str) -> tuple[str, ...]:
        """Of a way that is asked by token ids the one; else those of `first_tokens`, and of the echo. As long as the
        way is not known, what they would be if the endpoint gave no more than others."""
        if capability == GENERATION:
            return (self._dialect.generated,)
        way = self._ways.name(capability)
        if capability not in _LEFT_OPEN or way == OFF:
            return ()
        if capability == TOKEN_LOGPROBS and way in (TOP, AUTO):
            return self._shown.decodings
        every = self._every_decoding()[capability]
        return tuple(every[ECHO if way == AUTO else way])

    @property
    def notes(self) -> dict[str, str]:
        """What people should know of the endpoint now."""
        return self._connection.notes | self._shown.notes | self._ways.notes

    def learn(self, needs: frozenset[str]) -> None:
        """Find out how to ask for `needs`, where that is left to the endpoint. One that does not answer now is asked
        before its first question. Blocks; call it off the event loop that questions come from."""
        wanted = [each for each in needs if self._ways.name(each) == AUTO and each in self.capabilities & _LEFT_OPEN]
        if wanted:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, self._learn(wanted)).result()

    async def _learn(self, wanted: Sequence[str]) -> None:
        for capability in wanted:
            try:
                await self._ways.settle(capability, partial(self._find, capability, knock=True))
            except QrelayError as error:
                log.warning("what the endpoint can do is found out with the first question, not now: %s", error)
        await self._connection.aclose()

    async def _find(self, capability: str, *, knock: bool = False) -> Way:
        """knock: fail at once where nobody answers, without retries."""
        if knock:
            await self._connection.look("GET", VERSION, {})
        prober = Prober(self._dialect, self._connection, self._advice)
        return await (prober.labels(self._top) if capability == TOKEN_LOGPROBS else prober.targets(self._top))

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """One answer a prompt, as many requests at once as the endpoint bears."""
        ask = {TOKEN_IDS: self._exact.labels, SHARES: self._exact.shares}
        return await self._all(TOKEN_LOGPROBS, lambda way: ask.get(way, self._shown.score), prompts)

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        """One answer a continuation. An endpoint that gives no log-probabilities of it is an EndpointRefuses; one
        that cuts its tokens across the target's begin, where both travel as one text, a MalformedInput."""
        if PROMPT_LOGPROBS not in self.capabilities:
            return await super().loglikelihood(continuations)
        ask = {TOKEN_IDS: self._exact.target, ECHO: self._echo}
        return await self._all(PROMPT_LOGPROBS, lambda way: ask.get(way, self._no_target), continuations)

    async def generate(self, chats: Sequence[Chat]) -> list[Reply | QrelayError]:
        """One reply a chat; choices are left to whoever reads it."""
        return await self._all(GENERATION, lambda _: self._generate, chats)

    async def _all(
        self, capability: str, by: Callable[[str], Callable[[Any], Any]], questions: Sequence[Any]
    ) -> list[Any]:
        """Every answer, in order, asked for `by` the way that holds; a QrelayError stands in the place of the answer
        that it prevented."""
        try:
            if questions and capability in _LEFT_OPEN:
                await self._ways.settle(capability, partial(self._find, capability))
        except QrelayError as error:
            return [self._connection.settled(error)] * len(questions)
        answer = by(self._ways.name(capability))

        async def attempt(question: Any) -> Any:
            try:
                return await answer(question)
            except QrelayError as error:
                return error

        answers = await asyncio.gather(*map(attempt, questions))
        return [self._connection.settled(each) if isinstance(each, QrelayError) else each for each in answers]

    async def _echo(self, each: Continuation) -> TargetLogprobs:
        answer = await self._ask(self._dialect.echo(each))
        return answer or await self._no_target(each)

    async def _no_target(self, _: Continuation) -> TargetLogprobs:
        said = f"the endpoint does not give a prompt with its log-probabilities: {_ADVICE['echo']}"
        raise EndpointRefuses(said, retry_after_s=self._retry_refused_s)

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
    "use an endpoint that gives prompts with their log-probabilities (vLLM), or set judge.endpoint.prompt_logprobs "
    "to false and choose a strategy that does not need them"
)
_OTHER_WAY: Final = "serve what was served before, or name another way in judge.endpoint.%s (another identity)"
_ADVICE: Final = {
    "max_tokens": _RENAME % "max_tokens: max_completion_tokens",
    "temperature": _RENAME % 'temperature: ""' + "; another value: besides, in judge.endpoint.extra_body",
    "stop": _RENAME % 'stop: ""',
    "extra_body": "take it out of judge.endpoint.extra_body",
    "echo": _NO_ECHO,
    "logprobs": _NO_ECHO,
    "logprob_token_ids": _OTHER_WAY % "label_logprobs",
    "return_tokens_as_token_ids": _OTHER_WAY % "label_logprobs",
    "prompt_logprobs": _OTHER_WAY % "prompt_logprobs",
}
