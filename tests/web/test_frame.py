"""The console listens here alone, changes nothing for another site's page, and has a limit for everything."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from qrelay.config import GrpcSettings, WorkerSettings
from qrelay.errors import PortInUse
from qrelay.web.app import ROUTES
from qrelay.web.errors import STATUS
from qrelay.web.mcp import Endpoint
from qrelay.web.routes import Guarded, route
from qrelay.web.security import refuse_foreign
from qrelay.web.serving import address_of, listen
from qrelay.web.settings import ConsoleSettings
from qrelay.web.site import READERS
from tests.conftest import LONG_S
from tests.labels.builders import judged_set
from tests.web.serving import Served, console

HTML = {"accept": "text/html"}
JSON = {"content-type": "application/json"}
ROOM = 16 * 1024


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    hostile = judged_set("q3", collection="docs")
    limits = GrpcSettings(max_message_bytes=4096, max_bytes_in_flight=2 * ROOM, default_deadline_s=20)
    with console(tmp_path_factory.mktemp("console"), [hostile], grpc=limits, max_form_bytes=2048) as served:
        yield served


@pytest.mark.parametrize(("insecure", "why"), [(False, "127|in plain text"), (True, "or set access")])
@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org", "", "127.0.0.2"])
def test_an_address_that_other_machines_reach_or_that_no_request_may_name_is_refused(
    host: str, insecure: bool, why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        ConsoleSettings(bind=f"{host}:7405", insecure=insecure)


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "localhost:80", "[::1]:7405"])
def test_every_name_of_this_machine_alone_is_taken_and_answers(bind: str) -> None:
    assert ConsoleSettings(bind=bind).bind == bind
    refuse_foreign("POST", Headers({"host": bind}))


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
    """More of them than there is room for together: in chunks, a body takes room before it is found too large."""
    for _ in range(ROOM // 4096 + 2):
        chunks = (b"x" * 1000 for _ in range(5))
        assert site.http.post("/who", content=chunks, headers=JSON).status_code == 413
    assert site.post("/who", name="ana").status_code == 303


def test_bodies_that_wait_for_room_keep_no_page_waiting(tmp_path: Path) -> None:
    """More bodies than there is room for are begun, and never end."""
    patient = {"receive_timeout_s": LONG_S, "default_deadline_s": LONG_S}
    limits = GrpcSettings(max_message_bytes=ROOM, max_bytes_in_flight=2 * ROOM, max_calls=4, **patient)
    drain = WorkerSettings(drain_s=1)
    with console(tmp_path, grpc=limits, worker=drain) as site, contextlib.ExitStack() as stack:

        def begin() -> None:
            begun = stack.enter_context(socket.create_connection(("127.0.0.1", int(site.url.rpartition(":")[2]))))
            begun.sendall(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            begun.sendall(f"Content-Length: {ROOM}\r\n\r\nx".encode())

        for _ in range(3):
            begin()
        assert site.http.get("/", headers=HTML).status_code == 200
        refused = 0
        while refused < 20:  # in a row: what was just answered counts for a moment, and may be why
            refused = refused + 1 if site.http.get("/", headers=HTML).status_code == 429 else 0
            if not refused:
                begin()
        assert site.http.get("/health").status_code == 200


def test_slow_pages_keep_no_grade_and_no_health_check_waiting(tmp_path: Path) -> None:
    """More of them than there are threads that read, whoever still waits for them."""
    done, begun = threading.Event(), threading.Semaphore(0)

    def slow(_: Request) -> Response:
        begun.release()
        done.wait()
        return Response()

    asks = 20
    with console(tmp_path, routes=[*ROUTES, route("/slow", slow)]) as site, ThreadPoolExecutor(asks) as pool:
        asked = [pool.submit(httpx.get, f"{site.url}/slow", timeout=LONG_S) for _ in range(asks)]
        try:
            for _ in range(READERS):
                begun.acquire()
            said = {"collection": "docs", "query_id": "q1", "passage_id": "d0#0", "grade": 2, "author": "ana"}
            assert site.http.post("/v1/labels", json=said).json()["added"]
            assert site.http.get("/health").status_code == 200
            assert not begun.acquire(blocking=False), "no more of them at once"
        finally:
            done.set()
        assert {each.result().status_code for each in asked} == {200}


def test_a_body_in_chunks_holds_no_more_room_than_it_has_bytes(tmp_path: Path) -> None:
    """While one is answered, another as large as the room minus its bytes is read."""
    limits = GrpcSettings(max_message_bytes=ROOM, max_bytes_in_flight=2 * ROOM)
    seen, done = threading.Event(), threading.Event()

    def slow(request: Request) -> Response:
        seen.set()
        done.wait()
        return Response()

    routes = [route("/slow", slow, methods=["POST"]), route("/quick", lambda _: Response(), methods=["POST"])]
    with console(tmp_path, routes=routes, grpc=limits) as site, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.post, f"{site.url}/slow", content=iter([b"{}"]), headers=JSON, timeout=LONG_S)
        seen.wait()
        try:
            assert site.http.post("/quick", content=b"x" * (ROOM - 2), headers=JSON).status_code == 200
        finally:
            done.set()
        assert asked.result().status_code == 200


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
