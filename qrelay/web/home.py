"""The first page, the name that a person gives, and whether the server lives."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from qrelay.errors import InputError
from qrelay.web.guard import HEALTH
from qrelay.web.pages import form, render
from qrelay.web.routes import route
from qrelay.web.security import PERSON_COOKIE, name_cookie, named
from qrelay.web.site import site_of

_YEAR_S = 365 * 24 * 3600


def home(request: Request) -> Response:
    """What the ledger holds, by collection."""
    return render(request, "home.html", collections=site_of(request).ledger().stats())


async def who(request: Request) -> Response:
    """Keeps the name that the person gave, under which they decide."""
    fields = await form(request)
    name = named(str(fields.get("name", "")))
    if not name:
        raise InputError("no name was given: what you decide is kept under your name")
    back = str(fields.get("back", "/"))
    answer = RedirectResponse(back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/", 303)
    answer.set_cookie(PERSON_COOKIE, name_cookie(name), max_age=_YEAR_S, httponly=True, samesite="strict")
    return answer


async def health(_: Request) -> Response:
    """That the server answers; it needs nobody else for that."""
    return JSONResponse({"status": "SERVING"})


ROUTES = [route("/", home), route("/who", who, methods=["POST"]), route(HEALTH, health)]
