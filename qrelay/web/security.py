"""Who may do what, and what a browser may do in their name.

The console listens on this machine alone and asks nobody for a password: everybody who reaches it may do everything,
under the name that they gave. `authorise` is the one place that decides; every route names the action that it is.

A page of another site can make a browser send requests here. What it cannot do: name another host than ours in `Host`
(so a name that is made to point here is refused), leave `Origin` out of a request that changes something, send JSON
without asking first, or read our cookie, whose token every form has to repeat.
"""

from __future__ import annotations

import enum
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from qrelay.errors import InputError
from qrelay.web.settings import LOOPBACK

CSRF: Final = "csrf"
"""Name of the form's field, and with `qrelay_` of the cookie."""
CSRF_COOKIE: Final = f"qrelay_{CSRF}"
CSRF_HEADER: Final = "x-csrf-token"
PERSON_COOKIE: Final = "qrelay_person"
PERSON_HEADER: Final = "x-qrelay-person"
MAX_NAME: Final = 80
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_SELF: Final = "'self'"
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        f"default-src 'none'; script-src {_SELF}; style-src {_SELF}; img-src {_SELF} data:; connect-src {_SELF}; "
        f"form-action {_SELF}; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""Of every answer."""


class Action(enum.Enum):
    """What a request does, for `authorise`."""

    READ = "read"
    """See queries, passages, labels, figures, settings."""
    CALL = "call"
    """Let a service compute: retrieve, rerank, embed, judge."""
    FEED = "feed"
    """Give queries to the pipeline."""
    LABEL = "label"
    """Decide about a pair."""
    EXPORT = "export"
    """Take labels out, also as training data."""
    OPERATE = "operate"
    """Replay dead letters, promote or roll back a model."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. `name` is "" where nobody has given one."""

    name: str


def authorise(request: HTTPConnection, action: Action) -> Person:  # noqa: ARG001  every action is allowed so far
    """Who asks, if they may do this. Raises HTTPException (401, 403): they may not."""
    given = request.headers.get(PERSON_HEADER) or request.cookies.get(PERSON_COOKIE, "")
    return Person(named(unquote(given)))


def decider(request: HTTPConnection) -> str:
    """The name of who decides. Raises InputError: nobody has given one."""
    name: str = request.state.person.name
    if not name:
        raise InputError("nobody is named: give your name at the top of the page, then do it again")
    return name


def named(text: str) -> str:
    """A person's name as it is kept: one line, without spaces around it, MAX_NAME characters at most."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:MAX_NAME]


def name_cookie(name: str) -> str:
    """A person's name as a cookie holds it."""
    return quote(named(name))


def refuse_foreign(method: str, headers: Headers) -> None:
    """Raises HTTPException: the request is for another host, or another site's page makes it (a link may)."""
    host = headers.get("host", "")
    if _hostname(host) not in LOOPBACK:
        raise HTTPException(
            403, f"the console answers as {', '.join(LOOPBACK)} alone, not as {host[:80]!r}: ask it by one of these"
        )
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", "none")
    if method in _SAFE and headers.get("sec-fetch-mode") == "navigate":
        return
    if (origin is not None and origin not in (f"http://{host}", f"https://{host}")) or site not in (
        "same-origin",
        "none",
    ):
        raise HTTPException(403, "this request comes from a page of another site, which may ask nothing here")


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def new_token() -> str:
    """A token for a browser's cookie and its forms."""
    return secrets.token_urlsafe(24)


def is_json(headers: Headers) -> bool:
    """Whether the body is JSON, which no other site's page can send without asking first."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def refuse_forged(method: str, connection: HTTPConnection, body: bytes) -> None:
    """Raises HTTPException: a request with a body that is no JSON does not repeat its cookie's token, in the form's
    field or in a header."""
    headers = connection.headers
    if method in _SAFE or is_json(headers):
        return
    given = headers.get(CSRF_HEADER) or _field(headers, body)
    if not hmac.compare_digest(given.encode(), connection.cookies.get(CSRF_COOKIE, "").encode()) or not given:
        raise HTTPException(
            403, "the form's token is missing or old: load the page again (programs send application/json)"
        )


def _field(headers: Headers, body: bytes) -> str:
    if not headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return ""
    try:
        return parse_qs(body.decode("ascii"), max_num_fields=1000).get(CSRF, [""])[0]
    except ValueError:
        return ""
