"""People by an issuer's tokens, against a real issuer on loopback: signatures are made and checked for real."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import ValidationError

from qrelay.config import AccessSettings, OidcSettings, Role
from qrelay.errors import BackendUnavailable, Unauthenticated
from qrelay.security.access import Gate
from qrelay.security.identity import Kind
from qrelay.security.oidc import Issuer

ISSUER, AUDIENCE = "https://issuer.example", "qrelay"
Signer = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Local:
    """An issuer: its keys by id, which it serves as JWKS, and how often it was asked."""

    def __init__(self) -> None:
        self.keys: dict[str, Signer] = {}
        self.asked = 0
        self.body: bytes | None = None
        self.url = ""
        self.asking, self.answering = threading.Event(), threading.Event()
        self.answering.set()

    def document(self) -> bytes:
        if self.body is not None:
            return self.body
        return json.dumps(
            {"keys": [{**json.loads(_jwk(key)), "kid": kid} for kid, key in self.keys.items()]}
        ).encode()

    def token(self, kid: str, algorithm: str = "", signer: Signer | None = None, **claims: Any) -> str:
        key = signer or self.keys[kid]
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ana", "exp": time.time() + 600, "roles": ["labeller"]}
        said = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        kind = algorithm or ("RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
        return jwt.encode(said, key, algorithm=kind, headers={"kid": kid})


def _jwk(key: Signer) -> str:
    algorithm: Any = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return str(algorithm.to_jwk(key.public_key()))


def new_rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@contextmanager
def running(issuer: Local) -> Iterator[Local]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            issuer.asking.set()
            issuer.answering.wait()
            body = issuer.document()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    issuer.url = f"http://127.0.0.1:{server.server_address[1]}/keys"
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def keys() -> Mapping[str, Signer]:
    return {"r": new_rsa(), "e": ec.generate_private_key(ec.SECP256R1())}


@pytest.fixture
def issuer(keys: Mapping[str, Signer]) -> Iterator[Local]:
    local = Local()
    local.keys.update(keys)
    with running(local):
        yield local


def settings(issuer: Local, **changed: Any) -> OidcSettings:
    return OidcSettings(issuer=ISSUER, audience=AUDIENCE, keys=issuer.url, **changed)


@pytest.mark.parametrize("kid", ["r", "e"])
def test_a_token_of_the_issuer_is_its_persons(issuer: Local, kid: str) -> None:
    found = Issuer(settings(issuer)).person(token := issuer.token(kid))
    assert (found.name, found.kind, found.roles) == ("ana", Kind.PERSON, {Role.LABELLER})
    assert found.bearer == token and token not in repr(found)


def hand_made(header: dict[str, str], claims: dict[str, Any], secret: bytes) -> str:
    """A token signed with HMAC, which the library refuses to make of a public key."""
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (header, claims)]
    signature = hmac.new(secret, b".".join(parts), hashlib.sha256).digest() if secret else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ana", "exp": 4e9, "roles": ["operator"]}


def public_pem(issuer: Local) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return issuer.keys["r"].public_key().public_bytes(serialization.Encoding.PEM, form)


FORGED: dict[str, Callable[[Local], str]] = {
    "no signature": lambda _: hand_made({"alg": "none", "kid": "r"}, CLAIMS, b""),
    "none in other letters": lambda _: hand_made({"alg": "nOnE", "kid": "r"}, CLAIMS, b""),
    "the public key as a secret": lambda local: hand_made({"alg": "HS256", "kid": "r"}, CLAIMS, public_pem(local)),
    "another algorithm": lambda local: local.token("r", "RS512"),
    "another's key": lambda local: local.token("r", signer=new_rsa()),
    "a key of another kind": lambda local: local.token("e", signer=local.keys["r"]),
    "a changed payload": lambda local: ".".join(
        (local.token("r").split(".")[0], *hand_made({}, CLAIMS, b"").split(".")[1:2], local.token("r").split(".")[2])
    ),
    "another audience": lambda local: local.token("r", aud="other"),
    "no audience": lambda local: local.token("r", aud=None),
    "another issuer": lambda local: local.token("r", iss="https://evil.example"),
    "no issuer": lambda local: local.token("r", iss=None),
    "expired": lambda local: local.token("r", exp=time.time() - 60),
    "no expiry": lambda local: local.token("r", exp=None),
    "not valid yet": lambda local: local.token("r", nbf=time.time() + 600),
    "nobody": lambda local: local.token("r", sub=None),
    "an empty name": lambda local: local.token("r", sub="  "),
    "no token": lambda _: "a.b.c",
    "dots": lambda _: "..",
    "nested": lambda _: "[" * 4000,
}


@pytest.mark.parametrize("name", FORGED)
def test_a_token_that_does_not_hold_is_nobodys(issuer: Local, name: str) -> None:
    token = FORGED[name](issuer)
    with pytest.raises(Unauthenticated) as raised:
        Issuer(settings(issuer)).person(token)
    assert token not in str(raised.value)


def test_a_new_key_is_fetched_and_an_old_one_ends(issuer: Local) -> None:
    now = [0.0]
    checks = Issuer(settings(issuer), clock=lambda: now[0])
    old = issuer.token("r")
    assert checks.person(old).name == "ana"
    issuer.keys = {"new": new_rsa()}
    fresh = issuer.token("new")
    now[0] = 31.0
    assert checks.person(fresh).name == "ana"
    with pytest.raises(Unauthenticated, match="none of the issuer's keys"):
        checks.person(old)


def test_tokens_with_invented_keys_do_not_make_us_ask_again_and_again(issuer: Local) -> None:
    checks = Issuer(settings(issuer), clock=lambda: 0.0)
    for number in range(20):
        with pytest.raises(Unauthenticated):
            checks.person(issuer.token(f"invented-{number}", signer=issuer.keys["r"]))
    assert issuer.asked == 1


def test_an_issuer_that_is_away_leaves_known_keys_in_force(issuer: Local) -> None:
    now = [0.0]
    checks = Issuer(settings(issuer), clock=lambda: now[0])
    token = issuer.token("r")
    checks.person(token)
    issuer.body = b"<html>"
    now[0] = 1000.0
    assert checks.person(token).name == "ana"


def test_an_issuer_that_is_away_at_first_makes_no_tokens_invalid(issuer: Local) -> None:
    now = [0.0]
    checks = Issuer(settings(issuer), clock=lambda: now[0])
    issuer.body = b"<html>"
    for _ in range(3):
        with pytest.raises(BackendUnavailable, match=r"access\.oidc\.keys"):
            checks.person(issuer.token("r"))
    assert issuer.asked == 1
    issuer.body, now[0] = None, 31.0
    assert checks.person(issuer.token("r")).name == "ana"


def test_a_known_key_waits_for_nobody_who_fetches(issuer: Local) -> None:
    now = [0.0]
    checks = Issuer(settings(issuer), clock=lambda: now[0])
    token = issuer.token("r")
    checks.person(token)
    now[0] = 1000.0
    asked, answers = issuer.asking, issuer.answering
    asked.clear()
    answers.clear()
    with ThreadPoolExecutor() as pool:
        fetching = pool.submit(checks.person, token)
        asked.wait()
        try:
            assert checks.person(token).name == "ana"
            assert checks._keys._turn.locked()  # it still fetches
        finally:
            answers.set()
        assert fetching.result().name == "ana"


def test_a_key_that_cannot_be_read_here_leaves_the_others_in_force(
    issuer: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = jwt.PyJWK

    def odd(key: dict[str, Any]) -> jwt.PyJWK:
        if key["kid"] == "odd":
            raise UnsupportedAlgorithm("a curve that this build lacks")
        return read(key)

    monkeypatch.setattr(jwt, "PyJWK", odd)
    token = issuer.token("r")
    issuer.keys = {"odd": issuer.keys["e"], **issuer.keys}
    assert Issuer(settings(issuer)).person(token).name == "ana"


def test_an_issuers_name_is_one_line_of_bounded_length(issuer: Local) -> None:
    checks = Issuer(settings(issuer))
    assert checks.person(issuer.token("r", sub=" ana\n\x1b[31m b ")).name == "ana [31m b"
    assert checks.person(issuer.token("r", sub="x" * 80)).name == "x" * 80
    with pytest.raises(Unauthenticated, match="longer than 80 characters"):
        checks.person(issuer.token("r", sub="x" * 81))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b'{"keys": 3}', b" " * 300_000, b'{"keys": [{"kty": "RSA", "kid": "r"}, 7]}']
)
def test_an_answer_that_is_no_set_of_keys_lets_nobody_in(issuer: Local, body: bytes) -> None:
    issuer.body = body
    with pytest.raises((BackendUnavailable, Unauthenticated)):
        Issuer(settings(issuer)).person(issuer.token("r"))


@pytest.mark.parametrize(
    ("claims", "changed", "roles"),
    [
        ({"roles": "reader trainer"}, {}, {Role.READER, Role.TRAINER}),
        ({"roles": ["root", 7]}, {}, set()),
        ({"roles": None}, {}, set()),
        ({"realm": {"groups": ["ops"]}}, {"claim": "realm.groups", "roles": {"ops": "operator"}}, {Role.OPERATOR}),
        ({"https://x.example/roles": ["reader"]}, {"claim": "https://x.example/roles"}, {Role.READER}),
    ],
)
def test_roles_are_what_the_claim_says(
    issuer: Local, claims: dict[str, Any], changed: dict[str, Any], roles: set[Role]
) -> None:
    assert Issuer(settings(issuer, **changed)).person(issuer.token("r", **claims)).roles == roles


async def test_the_gate_takes_both_kinds_of_token(issuer: Local) -> None:
    gate = Gate(AccessSettings(oidc=settings(issuer)))
    assert (await gate.identify({}, issuer.token("e"))).name == "ana"
    for wrong in ("", "qrelay_x", "x" * 10_000):
        with pytest.raises(Unauthenticated):
            await gate.identify({}, wrong)


def test_grants_are_of_certificates_and_never_of_an_issuers_names(issuer: Local) -> None:
    assert Issuer(settings(issuer)).person(issuer.token("r", sub="operator", roles=[])).roles == frozenset()


@pytest.mark.parametrize(
    "given",
    [
        {"issuer": "x"},
        *(
            {"issuer": "x", "audience": "y", "keys": keys}
            for keys in ("http://issuer.example/keys", "https://me:secret@issuer.example/keys", "file:///etc/passwd")
        ),
    ],
)
def test_half_an_issuer_and_keys_in_plain_text_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        OidcSettings(**given)  # type: ignore[arg-type]
