"""The gate of a server: who asks, by certificate, token or neither.

    gate = Gate(settings.access)
    principal = await gate.identify(context.auth_context(), bearer)     # Unauthenticated: nobody knows who
    require_rpc(principal, "/qrelay.v1.SinkService/Export")             # PermissionDenied: they may not

Where access is not configured and the connection is plain text, everybody may do everything, as on a laptop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from qrelay.config import AccessSettings, secret
from qrelay.errors import ConfigError, PermissionDenied, Unauthenticated
from qrelay.security import statements
from qrelay.security.identity import ANYBODY, Kind, Principal, is_secure, of_certificate
from qrelay.security.rates import Rates
from qrelay.security.roles import SPEAKS_FOR_PEOPLE
from qrelay.security.tokens import PREFIX, Tokens

HEADER: Final = "authorization"
VARIABLE: Final = "QRELAY_TOKEN"
FILE_VARIABLE: Final = "QRELAY_TOKEN_FILE"
_MOST: Final = 8192
"""Characters of a token."""
_NOBODY: Final = (
    f"nobody knows who asks: send a token (commands and the client take {VARIABLE} or {FILE_VARIABLE}; other "
    f"programs send it in {HEADER}, after the word Bearer), or show a certificate"
)


class Gate:
    """See the module. One for a server; use from its event loop."""

    def __init__(self, settings: AccessSettings, service: str = "") -> None:
        """service: the gRPC name of the service that this is the gate of; "": the console's.

        Raises:
            ConfigError: the file of tokens cannot be read, or a library is not installed.
        """
        self.on, self._service = settings.on, service
        self.rates = Rates(settings.rates)
        self._grants = settings.grants
        self._tokens = Tokens(settings.tokens) if settings.tokens else None
        self._issuer = _issuer(settings) if settings.oidc.issuer else None

    async def identify(self, auth: Mapping[str, Iterable[bytes]], bearer: str) -> Principal:
        """Who asks. auth: gRPC's authentication context, empty for plain text. bearer: the token, "" where there is
        none. A token counts before a person's certificate; a service's certificate, but for the console's, makes
        tokens count for nothing.

        Raises:
            Unauthenticated: nobody knows.
            PermissionDenied: a service shows a person's token.
            BackendUnavailable: the issuer's keys cannot be had.
        """
        if not self.on and not is_secure(auth):
            return ANYBODY
        holder = of_certificate(auth, self._grants)
        if bearer:
            if holder and holder.kind is Kind.SERVICE and holder.name != SPEAKS_FOR_PEOPLE:
                raise PermissionDenied(f"the service {holder.name} shows a person's token: only the console may")
            return await self._person(bearer)
        if holder is None:
            raise Unauthenticated(_NOBODY)
        return holder

    async def _person(self, bearer: str) -> Principal:
        if len(bearer) > _MOST:
            raise Unauthenticated(f"a token of more than {_MOST} characters is nobody's")
        if bearer.startswith(statements.PREFIX):
            found = self._held().spoken_for(bearer, self._service)
        elif bearer.startswith(PREFIX) or self._issuer is None:
            found = self._held().holder(bearer)
        else:
            return await asyncio.to_thread(self._issuer.person, bearer)
        return Principal(found.name, Kind.PERSON, frozenset(found.roles), bearer=bearer)

    def _held(self) -> Tokens:
        if self._tokens is None:
            raise Unauthenticated("no tokens are taken here: access.tokens names no file")
        return self._tokens

    def for_service(self, bearer: str, service: str) -> str:
        """What shows a service, by its gRPC name, for whom the console asks: of one of our tokens a statement that is
        of use there alone; of an issuer's, and of one that was made before there were such, the token."""
        key = statements.key_of(bearer) if bearer.startswith(PREFIX) else ""
        known = key and self._tokens and self._tokens.knows(key)
        return statements.statement(bearer, service) if known else bearer


def _issuer(settings: AccessSettings) -> Any:
    try:
        from qrelay.security.oidc import Issuer
    except ModuleNotFoundError as error:
        raise ConfigError(f"access.oidc needs the package {error.name}: pip install 'pyjwt[crypto]'") from error
    return Issuer(settings.oidc)


def bearer_of(header: str) -> str:
    """The token in an `authorization` header; "" where there is none."""
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def own_token() -> str:
    """This process's token as a client: of QRELAY_TOKEN, else of the file that QRELAY_TOKEN_FILE names; "": none.

    Raises:
        ConfigError: the file cannot be read.
    """
    if os.environ.get(VARIABLE):
        return secret(VARIABLE, VARIABLE).strip()
    named = os.environ.get(FILE_VARIABLE, "")
    return secret(FILE_VARIABLE, "", FILE_VARIABLE, Path(named)) if named else ""


def header_of(token: str) -> tuple[tuple[str, str], ...]:
    """gRPC metadata that shows the token; empty where there is none."""
    return ((HEADER, f"Bearer {token}"),) if token else ()
