"""The page on the pipeline over HTTP, on a real installation: what flows, what it costs, dead letters sent again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from qrelay.labels.ledger.ledger import Ledger
from tests.conftest import LONG_S
from tests.pipeline.harness import Installation
from tests.web.installation import BUDGET, with_dead_letters
from tests.web.serving import console
from tests.web.test_queries import acting

HTML = {"accept": "text/html"}
SCRIPTS = {("script", "src", f"/static/{name}.js") for name in ("console", "live")} | {("script", "defer", None)}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Ledger]]:
    with with_dead_letters(tmp_path_factory.mktemp("pipeline")) as found:
        yield found


@pytest.fixture(scope="module")
def http(running: tuple[Installation, Ledger]) -> Iterator[httpx.Client]:
    url = running[0].endpoint("console").grpc
    with httpx.Client(base_url=url, timeout=LONG_S, headers=HTML) as client:
        yield client


def send(http: httpx.Client, **fields: str) -> httpx.Response:
    http.get("/")
    data = {"csrf": http.cookies["qrelay_csrf"], **fields}
    return http.post("/pipeline/replay", data=data, headers={"origin": str(http.base_url).rstrip("/")})


def states(ledger: Ledger) -> dict[str, str]:
    found = ledger.list_dead_letters(None, True, 10, "").entries
    return {each.letter.dead_letter_id: each.state for each in found}


def test_the_page_shows_every_service_its_lag_and_the_budget(
    running: tuple[Installation, Ledger], http: httpx.Client
) -> None:
    running[0].until(lambda: http.get("/pipeline").text.count(">ready<") == 4)
    shown = http.get("/pipeline").text
    for words in ("retriever", "sink", f"0 of {BUDGET:,} tokens", "(0.00 of 2000.00 in money)", "3 wait"):
        assert words in shown, words
    assert acting(shown) == SCRIPTS, "a hostile detail is escaped"


def test_a_letter_is_sent_again_alone_and_the_others_together(
    running: tuple[Installation, Ledger], http: httpx.Client
) -> None:
    installation, ledger = running
    with http.stream("GET", "/pipeline/events") as stream:
        lines = stream.iter_lines()
        assert "3 wait" in part(lines)
        assert send(http, id="l1").headers["location"] == "/pipeline?replayed=1&left=0"
        while "2 wait" not in part(lines):
            pass
    assert [name for name, state in states(ledger).items() if state == "open"] == ["l0", "l2"]
    answer = send(http, all="1")
    assert answer.headers["location"] == "/pipeline?replayed=2&left=0"
    assert "2 sent again" in http.get(answer.headers["location"]).text
    installation.until(lambda: [each.queries for each in ledger.stats()] == [3])
    installation.until(lambda: re.search(r"[1-9][\d,]* graded", http.get("/pipeline").text))
    assert send(http, id="l0").headers["location"] == "/pipeline?replayed=0&left=1"


def part(lines: Any) -> str:
    """The next part of the page that the stream brings."""
    while not (line := next(lines)).startswith("data: "):
        pass
    return str(json.loads(line.removeprefix("data: "))["html"])


def test_a_replay_that_is_forged_or_names_nothing_changes_nothing(
    running: tuple[Installation, Ledger], http: httpx.Client
) -> None:
    before = states(running[1])
    assert send(http).status_code == 400
    assert send(http, all="1", csrf="guessed").status_code == 403
    assert states(running[1]) == before


def test_without_services_and_queues_the_page_says_so(tmp_path: Path) -> None:
    with console(tmp_path, nats={"url": "nats://127.0.0.1:9"}) as site:
        shown = site.http.get("/pipeline", headers=HTML).text
        assert shown.count("not seen") == 4 + 1
        while "no server" not in shown and "127.0.0.1:9" not in shown:
            shown = site.http.get("/pipeline", headers=HTML).text
        refused = site.post("/pipeline/replay", all="1")
        assert refused.status_code == 503
        assert "no sink runs" in refused.text
