"""Routes: each names the action that it is, is authorised by the one hook, and has a deadline."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import trace
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qrelay.errors import BackendTimeout
from qrelay.runtime import telemetry
from qrelay.web.errors import problem
from qrelay.web.pages import refusal
from qrelay.web.security import Action, authorise
from qrelay.web.site import site_of

Endpoint = Callable[[Request], Any]
"""Answers a request with a Response; a plain function runs in a thread, so it may read the ledger."""


class Guarded:
    """An endpoint behind the hook; a test walks the routes and finds no other."""

    def __init__(self, path: str, endpoint: Endpoint, action: Action) -> None:
        self.path, self.endpoint, self.action = path, endpoint, action

    async def answer(self, request: Request) -> Response:
        """The endpoint's answer, for whom it is allowed to and before its deadline; else what went wrong. Traced and
        counted."""
        began, parent = time.monotonic(), telemetry.remote_context(request.headers)
        with telemetry.tracer().start_as_current_span(self.path, context=parent, kind=trace.SpanKind.SERVER):
            answer = await self._answered(request)
        telemetry.HTTP_CALLS.labels(self.path, str(answer.status_code)).inc()
        telemetry.HTTP_SECONDS.labels(self.path).observe(time.monotonic() - began)
        return answer

    async def _answered(self, request: Request) -> Response:
        seconds = site_of(request).settings.grpc.default_deadline_s
        try:
            request.state.person = await authorise(request, self.action)
            async with asyncio.timeout(seconds):
                return await self._found(request)
        except TimeoutError:
            error: Exception = BackendTimeout(f"not answered within grpc.default_deadline_s ({seconds:g} s)")
        except Exception as raised:
            error = raised
        return refusal(request, problem(error))

    async def _found(self, request: Request) -> Response:
        if inspect.iscoroutinefunction(self.endpoint):
            found = await self.endpoint(request)
        else:
            found = await site_of(request).reading.run(self.endpoint, request)
        assert isinstance(found, Response)
        return found


def route(path: str, endpoint: Endpoint, action: Action = Action.READ, methods: Sequence[str] = ("GET",)) -> Route:
    """A route of the console."""
    return Route(path, Guarded(path, endpoint, action).answer, methods=list(methods), name=endpoint.__name__)
