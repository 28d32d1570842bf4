"""The first page, the name that a person gives, signing in and out, and whether the server lives."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from qrelay.errors import AccessError, InputError
from qrelay.runtime import telemetry
from qrelay.security.identity import named
from qrelay.web.guard import HEALTH
from qrelay.web.pages import form, render
from qrelay.web.routes import route
from qrelay.web.security import PERSON_COOKIE, SESSION_COOKIE, Action, identified, name_cookie
from qrelay.web.site import site_of

_YEAR_S = 365 * 24 * 3600


def home(request: Request) -> Response:
    """What the ledger holds, by collection."""
    return render(request, "home.html", collections=site_of(request).ledger().stats())


async def who(request: Request) -> Response:
    """Keeps the name that the person gave, under which they decide."""
    fields = await form(request)
    name = named(str(fields.get("name", "")))
    if site_of(request).gate.on:
        raise InputError("your name is that of your token: sign in with another one")
    if not name:
        raise InputError("no name was given: what you decide is kept under your name")
    answer = _back(fields)
    answer.set_cookie(PERSON_COOKIE, name_cookie(name), max_age=_YEAR_S, httponly=True, samesite="strict")
    return answer


def login(request: Request) -> Response:
    """Asks for a token."""
    return render(request, "login.html", why="")


async def sign_in(request: Request) -> Response:
    """Keeps the token in a cookie that ends with the browser, for whom it belongs to."""
    fields = await form(request)
    token = str(fields.get("token", "")).strip()
    try:
        if not site_of(request).gate.on:
            raise InputError("nobody has to sign in here: access is not configured")
        await identified(request, token)
    except AccessError as error:
        telemetry.denied(None, "sign in", error, request.client.host if request.client else "")
        raise
    answer, secure = _back(fields), request.url.scheme == "https"
    answer.set_cookie(SESSION_COOKIE, token, httponly=True, samesite="strict", secure=secure)
    return answer


async def sign_out(_: Request) -> Response:
    """Forgets the token; `qrelay tokens revoke` ends it everywhere."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
    return answer


def _back(fields: FormData) -> Response:
    """To the page that the form was on."""
    back = str(fields.get("back", "/"))
    return RedirectResponse(back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/", 303)


async def health(_: Request) -> Response:
    """That the server answers; it needs nobody else for that."""
    return JSONResponse({"status": "SERVING"})


ROUTES = [
    route("/", home),
    route("/who", who, methods=["POST"]),
    route("/login", login, Action.OPEN),
    route("/login", sign_in, Action.OPEN, ["POST"]),
    route("/logout", sign_out, Action.OPEN, ["POST"]),
    route(HEALTH, health, Action.OPEN),
]
