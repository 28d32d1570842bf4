"""The application: its routes behind the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from qrelay.labels.browse.people import agreement
from qrelay.web import home
from qrelay.web.api.routes import ROUTES as API
from qrelay.web.console import judge, models, pipeline, queries
from qrelay.web.errors import problem
from qrelay.web.guard import Guard
from qrelay.web.mcp import Endpoint, over_http
from qrelay.web.pages import HERE, compile_templates, refusal
from qrelay.web.site import Site

ROUTES: tuple[BaseRoute, ...] = (
    *home.ROUTES,
    *API,
    Route("/mcp", Endpoint(), name="mcp"),
    *queries.ROUTES,
    *judge.ROUTES,
    *pipeline.ROUTES,
    *models.ROUTES,
    Mount("/static", StaticFiles(directory=HERE / "static"), name="static"),
)


def create_app(site: Site, routes: Sequence[BaseRoute] = ROUTES) -> Starlette:
    """The application on a site, which is closed with it."""

    @asynccontextmanager
    async def living(_: Starlette) -> AsyncIterator[None]:
        site.mcp = over_http(site)
        warming = asyncio.create_task(site.reading.run(_warm))
        try:
            async with site.mcp.run():
                yield
        finally:
            warming.cancel()
            await site.close()

    guard = Middleware(Guard, settings=site.settings)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers={HTTPException: _nowhere}, lifespan=living)
    app.state.site = site
    return app


def _warm() -> None:
    """What a first look at a page would wait for: templates, and what figures of agreement import."""
    compile_templates()
    agreement("0-1", {name: {(0, ""): 0, (1, ""): 1} for name in ("one", "other")})


async def _nowhere(request: Request, error: Exception) -> Response:
    """No such page, or not asked this way."""
    return refusal(request, problem(error))
