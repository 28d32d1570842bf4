"""What shows who somebody is: files of tokens, an issuer's keys, its tokens."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from qrelay.config import OidcSettings, Role
from qrelay.errors import InputError
from qrelay.security import statements
from qrelay.security.access import bearer_of
from qrelay.security.identity import Kind, Principal
from qrelay.security.oidc import Issuer, _keys
from qrelay.security.roles import require_rpc
from qrelay.security.tokens import Tokens, add
from tests.fuzz.parser import Parser, file, written

_ISSUER: Final = OidcSettings(issuer="https://issuer.example", audience="qrelay", keys="https://issuer.example/keys")
_TOKEN: Final = "qrelay_x"
_NEVER: Final = datetime(2000, 1, 1, tzinfo=UTC)


@cache
def _pair() -> tuple[ec.EllipticCurvePrivateKey, list[dict[str, object]]]:
    key, other = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    algorithms = jwt.algorithms
    first = json.loads(algorithms.ECAlgorithm.to_jwk(key.public_key()))
    second = json.loads(algorithms.RSAAlgorithm.to_jwk(other.public_key()))
    return key, [{**first, "kid": "a", "use": "sig"}, {**second, "kid": "b"}]


def _key_sets(_: Path) -> list[bytes]:
    return [json.dumps({"keys": _pair()[1]}).encode()]


def _signed(_: Path) -> list[bytes]:
    claims = {"iss": _ISSUER.issuer, "aud": _ISSUER.audience, "exp": 4_000_000_000, "sub": "ana", "roles": ["reader"]}
    return [b"Bearer " + jwt.encode(claims, _pair()[0], "ES256", headers={"kid": "a"}).encode()]


def _shown(data: bytes, _: Path) -> None:
    """A header, to what its person may call. The issuer's keys are at hand."""
    issuer = Issuer(_ISSUER, clock=lambda: 0.0)
    issuer._keys._keys, issuer._keys._tried = _keys(_key_sets(Path())[0]), 0.0
    person = issuer.person(bearer_of(data.decode("utf8", "surrogateescape")))
    require_rpc(Principal(person.name, Kind.PERSON, person.roles), "/qrelay.v1.SinkService/GetStats")


def _key_set(data: bytes, _: Path) -> None:
    """As it is fetched: what is no set of keys is a ValueError, which leaves the former keys in force."""
    try:
        _keys(data)
    except ValueError as error:
        raise InputError(str(error) or "no set of keys") from error


def _tokens(path: Path) -> None:
    Tokens(path, now=lambda: _NEVER).holder("qrelay_x")


def _stated(_: Path) -> list[bytes]:
    return [statements.statement(_TOKEN, "qrelay.v1.SinkService").encode()]


def _statement(data: bytes, _: Path) -> None:
    """What the console says for a person, as a service of the same file of tokens takes it."""
    said = data.decode("utf8", "surrogateescape")
    statements.named_key(said)
    statements.check(said, statements.key_of(_TOKEN), "qrelay.v1.SinkService")


PARSERS: Final = (
    Parser(
        "file of tokens", "yaml",
        written("t.yaml", lambda folder: add(folder / "t.yaml", "ana", [Role.READER], 1)), file("t.yaml", _tokens),
    ),
    Parser("an issuer's keys", "json", _key_sets, _key_set),
    Parser("an issuer's token", "bytes", _signed, _shown, cost=2),
    Parser("what the console says for a person", "bytes", _stated, _statement),
)  # fmt: skip
