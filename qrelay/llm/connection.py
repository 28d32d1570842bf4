"""One HTTP endpoint: a request in, a JSON body out, under a `Policy`.

What comes back wrong becomes an error, never an answer:

    429                          RateLimited          retried, after Retry-After / x-ratelimit-reset-*
    408, 5xx, connection, JSON   BackendUnavailable   retried
    another model than before    BackendUnavailable   retried
    silence                      BackendTimeout       retried
    400 "context length"         Oversized            not retried
    401, 403, 404                ConfigError          not retried
    other 4xx                    InputError           not retried

The API key is in no log and no error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from qrelay.errors import BackendTimeout, BackendUnavailable, ConfigError, InputError, QrelayError, RateLimited
from qrelay.llm.pacing import Pacer, Policy
from qrelay.llm.ratelimits import asked_to_wait, used_up
from qrelay.llm.replies import is_too_long, too_long

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)

_SHOWN_CHARS = 200
MAX_BODY_BYTES = 32 * 1024**2
"""Of one answer. The log-probabilities of a prompt of 100,000 tokens take 10 MB."""
_PART_BYTES = 64 * 1024


class LogprobsRefusedError(Exception):
    """The endpoint refused a request because of its parameter `logprobs` (or gave none)."""


class Connection:
    """See the module. Use from one event loop at a time."""

    def __init__(self, url: str, *, api_key: str, policy: Policy, request_timeout_s: float) -> None:
        """`url` is the base that ends in /v1. `request_timeout_s`: seconds of silence."""
        self._url = url.rstrip("/")
        self._api_key = api_key
        self._policy = policy
        self._timeout = httpx.Timeout(request_timeout_s)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._pacer: Pacer | None = None
        self._model: str | None = None
        self._builds: set[str] = set()
        logging.getLogger("httpx").setLevel(logging.WARNING)  # else one line a request

    async def ask(self, path: str, request: dict[str, Any], read: Callable[[Any], Answer]) -> Answer:
        """What `read` makes of the body that POST `path` answers; `read` raises ValueError at a body that is none.

        Raises:
            QrelayError: see the module; retries and waits are over.
            LogprobsRefusedError: the request asks for log-probabilities, which the endpoint refuses.
        """
        client, pacer = self._bound()
        return await pacer.run(lambda: self._once(client, pacer, path, request, read))

    async def _once(
        self,
        client: httpx.AsyncClient,
        pacer: Pacer,
        path: str,
        request: dict[str, Any],
        read: Callable[[Any], Answer],
    ) -> Answer:
        response = await self._post(client, path, request)
        wait = used_up(response.headers)
        if wait is not None:
            pacer.pause(wait)
        body = _json(response)
        if response.status_code >= 400:
            if response.status_code == 400 and "logprobs" in request and "logprobs" in str(body):
                raise LogprobsRefusedError
            raise self._refusal(response, body)
        try:
            answer = read(body)
        except ValueError as error:
            raise BackendUnavailable(
                f"the endpoint answered {response.status_code} with something that is {error}: "
                "check that judge.endpoint.url is an OpenAI-compatible API and ends in /v1"
            ) from error
        self._recognise(body)
        return answer

    def _recognise(self, body: dict[str, Any]) -> None:
        """Whether the endpoint still answers as the model that it first named: else its labels would get the
        identity of another. Builds (`system_fingerprint`) differ between machines of one host: a new one is logged.

        Raises:
            BackendUnavailable: another model answered.
        """
        model, build = str(body.get("model") or ""), str(body.get("system_fingerprint") or "")
        if model and self._model is None:
            self._model = model
        if model and model != self._model:
            raise BackendUnavailable(
                f"the endpoint now answers as {model[:_SHOWN_CHARS]!r}, before as {self._model!r}: serve the former "
                "model again, or set judge.endpoint.revision and restart the judge"
            )
        if build and build not in self._builds:
            if self._builds:
                log.warning("the endpoint answers with another system_fingerprint: %s", build[:_SHOWN_CHARS])
            self._builds.add(build)

    async def _post(self, client: httpx.AsyncClient, path: str, request: dict[str, Any]) -> httpx.Response:
        try:
            async with client.stream("POST", self._url + path, json=request) as response:
                return await _read(response)
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


async def _read(response: httpx.Response) -> httpx.Response:
    """The whole response, its body unpacked. Raises BackendUnavailable: there is more than MAX_BODY_BYTES."""
    body = bytearray()
    async for part in response.aiter_bytes(_PART_BYTES):
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise BackendUnavailable(
                f"the endpoint answered with more than {MAX_BODY_BYTES} bytes: check that judge.endpoint.url is an "
                "OpenAI-compatible API and ends in /v1"
            )
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
    return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
