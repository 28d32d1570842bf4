"""People by tokens of an OpenID Connect issuer: signed by one of its keys, for us, and not expired.

Only RS256 and ES256 are accepted, so `none` is not, nor a signature made with a public key as its secret. The keys
are those of the configured URL and of no other that a token names. They are kept for _FRESH_S; a key that is not
among them has them fetched again, at most every _PAUSE_S, so that tokens with invented keys cost the issuer nothing.
Where the issuer does not answer, the keys that are known hold.
"""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from qrelay.config import OidcSettings, Role
from qrelay.errors import BackendUnavailable, Unauthenticated
from qrelay.parsing import json_document
from qrelay.security.identity import MAX_NAME, Kind, Principal, one_line

_ALGORITHMS: Final = ("RS256", "ES256")
_LEEWAY_S: Final = 30
_FRESH_S: Final = 300.0
_PAUSE_S: Final = 30.0
_ANSWER_S: Final = 10.0
_MOST_BYTES: Final = 256 * 1024
_MOST_KEYS: Final = 100


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Keys:
    """The issuer's signing keys, by id. Threads share it: one fetches, and only those whose key is unknown wait."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock = url, clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._tried: float | None = None
        self._failed = ""
        self._turn = threading.Lock()

    def get(self, key_id: str) -> jwt.PyJWK:
        """The key. Raises Unauthenticated: the issuer has none of this id. BackendUnavailable: no key of the issuer's
        could be had when it was last asked."""
        if self._due(key_id) and self._turn.acquire(blocking=key_id not in self._keys):
            try:
                if self._due(key_id):
                    self._fetch()
            finally:
                self._turn.release()
        keys = self._keys
        if not keys:
            raise BackendUnavailable(f"the issuer's keys cannot be had from access.oidc.keys: {self._failed}")
        if key_id not in keys:
            raise Unauthenticated("the token is signed with none of the issuer's keys: sign in anew")
        return keys[key_id]

    def _due(self, key_id: str) -> bool:
        age = None if self._tried is None else self._clock() - self._tried
        return age is None or age > _FRESH_S or (key_id not in self._keys and age > _PAUSE_S)

    def _fetch(self) -> None:
        try:
            self._keys, self._failed = _keys(_body(self._url)), "it has none that is of use here"
        except (OSError, HTTPException, ValueError) as error:
            self._failed = str(error)
        finally:
            self._tried = self._clock()


def _body(url: str) -> bytes:
    opener = urllib.request.build_opener(_NoRedirects)
    with opener.open(url, timeout=_ANSWER_S) as answer:
        body: bytes = answer.read(_MOST_BYTES + 1)
    if len(body) > _MOST_BYTES:
        raise ValueError(f"an answer of more than {_MOST_BYTES} bytes")
    return body


def _keys(body: bytes) -> dict[str, jwt.PyJWK]:
    """key id -> key, of those for signatures that we check. Raises ValueError: it is no set of keys."""
    document = json_document(body)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is no set of keys (JWKS)")
    found = {}
    for each in listed[:_MOST_KEYS]:
        usable = isinstance(each, dict) and each.get("kty") in ("RSA", "EC") and each.get("use", "sig") == "sig"
        if usable and isinstance(each.get("kid"), str):
            with suppress(jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):  # the others are of use
                found[each["kid"]] = jwt.PyJWK(each)
    return found


class Issuer:
    """Checks the tokens of one issuer."""

    def __init__(self, settings: OidcSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._keys = settings, Keys(settings.keys, clock)

    def person(self, token: str) -> Principal:
        """Whose token it is, with the roles that it names. May ask the issuer: call it from a thread.

        Raises:
            Unauthenticated: not the issuer's, not for us, expired, or it names nobody.
            BackendUnavailable: the issuer's keys cannot be had.
        """
        settings = self._settings
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in _ALGORITHMS:
                raise Unauthenticated(f"the token is not signed by one of {', '.join(_ALGORITHMS)}")
            claims = jwt.decode(
                token, self._keys.get(str(header.get("kid", ""))), algorithms=[header["alg"]],
                audience=settings.audience, issuer=settings.issuer, leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )  # fmt: skip
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise Unauthenticated(f"the token does not hold ({type(error).__name__}): sign in anew") from None
        name = claims.get(settings.person)
        if not isinstance(name, str) or not one_line(name):
            raise Unauthenticated(f"the token's claim {settings.person} (access.oidc.person) names nobody")
        if len(name := one_line(name)) > MAX_NAME:
            raise Unauthenticated(
                f"the token's claim {settings.person} is longer than {MAX_NAME} characters: name another claim in "
                "access.oidc.person"
            )
        return Principal(name, Kind.PERSON, _roles(claims, settings), bearer=token)


def _roles(claims: Mapping[str, Any], settings: OidcSettings) -> frozenset[Role]:
    """The roles that the claim names; other values of it are no roles."""
    found: Any = claims
    for part in [settings.claim] if settings.claim in claims else settings.claim.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    values = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    names = {role.value: role for role in Role} | dict(settings.roles)
    return frozenset(names[each] for each in values if isinstance(each, str) and each in names)
