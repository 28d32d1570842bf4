"""`openai`: any OpenAI-compatible endpoint, over HTTP (vLLM, llama.cpp's server, a hosted API).

Asks `/chat/completions` for one token with its log-probabilities. An endpoint that gives none (it ignores
the parameter, or answers 400 to it) is asked for text from then on: the reply is read strictly, and the
label carries another decoding, so that the two kinds of measurement never share an identity.

What comes back wrong becomes an error, never a grade:

    429                          RateLimited          retried, after Retry-After / x-ratelimit-reset-*
    408, 5xx, connection, JSON   BackendUnavailable   retried
    silence                      BackendTimeout       retried
    400 "context length"         Oversized            not retried
    401, 403, 404                ConfigError          not retried
    other 4xx                    InputError           not retried

The API key is read from the environment variable that the settings name; it is in no log and no error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from qrelay.errors import (
    BackendTimeout,
    BackendUnavailable,
    ConfigError,
    InputError,
    QrelayError,
    RateLimited,
)
from services.judge.backends.base import TOP_LOGPROBS, Weights
from services.judge.backends.pacing import Pacer, Policy
from services.judge.backends.ratelimits import asked_to_wait, used_up
from services.judge.backends.replies import is_too_long, read_completion, too_long
from services.judge.exchange import TEXT, TOKEN_LOGPROBS, Prompt, TokenLogprobs

_WITH_LOGPROBS = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
_TEXT_ONLY: dict[str, Any] = {"max_tokens": 4, "temperature": 0, "stop": ["\n"]}
"""Four tokens: some vocabularies begin a reply with a token that is only a blank."""
_SHOWN_CHARS = 200


class _NoLogprobsError(Exception):
    """The endpoint gives no log-probabilities."""


class OpenAIBackend:
    """See the module. Use from one event loop at a time."""

    capabilities = frozenset({TOKEN_LOGPROBS, TEXT})

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
    ) -> None:
        """`url` is the base that ends in /v1. `extra_body` joins every request and the decoding identity.
        `accept_text`: whether replies without log-probabilities count."""
        self.weights = weights
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._api_key = api_key
        self._policy = policy or Policy()
        self._timeout = httpx.Timeout(request_timeout_s)
        self._extra = dict(extra_body or {})
        self._accept_text = accept_text
        self._text_only = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._pacer: Pacer | None = None
        extra = "".join(f";{key}={self._extra[key]!r}" for key in sorted(self._extra))
        self._exact = f"engine=openai;temperature=0;max_tokens=1;top_logprobs={TOP_LOGPROBS}{extra}"
        self._strict = f"engine=openai;temperature=0;max_tokens=4;stop=newline;no-logprobs;strict-text{extra}"
        self.decodings = (self._exact, self._strict) if accept_text else (self._exact,)
        logging.getLogger("httpx").setLevel(logging.WARNING)  # else one line a request

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """One answer a prompt, `policy.concurrency` requests at once."""
        client, pacer = self._bound()
        return list(await asyncio.gather(*(self._answer(prompt, client, pacer) for prompt in prompts)))

    async def _answer(self, prompt: Prompt, client: httpx.AsyncClient, pacer: Pacer) -> TokenLogprobs | QrelayError:
        try:
            try:
                return await pacer.run(lambda: self._ask(prompt, client, pacer))
            except _NoLogprobsError:
                if not self._accept_text:
                    return ConfigError(
                        "the endpoint gives no log-probabilities: use one that does, or set "
                        "judge.endpoint.accept_text to true to read its text (coarser, recorded in the decoding)"
                    )
                self._text_only = True
                return await pacer.run(lambda: self._ask(prompt, client, pacer))
        except QrelayError as error:
            return error

    async def _ask(self, prompt: Prompt, client: httpx.AsyncClient, pacer: Pacer) -> TokenLogprobs:
        """One request. Raises QrelayError, or _NoLogprobsError."""
        text_only = self._text_only
        parameters = _TEXT_ONLY if text_only else _WITH_LOGPROBS
        request = {"model": self.weights.model, "messages": prompt.messages(), **parameters, **self._extra}
        response = await self._post(client, request)
        wait = used_up(response.headers)
        if wait is not None:
            pacer.pause(wait)
        body = _json(response)
        if response.status_code >= 400:
            if response.status_code == 400 and not text_only and "logprobs" in str(body):
                raise _NoLogprobsError
            raise self._refusal(response, body)
        try:
            reply = read_completion(body, self._strict if text_only else self._exact)
        except ValueError as error:
            raise BackendUnavailable(
                f"the endpoint answered {response.status_code} with something that is {error}: "
                "check that judge.endpoint.url is an OpenAI-compatible API and ends in /v1"
            ) from error
        if not reply.tokens and not text_only:
            raise _NoLogprobsError
        return reply

    async def _post(self, client: httpx.AsyncClient, request: dict[str, Any]) -> httpx.Response:
        try:
            return await client.post(self._url, json=request)
        except httpx.TimeoutException as error:
            raise BackendTimeout(
                f"the endpoint did not answer in {self._timeout.read} s (judge.endpoint.request_timeout_s)"
            ) from error
        except httpx.TransportError as error:
            raise BackendUnavailable(
                f"the endpoint does not answer ({type(error).__name__}): check judge.endpoint.url"
            ) from error

    def _refusal(self, response: httpx.Response, body: Any) -> QrelayError:
        """The error of an HTTP status. The endpoint's words are shown where they cannot hold a passage."""
        status = response.status_code
        failure = body.get("error", body) if isinstance(body, dict) else {}
        if status == 429:
            wait = asked_to_wait(response.headers)
            return RateLimited("the endpoint answered 429, too many requests", retry_after_s=wait)
        if status == 408 or status >= 500:
            wait = asked_to_wait(response.headers)
            return BackendUnavailable(f"the endpoint answered {status}", retry_after_s=wait)
        if is_too_long(failure):
            return too_long(failure, "use a model with a longer context")
        if status in (401, 403, 404):
            said = failure.get("message", "") if isinstance(failure, dict) else ""
            said = str(said).replace(self._api_key, "***") if self._api_key else str(said)
            return ConfigError(
                f"the endpoint answered {status} ({said[:_SHOWN_CHARS]}): check judge.model, "
                "judge.endpoint.url and the key in the variable that judge.endpoint.api_key_env names"
            )
        kind = failure.get("type") or failure.get("code") if isinstance(failure, dict) else None
        return InputError(f"the endpoint refused the request with {status} ({str(kind)[:_SHOWN_CHARS]})")

    def _bound(self) -> tuple[httpx.AsyncClient, Pacer]:
        loop = asyncio.get_running_loop()
        if self._client is None or self._pacer is None or self._loop is not loop:
            headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
            limits = httpx.Limits(max_connections=self._policy.concurrency)
            self._client = httpx.AsyncClient(timeout=self._timeout, headers=headers, limits=limits)
            self._pacer = Pacer(self._policy)
            self._loop = loop
        return self._client, self._pacer

    def close(self) -> None:
        """Close the connections, on the loop that opened them if it still runs."""
        client, self._client = self._client, None
        if client is not None and self._loop is not None and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(client.aclose(), self._loop)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
