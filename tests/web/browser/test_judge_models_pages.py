"""The pages on judges and models in a real Chromium: thresholds dragged, versions promoted and rolled back, hostile
names, phone, dark, axe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qrelay.models.registry import BI_ENCODER, DataSource, Registry
from qrelay.types import Missing
from tests.labels.builders import OTHER_JUDGE, graded, judged_set, judgment, with_labels
from tests.labels.exporting import export_file
from tests.models.registry.models import passed, published, row
from tests.web.browser.driving import Screen
from tests.web.reports import HOSTILE, report, written
from tests.web.serving import Served, console

DESK, PHONE = (1200, 900), (360, 740)
SCRIPT = "window.ran = (window.ran || 0) + 1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("console")
    written(folder, "hostile.json").write_text(json.dumps(report(HOSTILE, f"<script>{SCRIPT}</script>")))
    written(folder)
    sets = []
    for n in range(40):
        record = judged_set(f"q{n:02}", outcomes=[graded(3, 1 - n / 100), graded(0, n / 200), Missing("timeout", "")])
        sets.append(with_labels(record, judgment("d1#0", graded(n % 4), OTHER_JUDGE)))
    with console(folder, sets) as served:
        registry = Registry(folder / "data" / "registry")
        manifest = export_file(served.ledger, "docs", "qrels", folder / "train.qrels", unmeasured=True)
        source = DataSource("train.qrels", manifest["sha256"], manifest["rows"], manifest)
        first = passed(registry, published(registry, "a", data=[source]))
        registry.promote(first)
        rows = [row("nDCG@10", "docs", 0.4, 0.5)]
        passed(
            registry,
            published(registry, "b", parent=first, judge=HOSTILE, job=HOSTILE),
            first,
            why=HOSTILE,
            rows=rows,
        )
        yield served


@pytest.fixture
def versions(site: Served) -> list[str]:
    return list(Registry(site.folder / "data" / "registry").standing().versions)


@pytest.fixture
def screen(site: Served, browser: Any) -> Screen:
    """The console before anybody gave a name."""
    found = Screen(browser, site.url)
    found.screen(*DESK)
    found.open("/models")
    browser.delete_all_cookies()
    return found


def counts(screen: Screen) -> dict[str, str]:
    return {each.get_attribute("data-count"): each.text for each in screen.all("[data-count]")}


def test_dragging_a_threshold_counts_what_the_server_counts(screen: Screen) -> None:
    from selenium.webdriver import ActionChains

    screen.open("/judge/thresholds")
    before, mark = counts(screen), screen.one('[data-mark="positive"]').get_attribute("x1")
    slider = screen.one('input[name="positive"]')
    ActionChains(screen.browser).drag_and_drop_by_offset(slider, slider.size["width"] // 4, 0).perform()
    dragged, value = counts(screen), slider.get_attribute("value")
    assert dragged["positives"] != before["positives"]
    assert screen.one('[data-mark="positive"]').get_attribute("x1") != mark
    assert screen.one('[data-value="positive"]').text == f"{int(value) / 100:.2f}"
    screen.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        screen.one("form.filters button.main").click()
        screen.until(lambda: f"positive={value}" in screen.browser.current_url and counts(screen))
        assert counts(screen) == dragged, "the form counts without the script"
    finally:
        screen.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_report_and_a_system_are_chosen(screen: Screen) -> None:
    screen.open("/judge?report=first.json")
    assert len(screen.all("svg circle")) == 3
    screen.one('select[name="system"]').send_keys("shy")
    screen.follow(screen.one("form.filters button.main"))
    assert "No probabilities" in screen.one("main").text


def test_a_version_is_promoted_after_its_verdict_was_read_and_rolled_back(
    site: Served, screen: Screen, versions: list[str]
) -> None:
    first, second = versions
    registry = Registry(site.folder / "data" / "registry")
    screen.open("/models")
    screen.call_me("Ana")
    screen.follow(next(each for each in screen.all("table a") if each.text == second))
    button = screen.one("main form button.main")
    button.click()
    assert registry.standing().serving(BI_ENCODER) == first, "not without the tick"
    screen.one('input[name="read"]').click()
    screen.one('main input[name="reason"]').send_keys("it rose")
    screen.follow(button)
    assert "It serves already" in screen.one("main").text
    assert registry.standing().serving(BI_ENCODER) == second
    screen.open("/models")
    screen.one("section summary").click()
    screen.one('section input[name="read"]').click()
    screen.follow(screen.one("section form button"))
    assert registry.standing().serving(BI_ENCODER) == first
    assert [(each.kind, each.by) for each in registry.history()[-2:]] == [("promoted", "Ana"), ("rolled_back", "Ana")]


def test_a_lineage_is_followed_to_a_judgment(screen: Screen, versions: list[str]) -> None:
    screen.open(f"/model?version={versions[1]}")
    screen.follow(screen.one(f'.items a[href*="{versions[0]}"]'))
    screen.follow(screen.one('a[href^="/model/judgments"]'))
    screen.follow(screen.one('a[rel="next"]'))
    screen.follow(screen.one("h2 a"))
    assert screen.one("h1").text == "text of q10"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_runs_fits_no_phone_or_is_a_serious_fault(
    screen: Screen, versions: list[str], axe: str, dark: bool
) -> None:
    pages = ["/judge?report=hostile.json", "/judge?report=first.json", "/judge/thresholds", "/models"]
    pages += [f"/model?version={each}" for each in versions]
    pages.append(f"/model/judgments?version={versions[0]}&data=train.qrels")
    screen.browser.get_log("browser")
    for address in pages:
        for size in (DESK, PHONE):
            screen.screen(*size, dark=dark)
            screen.open(address)
            assert screen.browser.execute_script("return window.ran") is None, address
            assert screen.all("iframe, main img") == [], address
            assert not screen.wider_than_the_screen(), (address, size)
            for details in screen.all("main details:not([open]) > summary"):
                details.click()
            assert screen.faults(axe) == [], (address, size)
    refused = [each["message"] for each in screen.browser.get_log("browser") if "Content Security" in each["message"]]
    assert refused == []
