"""Who asks: a service or a person, by certificate or token, or somebody on this machine.

A certificate names its owner in a URI (SPIFFE): `spiffe://qrelay/service/judge`, `spiffe://qrelay/person/ana`. One
without any URI is a person's, of the common name; a common name never makes a service, nor does a host or an e-mail
address that reads like such a URI.

`acting` holds who asks while a call, a request or a command is worked on; the audit log takes it from there.
"""

from __future__ import annotations

import enum
import getpass
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from qrelay.config import Role
from qrelay.errors import Unauthenticated

TRUST: Final = "spiffe://qrelay/"
"""What the URIs begin with by which certificates name their owners."""
_URI: Final = "peer_uri"
"""gRPC's name for those alternative names that are URIs."""
_SAN: Final = "x509_subject_alternative_name"
_NAME: Final = "x509_common_name"
_SECURITY: Final = "transport_security_type"


MAX_NAME: Final = 80


class Kind(enum.StrEnum):
    """What a principal is."""

    SERVICE = "service"
    PERSON = "person"
    LOCAL = "local"
    """Somebody on this machine, who was not asked who they are: the name is what they said, or this user's."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. roles: a person's. bearer: the token that showed it, to pass on in their name; never shown."""

    name: str
    kind: Kind
    roles: frozenset[Role] = frozenset()
    bearer: str = field(default="", repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


ANYBODY: Final = Principal("", Kind.LOCAL)
"""Who asks where nobody is asked who they are."""
acting: Final[ContextVar[Principal | None]] = ContextVar("qrelay_acting", default=None)


def named(text: str) -> str:
    """A person's name as it is kept: one line, without spaces around it, MAX_NAME characters at most."""
    return one_line(text)[:MAX_NAME]


def one_line(text: str) -> str:
    """The text without what cannot be printed, with one space between words."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


@contextmanager
def acts(principal: Principal) -> Iterator[None]:
    """What is done within is the principal's doing."""
    before = acting.set(principal)
    try:
        yield
    finally:
        acting.reset(before)


def who() -> Principal:
    """Who acts: who the call or request is of; in a command, the user of this process."""
    found = acting.get()
    if found is not None:
        return found
    try:
        return Principal(getpass.getuser(), Kind.LOCAL)
    except (KeyError, OSError):  # a process without a user's name
        return ANYBODY


def of_certificate(auth: Mapping[str, Iterable[bytes]], grants: Mapping[str, Iterable[Role]]) -> Principal | None:
    """Whose certificate the other side showed, by gRPC's authentication context; None: it showed none.

    Raises:
        Unauthenticated: the certificate names several owners, or nobody.
    """
    if not is_secure(auth):
        return None
    uris = [each.decode("utf8", "replace") for each in auth.get(_URI, ())]
    owners = {each.removeprefix(TRUST) for each in uris if each.startswith(TRUST)}
    names = [each.decode("utf8", "replace") for each in auth.get(_NAME, ())]
    if not uris and not names and not any(auth.get(_SAN, ())):
        return None
    if len(owners) > 1 or not (owners or (names and not uris)):
        raise Unauthenticated(f"the certificate names {len(owners)} owners in {TRUST}…: it has to name one")
    kind, _, name = owners.pop().partition("/") if owners else (Kind.PERSON.value, "", names[0])
    if kind == Kind.SERVICE and name:
        return Principal(name, Kind.SERVICE)
    if kind == Kind.PERSON and name:
        return Principal(name, Kind.PERSON, frozenset(grants.get(name, ())))
    raise Unauthenticated(f"the certificate is of {TRUST}{kind}/{name}: it has to be a service's or a person's")


def is_secure(auth: Mapping[str, Iterable[bytes]]) -> bool:
    """Whether the connection is encrypted."""
    return next(iter(auth.get(_SECURITY, ())), b"") in (b"ssl", b"tls")
