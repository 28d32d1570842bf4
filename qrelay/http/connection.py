"""One HTTP endpoint: a request in, a JSON body out, under a `Policy`.

What comes back wrong becomes an error, never an answer: a refusal one of `refusals`, and

    connection, no JSON, too long a body  BackendUnavailable   retried
    another model than before             BackendUnavailable   retried, where `one_model` holds
    silence, or a body without an end     BackendTimeout       retried within the total limit

The API key is in no log and no error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

import httpx

from qrelay.addresses import is_here
from qrelay.errors import BackendTimeout, BackendUnavailable, EndpointRefuses, OnHold, QrelayError, TransientError
from qrelay.http.bodies import ENCODINGS, as_json, copy_body, read_body
from qrelay.http.names import Names
from qrelay.http.pacing import Pacer, Policy
from qrelay.http.ratelimits import asked_to_wait, used_up
from qrelay.http.refusals import ParameterRefused, Unexplained, classified, failure_of

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)

_SHOWN_CHARS = 200
_CANNOT = frozenset({500, 501, 505})
"""What servers answer to what they do not know."""
_UNEXPLAINED = 8
"""So many requests in a row that were refused without a reason are the endpoint's fault, not the texts'."""


@dataclass(frozen=True, slots=True)
class Limits:
    """request_timeout_s: seconds of silence. max_reply_bytes: of one body, unpacked. retry_refused_s: seconds after
    which an endpoint that refuses the key, the account or a setting is asked again."""

    request_timeout_s: float = 30.0
    max_reply_bytes: int = 4 * 1024**2
    retry_refused_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Came:
    """What came back. body: parsed, None where it is no JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


class Connection:
    """See the module. Use from one event loop at a time."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str,
        policy: Policy,
        limits: Limits,
        names: Names,
        headers: Mapping[str, str] | None = None,
        one_model: bool = True,
        beside: frozenset[str] = frozenset(),
    ) -> None:
        """`url` is the base before each request's path; before the paths `beside` stands what is before its /v1.
        `headers`: sent with each; None: the key as a bearer's. `one_model`: whether answers name the model that made
        them, which must stay the same."""
        self._url = url.rstrip("/")
        self._beside = beside
        self._api_key = api_key
        self._policy = policy
        self._limits = limits
        self._names = names
        self._headers, self._one_model = headers, one_model
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._pacer: Pacer | None = None
        self._model: str | None = None
        self._builds: set[str] = set()
        self._answers = False
        self._unexplained = 0
        logging.getLogger("httpx").setLevel(logging.WARNING)  # else one line a request

    async def ask(
        self,
        path: str,
        request: dict[str, Any],
        read: Callable[[Any], Answer],
        *,
        advice: Callable[[str], str],
        may_refuse: frozenset[str] = frozenset(),
        method: str = "POST",
        absent: bool = False,
        into: IO[bytes] | None = None,
    ) -> Answer:
        """What `read` makes of the body that `path` answers; `read` raises ValueError at a body that is none. With
        GET the request is the address's query; one that holds a file, (name, file, type), goes as a form.

        advice: what to do where the endpoint refuses this parameter. may_refuse: parameters without which the caller
        can ask too. absent: whether 404 is an answer, None. into: a file that gets the body, of max_reply_bytes at
        most; `read` gets their number.

        Raises:
            QrelayError: see the module; retries and waits are over.
            ParameterRefused: one of `may_refuse`.
        """
        client, pacer = self._bound()
        try:
            return await pacer.run(
                lambda: self._once(client, method, path, request, read, advice, may_refuse, absent, into)
            )
        except Unexplained:
            self._unexplained += 1
            raise

    async def _once(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        request: dict[str, Any],
        read: Callable[[Any], Answer],
        advice: Callable[[str], str],
        may_refuse: frozenset[str],
        absent: bool,
        into: IO[bytes] | None,
    ) -> Answer:
        reply = await self._sent(client, method, path, request, into)
        if absent and reply.status == 404:
            return read(None)
        answer = self.understood(reply, request, read, advice, may_refuse)
        wait = used_up(reply.headers)
        if wait is not None and self._pacer:
            self._pacer.pause(*wait)
        return answer

    def understood(
        self,
        reply: Came,
        request: dict[str, Any],
        read: Callable[[Any], Answer],
        advice: Callable[[str], str],
        may_refuse: frozenset[str],
    ) -> Answer:
        """What `read` makes of what came back for a request, however it travelled. Raises as `ask`."""
        if found := failure_of(reply.status, reply.body):
            raise self._refusal(*found, reply, request, advice, may_refuse)
        try:
            answer = read(reply.body)
        except ValueError as error:
            raise BackendUnavailable(
                f"the endpoint answered {reply.status} with something that is {error}: "
                f"check that {self._names.section}.url is {self._names.api}"
            ) from error
        if self._one_model:
            self._recognise(reply.body)
        self._answers, self._unexplained = True, 0
        return answer

    def _refusal(
        self,
        status: int,
        failure: dict[str, Any],
        reply: Came,
        request: dict[str, Any],
        advice: Callable[[str], str],
        may_refuse: frozenset[str],
    ) -> Exception:
        retry_s = self._limits.retry_refused_s
        wait = asked_to_wait(reply.headers)
        error = classified(status, failure, request, wait, names=self._names, secret=self._api_key, retry_s=retry_s)
        if isinstance(error, ParameterRefused) and error.parameter not in may_refuse:
            return EndpointRefuses(
                f"the endpoint refuses the parameter {error.parameter} with {error}: {advice(error.parameter)}",
                retry_after_s=retry_s,
            )
        return error

    async def look(self, method: str, path: str, request: dict[str, Any]) -> tuple[int, Any]:
        """Status and body of one request, a refusal's too, where they say something of the endpoint. It is not paced
        and not tried again.

        Raises:
            TransientError: they say nothing: silence, 429, 503 and the like.
        """
        client, _ = self._bound()
        reply = await self._sent(client, method, path, request, None)
        found = failure_of(reply.status, reply.body)
        if found is None:
            return reply.status, reply.body
        error = self._refusal(*found, reply, request, lambda _: "", frozenset())
        if isinstance(error, TransientError) and not isinstance(error, OnHold) and found[0] not in _CANNOT:
            raise error
        return found[0], reply.body

    def settled(self, error: QrelayError) -> QrelayError:
        """The error of a request once others were asked beside it: one without a reason is its own fault only where
        the endpoint answers others."""
        if isinstance(error, Unexplained) and (not self._answers or self._unexplained >= _UNEXPLAINED):
            return error.otherwise
        return error

    @property
    def notes(self) -> dict[str, str]:
        """What people should know of the endpoint now: see `Pacer.notes`."""
        return self._pacer.notes if self._pacer else {}

    def _recognise(self, body: Any) -> None:
        """Whether the endpoint still answers as the model that it first named: else what it answers would get the
        identity of another. Builds (`system_fingerprint`) differ between machines of one host: a new one is logged.

        Raises:
            BackendUnavailable: another model answered.
        """
        body = body if isinstance(body, dict) else {}
        model, build = str(body.get("model") or ""), str(body.get("system_fingerprint") or "")
        if model and self._model is None:
            self._model = model
        if model and model != self._model:
            raise BackendUnavailable(
                f"the endpoint now answers as {model[:_SHOWN_CHARS]!r}, before as {self._model!r}: serve the former "
                f"model again, or set {self._names.section}.revision and restart the service"
            )
        if build and build not in self._builds:
            if self._builds:
                log.warning("the endpoint answers with another system_fingerprint: %s", build[:_SHOWN_CHARS])
            self._builds.add(build)

    async def _sent(
        self, client: httpx.AsyncClient, method: str, path: str, request: dict[str, Any], into: IO[bytes] | None
    ) -> Came:
        try:
            async with client.stream(method, self._address(path), **_sendable(method, request)) as response:
                body = await self._body(response, into)
        except httpx.TimeoutException as error:
            raise BackendTimeout(
                f"the endpoint did not answer in {self._limits.request_timeout_s} s "
                f"({self._names.section}.request_timeout_s)"
            ) from error
        except httpx.TransportError as error:
            raise BackendUnavailable(
                f"the endpoint does not answer ({type(error).__name__}): check {self._names.section}.url"
            ) from error
        if into is not None and response.status_code < 300:
            return Came(response.status_code, into.tell(), response.headers)
        return Came(response.status_code, as_json(body, response.charset_encoding), response.headers)

    def _address(self, path: str) -> str:
        return (self._url.removesuffix("/v1") if path in self._beside else self._url) + path

    async def _body(self, response: httpx.Response, into: IO[bytes] | None) -> bytes:
        """The body; of a refusal whose body cannot be read the status says enough."""
        limit, setting = self._limits.max_reply_bytes, f"{self._names.section}.max_reply_bytes"
        if response.status_code < 300 and into is not None:
            return await copy_body(response, into, limit, setting)
        if response.status_code < 300:
            return await read_body(response, limit, setting)
        with suppress(BackendUnavailable):
            return await read_body(response, limit, setting)
        return b""

    def _bound(self) -> tuple[httpx.AsyncClient, Pacer]:
        loop = asyncio.get_running_loop()
        if self._client is None or self._pacer is None or self._loop is not loop:
            headers = {"Accept-Encoding": ENCODINGS}
            if self._headers is not None:
                headers |= self._headers
            elif self._api_key:
                headers["Authorization"] = f"Bearer {self._api_key}"
            limits = httpx.Limits(max_connections=self._policy.concurrency)
            timeout = httpx.Timeout(self._limits.request_timeout_s)
            self._client = httpx.AsyncClient(
                timeout=timeout,
                headers=headers,
                limits=limits,
                trust_env=not is_here(self._url),  # a proxy does not reach this machine
            )
            self._pacer = Pacer(self._policy, self._names.section)
            self._loop = loop
        return self._client, self._pacer

    async def aclose(self) -> None:
        """Close the connections; the next request opens others, on its own loop."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def close(self) -> None:
        """Close the connections, on the loop that opened them if it still runs."""
        client, self._client = self._client, None
        if client is not None and self._loop is not None and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(client.aclose(), self._loop)


def _sendable(method: str, request: dict[str, Any]) -> dict[str, Any]:
    """A request as the HTTP library takes it."""
    if method == "GET":
        return {"params": request}
    files = {name: value for name, value in request.items() if isinstance(value, tuple)}
    if files:
        return {"data": {name: value for name, value in request.items() if name not in files}, "files": files}
    return {"json": request}
