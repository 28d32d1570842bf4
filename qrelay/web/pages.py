"""Pages: rendering a template, reading a form, and how an error looks to who asked."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

from starlette.datastructures import FormData
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from qrelay.errors import InputError
from qrelay.web.errors import UNAUTHENTICATED, Problem
from qrelay.web.security import CSRF, CSRF_COOKIE, new_token
from qrelay.web.site import site_of

HERE: Final = Path(__file__).parent
API: Final = "/v1/"
"""Where errors are JSON, whoever asks."""


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader(HERE / "templates"),
    )


NAVIGATION: Final = [
    ("/queries", "Queries"),
    ("/samples", "Samples"),
    ("/people", "People"),
    ("/judge", "Judge"),
    ("/pipeline", "Pipeline"),
    ("/models", "Models"),
    ("/api", "API"),
]
"""(path, name) of the pages at the top of every page."""


def filters() -> dict[str, Any]:
    """The templates' filters, to add to."""
    found: dict[str, Any] = _environment().filters
    return found


def render(request: HTTPConnection, template: str, *, status: int = 200, **values: Any) -> Response:
    """The page of a template, all texts escaped. Every template knows `person` (a name or ""), `path`, `address` (a
    path with its query), `pages` (NAVIGATION), `access` (whether people sign in), and `csrf`, the token that a form
    repeats."""
    token = request.cookies.get(CSRF_COOKIE) or new_token()
    person = getattr(request.state, "person", None)
    url = request.url
    known = {"person": person.name if person else "", "path": url.path, "pages": NAVIGATION, CSRF: token}
    known["access"] = site_of(request).gate.on
    known["address"] = f"{url.path}?{url.query}" if url.query else url.path
    page = HTMLResponse(_environment().get_template(template).render({**known, **values}), status)
    if CSRF_COOKIE not in request.cookies:
        # Lax, so that whoever follows a link from elsewhere keeps the token that the forms of other tabs hold.
        page.set_cookie(CSRF_COOKIE, token, httponly=True, samesite="lax")
    return page


def compile_templates() -> None:
    """All of them, so that no page is the first to wait for one."""
    for name in _environment().list_templates():
        _environment().get_template(name)


def part(template: str, **values: Any) -> str:
    """A part of a page, all texts escaped: what a page that is kept up to date is sent."""
    found: str = _environment().get_template(template).render(values)
    return found


async def form(request: Request) -> FormData:
    """The fields that a page sent; their token is checked already. Raises HTTPException: too many, or unreadable."""
    return await request.form(max_files=0, max_fields=1000)


def whole_number(text: str, name: str) -> int:
    """A number that a page sent. Raises InputError: it is none."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InputError(f"{name} {text[:40]!r} is no whole number: load the page again")
    return int(text)


def refusal(request: HTTPConnection, problem: Problem) -> Response:
    """The answer to a request that failed: a page to a browser that asks for one, else JSON."""
    if not request.url.path.startswith(API) and "text/html" in request.headers.get("accept", ""):
        if problem.status == UNAUTHENTICATED:
            page = render(request, "login.html", status=problem.status, why=problem.message)
        else:
            page = render(request, "error.html", status=problem.status, problem=problem)
        page.headers.update(problem.headers)
        return page
    return JSONResponse(problem.body, problem.status, problem.headers)
