"""Who may do what, and what a browser may do in their name.

Without `access` the console listens on this machine alone and asks nobody who they are: everybody who reaches it may
do everything, under the name that they gave. With it, it may listen elsewhere too, and a person shows a token:
programs in `authorization`, a browser in a cookie that no script reads and no other site's page sends. `authorise` is
the one place that decides; every route names the action that it is, and `qrelay/security/roles.py` the role that the
action takes.

A page of another site can make a browser send requests here. What it cannot do: name another host than ours in `Host`
(so a name that is made to point here is refused), leave `Origin` out of a request that changes something, send JSON
without asking first, or read our cookie, whose token every form has to repeat.
"""

from __future__ import annotations

import enum
import hmac
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from qrelay.errors import AccessError, BackendUnavailable, InputError
from qrelay.runtime import telemetry
from qrelay.runtime.callers import admitted
from qrelay.security.access import HEADER, bearer_of
from qrelay.security.identity import Kind, Principal, acting, named
from qrelay.security.roles import ACTIONS, require
from qrelay.web.settings import LOOPBACK
from qrelay.web.site import site_of

CSRF: Final = "csrf"
"""Name of the form's field, and with `qrelay_` of the cookie."""
CSRF_COOKIE: Final = f"qrelay_{CSRF}"
CSRF_HEADER: Final = "x-csrf-token"
PERSON_COOKIE: Final = "qrelay_person"
SESSION_COOKIE: Final = "qrelay_session"
"""Holds the token of who signed in."""
PERSON_HEADER: Final = "x-qrelay-person"
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

    OPEN = "open"
    """Ask whether it lives, sign in."""
    READ = "read"
    """See queries, passages, labels, figures, settings."""
    CALL = "call"
    """Let a service compute: retrieve, rerank, embed."""
    JUDGE = "judge"
    """Let the judge grade passages, which may cost money."""
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
    """Who asks. `name` is "" where nobody has given one. verified: a token shows it."""

    name: str
    verified: bool = False


async def authorise(request: HTTPConnection, action: Action) -> Person:
    """Who asks, if they may do this; what follows in this task is their act. Raises AccessError: they may not."""
    if site_of(request).gate.on:
        return await _verified(request, action)
    given = request.headers.get(PERSON_HEADER) or request.cookies.get(PERSON_COOKIE, "")
    person = Person(named(unquote(given)))
    acting.set(Principal(person.name, Kind.LOCAL))
    return person


async def count_request(request: HTTPConnection) -> None:
    """Counts the request as one of who shows a token that holds, else of its address. Raises RateExceeded."""
    site, peer = site_of(request), request.client.host if request.client else ""
    if site.gate.rates.on:
        with suppress(AccessError, BackendUnavailable):  # `authorise` says so, where the route asks for somebody
            await admitted(site.gate, {}, _token(request), peer)


def _token(request: HTTPConnection) -> str:
    return bearer_of(request.headers.get(HEADER, "")) or request.cookies.get(SESSION_COOKIE, "")


async def _verified(request: HTTPConnection, action: Action) -> Person:
    caller: Principal | None = None
    if action is Action.OPEN:
        return Person("")
    try:
        caller = await identified(request, _token(request))
        require(caller, ACTIONS[action.value], action.value)
    except AccessError as error:
        telemetry.denied(caller, action.value, error, request.client.host if request.client else "")
        raise
    acting.set(caller)
    return Person(caller.name, verified=True)


async def identified(request: HTTPConnection, token: str) -> Principal:
    """Whose token it is. Raises Unauthenticated: nobody's."""
    return await site_of(request).gate.identify({}, token)


def decider(request: HTTPConnection) -> str:
    """The name of who decides. Raises InputError: nobody has given one."""
    name: str = request.state.person.name
    if not name:
        raise InputError("nobody is named: give your name at the top of the page, then do it again")
    return name


def name_cookie(name: str) -> str:
    """A person's name as a cookie holds it."""
    return quote(named(name))


def refuse_foreign(method: str, headers: Headers, hosts: Sequence[str] = ()) -> None:
    """Raises HTTPException: the request is for another host than this machine and `hosts`, or another site's page
    makes it (a link may)."""
    host, ours = headers.get("host", ""), (*LOOPBACK, *hosts)
    if _hostname(host) not in ours:
        raise HTTPException(
            403,
            f"the console answers as {', '.join(ours)} alone, not as {host[:80]!r}: ask it by one of these, or name "
            "it in console.hosts",
        )
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", "none")
    if method in _SAFE and headers.get("sec-fetch-mode") == "navigate":
        return
    if origin not in (None, f"http://{host}", f"https://{host}") or site not in ("same-origin", "none"):
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
