"""The page on the pipeline in a real Chromium, on a real installation: live; dead letters sent again by a click."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qrelay.labels.ledger.ledger import Ledger
from tests.pipeline.harness import Installation
from tests.web.browser.driving import Screen
from tests.web.installation import lost, with_dead_letters
from tests.web.serving import console


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Ledger]]:
    with with_dead_letters(tmp_path_factory.mktemp("pipeline")) as found:
        yield found


def test_the_page_is_live_and_letters_are_replayed_by_clicks(
    running: tuple[Installation, Ledger], browser: Any, axe: str
) -> None:
    installation, ledger = running
    screen = Screen(browser, installation.endpoint("console").grpc)
    screen.screen(1200, 900)
    browser.get_log("browser")
    screen.open("/pipeline")
    screen.until(lambda: screen.one("[data-state]").text == "Live.")
    assert "3 wait" in screen.one("[data-live]").text
    ledger.record_dead_letters([lost(3)])
    screen.until(lambda: "4 wait" in screen.one("[data-live]").text)
    screen.until(lambda: screen.one("[data-live]").text.count(" ready ") == 4)
    for size in ((1200, 900), (360, 740)):
        for dark in (False, True):
            screen.screen(*size, dark=dark)
            assert screen.faults(axe) == []
            assert not screen.wider_than_the_screen()
    screen.screen(1200, 900)
    screen.open("/pipeline")
    screen.follow(screen.one('button[aria-label="Replay q1"]'))
    assert "1 sent again" in screen.one("main").text
    screen.until(lambda: "3 wait" in screen.one("[data-live]").text)
    screen.follow(screen.one('button[name="all"]'))
    assert "3 sent again" in screen.one("main").text
    screen.until(lambda: "0 wait" in screen.one("[data-live]").text)
    installation.until(lambda: [each.queries for each in ledger.stats()] == [4])
    assert browser.execute_script("return window.ran") is None
    refused = [each["message"] for each in browser.get_log("browser") if "Content Security" in each["message"]]
    assert refused == []


def test_a_page_that_may_not_be_live_now_says_so_and_is_later(tmp_path: Path, browser: Any) -> None:
    with console(tmp_path, max_streams=1) as site:
        screen = Screen(browser, site.url)
        with site.http.stream("GET", "/pipeline/events") as first:
            lines = first.iter_lines()
            next(lines)
            screen.open("/pipeline")
            tried_again = r"Not live: .* Next try in ([2-9]|\d\d) s\."
            screen.until(lambda: re.fullmatch(tried_again, screen.one("[data-state]").text))
        screen.until(lambda: screen.one("[data-state]").text == "Live.")
