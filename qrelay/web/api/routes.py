"""The operations as routes, and the document that describes them, for programs and for people."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from qrelay.errors import MalformedInput
from qrelay.web.api.document import document
from qrelay.web.api.operations import OPERATIONS, Operation
from qrelay.web.pages import render
from qrelay.web.routes import route
from qrelay.web.security import is_json
from qrelay.web.site import site_of


def _endpoint(operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        asked = await _asked(operation, request)
        site = site_of(request)
        found = await operation.call(site, request.state.person, asked)
        if isinstance(found, Response):
            return found
        return Response(operation.shown(found, site.settings.grpc.max_message_bytes), media_type="application/json")

    answer.__name__ = operation.name
    return answer


async def _asked(operation: Operation, request: Request) -> object:
    if operation.method == "GET":
        return operation.taken(dict(request.query_params))
    if not is_json(request.headers):
        raise MalformedInput("send the request as JSON, with content-type: application/json")
    return operation.read(await request.body())


def openapi(_: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(document())


def api(request: Request) -> Response:
    """The same for people."""
    return render(request, "api.html", document=document())


ROUTES: Final[tuple[Route, ...]] = (
    *(route(each.path, _endpoint(each), each.action, [each.method]) for each in OPERATIONS),
    route("/openapi.json", openapi),
    route("/api", api),
)
