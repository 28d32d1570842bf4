"""The console listens here alone, changes nothing for another site's page, and has a limit for everything."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from pydantic import ValidationError
from starlette.routing import Mount, Route

from qrelay.config import GrpcSettings
from qrelay.errors import PortInUse
from qrelay.web.app import ROUTES
from qrelay.web.errors import STATUS
from qrelay.web.mcp import Endpoint
from qrelay.web.routes import Guarded
from qrelay.web.serving import address_of, listen
from qrelay.web.settings import ConsoleSettings
from tests.labels.builders import judged_set
from tests.web.serving import Served, console

HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    hostile = judged_set("q3", collection="docs")
    limits = GrpcSettings(max_message_bytes=4096, default_deadline_s=20)
    with console(tmp_path_factory.mktemp("console"), [hostile], grpc=limits, max_form_bytes=2048) as served:
        yield served


@pytest.mark.parametrize(("insecure", "why"), [(False, "reached from other machines"), (True, "or set access")])
@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org", ""])
def test_an_address_that_other_machines_reach_is_refused(host: str, insecure: bool, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ConsoleSettings(bind=f"{host}:7405", insecure=insecure)


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "localhost:80", "[::1]:7405", "127.0.0.2:1"])
def test_every_address_of_this_machine_alone_is_taken(bind: str) -> None:
    assert ConsoleSettings(bind=bind).bind == bind


def test_a_taken_port_says_what_to_do() -> None:
    with listen("127.0.0.1:0") as first, pytest.raises(PortInUse, match="take port 0"):
        listen(address_of(first))


def test_every_route_is_behind_the_one_hook() -> None:
    for each in ROUTES:
        if isinstance(each, Mount):
            assert each.path in ("/static",)
        else:
            assert isinstance(each, Route)
            guarded = getattr(each.endpoint, "__self__", each.endpoint)
            assert isinstance(guarded, Guarded | Endpoint), each.path


def test_every_grpc_status_has_an_http_status() -> None:
    assert set(STATUS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


def test_the_first_page_shows_what_the_ledger_holds(site: Served) -> None:
    page = site.http.get("/", headers=HTML)
    assert page.status_code == 200
    assert "docs" in page.text


def test_every_answer_tells_the_browser_what_it_may_do(site: Served) -> None:
    for path in ("/", "/nowhere", "/static/console.css", "/health"):
        headers = site.http.get(path, headers=HTML).headers
        assert "unsafe" not in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_an_error_is_a_page_for_a_browser_and_json_for_a_program(site: Served) -> None:
    page, answer = site.http.get("/nowhere", headers=HTML), site.http.get("/nowhere")
    assert (page.status_code, answer.status_code) == (404, 404)
    assert "<h1>404" in page.text
    assert answer.json()["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7405", "127.0.0.1.evil.example", "[", ""])
def test_a_name_that_was_made_to_point_here_is_refused(site: Served, host: str) -> None:
    assert site.http.get("/", headers={"host": host}).status_code == 403


def test_a_form_without_its_token_changes_nothing(site: Served) -> None:
    site.token()
    for token in ("", "guessed"):
        answer = site.http.post("/who", data={"name": "ana", "csrf": token}, headers={"origin": site.url})
        assert answer.status_code == 403
        assert "qrelay_person" not in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_a_page_of_another_site_changes_nothing_even_with_the_token(site: Served, headers: dict[str, str]) -> None:
    data = {"name": "ana", "csrf": site.token()}
    assert site.http.post("/who", data=data, headers=headers).status_code == 403


@pytest.mark.parametrize(("mode", "status"), [("navigate", 200), ("no-cors", 403), ("cors", 403)])
def test_a_page_of_another_site_may_link_here_and_let_nothing_be_read(site: Served, mode: str, status: int) -> None:
    headers = {**HTML, "sec-fetch-site": "cross-site", "sec-fetch-mode": mode}
    assert site.http.get("/", headers=headers).status_code == status


def test_a_name_is_kept_and_shown_escaped(site: Served) -> None:
    with httpx.Client(base_url=site.url) as http:
        alone = Served(site.url, http, site.ledger, site.site, site.folder)
        answer = alone.post("/who", name="<b>Ana</b>  Žižek\n", back="/nowhere")
        assert (answer.status_code, answer.headers["location"]) == (303, "/nowhere")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "&lt;b&gt;Ana&lt;/b&gt; Žižek" in http.get("/", headers=HTML).text


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_a_form_sends_nobody_to_another_site(site: Served, back: str) -> None:
    assert site.post("/who", name="ana", back=back).headers["location"] == "/"


def test_a_body_above_its_limit_is_refused_before_it_is_read(site: Served) -> None:
    answer = site.http.post("/who", content=b"x" * 5000, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert site.post("/who", name="n" * 3000).status_code == 413


def test_a_body_in_chunks_is_counted_while_it_is_read(site: Served) -> None:
    chunks = (b"x" * 1000 for _ in range(100))
    answer = site.http.post("/who", content=chunks, headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_what_was_refused_leaves_its_room_to_others(site: Served) -> None:
    """More refused bytes than there is room for, all together."""
    room = site.site.settings.grpc.max_bytes_in_flight // 2
    for _ in range(room // 10**9 + 20):
        with socket.create_connection(("127.0.0.1", int(site.url.rpartition(":")[2]))) as raw:
            raw.sendall(b"POST /who HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 413")
    assert site.http.get("/health").status_code == 200


def test_a_request_that_is_no_http_is_refused(site: Served) -> None:
    with socket.create_connection(("127.0.0.1", int(site.url.rpartition(":")[2]))) as raw:
        raw.sendall(b"\x00\x01\x02 nonsense\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    assert site.http.get("/health").json() == {"status": "SERVING"}


def test_without_a_ledger_a_page_says_what_lacks(tmp_path: Path) -> None:
    with console(tmp_path) as served:
        served.ledger.close()
        for file in (tmp_path / "data").glob("ledger.sqlite*"):
            file.unlink()
        page = served.http.get("/", headers=HTML)
    assert page.status_code == 400
    assert "ledger" in page.text
