"""How the console speaks for a person to a service without their token: by a statement that this service alone takes,
for _LIFE_S.

    said = statement(token, "qrelay.v1.SinkService")      # in the console, which was shown the token
    check(said, entry.key, "qrelay.v1.SinkService")       # in the service, with the key in its file of tokens

A token makes an Ed25519 key, whose public half stands in the file of tokens. So whoever reads the file can check
statements and make none, and whoever sees one (in a service that was taken over) has nothing that the console or
another service would take. It is a JWT signed with EdDSA.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from qrelay.errors import Unauthenticated

PREFIX: Final = "qrelay-for_"
"""What a statement begins with."""
_ALGORITHM: Final = "EdDSA"
_PURPOSE: Final = b"qrelay: statements of the console"
_LIFE_S: Final = 120
_LEEWAY_S: Final = 30
"""By which the clocks of two machines may differ."""


def _private(token: str) -> Ed25519PrivateKey:
    seed = hmac.digest(token.encode("utf8", "replace"), _PURPOSE, hashlib.sha256)
    return Ed25519PrivateKey.from_private_bytes(seed)


def key_of(token: str) -> str:
    """The public key, in hex, that checks the statements of this token."""
    return _private(token).public_key().public_bytes_raw().hex()


def statement(token: str, service: str) -> str:
    """That the console was shown this token, for the service of this gRPC name."""
    key = _private(token)
    said = {"aud": service, "exp": int(time.time()) + _LIFE_S}
    return PREFIX + jwt.encode(said, key, _ALGORITHM, {"kid": key.public_key().public_bytes_raw().hex()})


def named_key(said: str) -> str:
    """The key that a statement names, not checked; "": it is none."""
    try:
        return str(jwt.get_unverified_header(said.removeprefix(PREFIX)).get("kid", ""))
    except (jwt.PyJWTError, ValueError, RecursionError):
        return ""


def check(said: str, key: str, service: str) -> None:
    """Raises Unauthenticated: it is not signed by this key's token, not for this service, or too old."""
    try:
        jwt.decode(
            said.removeprefix(PREFIX), Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)),
            algorithms=[_ALGORITHM], audience=service, leeway=_LEEWAY_S, options={"require": ["exp", "aud"]},
        )  # fmt: skip
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise Unauthenticated(
            f"what the console says of who asks does not hold here ({type(error).__name__}): are the clocks of both "
            "machines right?"
        ) from None
