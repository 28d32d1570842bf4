"""The console counts each request of a person, by their token, before it reads the body."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from qrelay.config import AccessSettings, Role
from qrelay.security import rates
from qrelay.security.tokens import add
from tests.web.serving import Served, console

STATS = "/v1/stats"


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes."""
    monkeypatch.setattr(rates, "now", lambda: 1_000_000.0)


def shown(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    return {name: add(tmp_path / "tokens.yaml", name, [Role.READER], 1)[0] for name in ("ana", "ben")}


@pytest.fixture
def site(tmp_path: Path, tokens: dict[str, str]) -> Iterator[Served]:
    access = AccessSettings(tokens=tmp_path / "tokens.yaml", rates={"*": "5/hour"})
    with console(tmp_path, access=access) as served:
        yield served


def test_the_sixth_request_of_a_person_is_refused_until_told_and_another_persons_is_not(
    site: Served, tokens: dict[str, str]
) -> None:
    answers = [site.http.get("/", headers=shown(tokens["ana"])) for _ in range(6)]
    assert [each.status_code for each in answers] == [200] * 5 + [429]
    refused = answers[-1]
    assert refused.headers["retry-after"] == "720"
    error = refused.json()["error"]
    assert (error["code"], error["reason"]) == ("RESOURCE_EXHAUSTED", "rate_exceeded")
    assert error["retryable"] and "person/ana may make 5 calls in 3600 s" in error["message"]
    assert site.http.get("/", headers=shown(tokens["ben"])).status_code == 200
    page = site.http.get("/", headers={"accept": "text/html", **shown(tokens["ana"])})
    assert page.status_code == 429 and "ask again in 720 s" in page.text


def test_a_persons_requests_count_together_wherever_they_go_but_for_health(
    site: Served, tokens: dict[str, str]
) -> None:
    ana = shown(tokens["ana"])
    for path in ("/", "/queries", "/static/console.css", "/v1/stats", "/nowhere"):
        assert site.http.get(path, headers=ana).status_code != 429
    assert site.http.get("/", headers=ana).status_code == 429
    assert [site.http.get("/health", headers=ana).status_code for _ in range(3)] == [200] * 3


def test_who_shows_no_token_that_holds_is_limited_by_address(site: Served, tokens: dict[str, str]) -> None:
    found = [site.http.get("/", headers=shown(f"qrelay_{n}")).status_code for n in range(4)]
    assert found == [401] * 4
    assert site.http.get("/login").status_code == 200
    assert site.http.get("/login").status_code == 429
    assert site.http.get("/", headers=shown(tokens["ben"])).status_code == 200


def test_a_body_is_not_read_of_who_asks_too_often(site: Served, tokens: dict[str, str]) -> None:
    for _ in range(5):
        site.http.get("/", headers=shown(tokens["ana"]))
    host, _, port = site.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))) as asking:
        asking.sendall(
            f"POST {STATS} HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {tokens['ana']}\r\n"
            "content-type: application/json\r\ncontent-length: 1000\r\n\r\n".encode()
        )
        assert asking.recv(100).startswith(b"HTTP/1.1 429"), "though no byte of the body has come"


def test_where_nobody_is_asked_who_they_are_an_address_has_the_rate(tmp_path: Path) -> None:
    with console(tmp_path, access=AccessSettings(rates={"*": "2/hour"})) as site:
        assert [site.http.get("/").status_code for _ in range(3)] == [200, 200, 429]
