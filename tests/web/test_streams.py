"""What goes on for long: pages that are kept up to date, answers that break off, clients that go away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from qrelay.errors import BackendUnavailable
from qrelay.web.events import events
from qrelay.web.routes import route
from tests.web.serving import Served, console

SEEN: dict[str, Any] = {}
HTML = {"accept": "text/html"}


async def counting(request: Request) -> Response:
    """A number that grows, and fails once."""
    SEEN["looks"] = 0

    async def look() -> int:
        SEEN["looks"] += 1
        if SEEN["looks"] == 3:
            raise BackendUnavailable("not now")
        return int(SEEN["looks"]) // 2

    return events(request, look, every_s=0.01)


async def slow(_: Request) -> Response:
    """Never ends by itself; says when it was cancelled."""
    SEEN["slow"] = "begun"
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        SEEN["slow"] = "cancelled"
        raise
    return Response()


async def breaking(_: Request) -> Response:
    """Fails in the middle of an answer."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"half of it"
        raise BackendUnavailable("gone")

    return StreamingResponse(parts())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    SEEN.clear()
    routes = [route("/counting", counting), route("/slow", slow), route("/breaking", breaking)]
    with console(tmp_path, routes=routes, max_streams=2) as served:
        yield served


def said(lines: Iterator[str]) -> tuple[str, Any]:
    """The next event's name and data."""
    name = "message"
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        if line.startswith("data: "):
            return name, json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream has ended")


def eventually(condition: Any) -> None:
    """Wait for it; what hangs is ended by pytest's own limit."""
    while not condition():
        time.sleep(0.01)


def test_a_page_is_told_what_has_changed_and_what_went_wrong(site: Served) -> None:
    with site.http.stream("GET", "/counting") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert said(lines) == ("message", 0)
        assert said(lines) == ("message", 1)
        name, problem = said(lines)
        assert (name, problem["error"]["reason"]) == ("problem", "backend_unavailable")
        assert said(lines) == ("message", 2)


def test_beyond_the_limit_a_stream_is_refused_until_another_ends(site: Served) -> None:
    def open_stream() -> int:
        with httpx.Client(base_url=site.url) as http, http.stream("GET", "/counting") as stream:
            return stream.status_code

    with site.http.stream("GET", "/counting") as one:
        first = one.iter_lines()
        next(first)
        with httpx.Client(base_url=site.url) as http, http.stream("GET", "/counting") as two:
            second = two.iter_lines()
            next(second)
            assert open_stream() == 429
    eventually(lambda: site.site.streams_left == 2)
    assert open_stream() == 200


def test_a_client_that_goes_away_cancels_its_request(site: Served) -> None:
    with pytest.raises(httpx.ReadTimeout):
        site.http.get("/slow", timeout=httpx.Timeout(60, read=0.3))
    eventually(lambda: SEEN.get("slow") == "cancelled")


def test_an_answer_that_breaks_off_is_not_taken_for_whole(site: Served) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        site.http.get("/breaking")


def test_what_takes_too_long_is_told_so(tmp_path: Path) -> None:
    from qrelay.config import GrpcSettings

    with console(tmp_path, routes=[route("/slow", slow)], grpc=GrpcSettings(default_deadline_s=0.2)) as site:
        answer = site.http.get("/slow")
        assert answer.status_code == 504
        assert answer.json()["error"]["reason"] == "backend_timeout"


def test_an_open_stream_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    with (
        console(tmp_path, routes=[route("/counting", counting)]) as site,
        site.http.stream("GET", "/counting") as one,
    ):
        lines = one.iter_lines()
        next(lines)
        site.site.stopping = lambda: True
        begun = SEEN["looks"]
        for _ in lines:
            pass
        assert SEEN["looks"] <= begun + 1, "it ends at once, and not with its last look"
