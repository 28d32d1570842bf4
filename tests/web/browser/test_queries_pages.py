"""The pages on queries clicked and typed in a real Chromium: grading by keyboard, hostile texts, phone, dark, axe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qrelay.labels.deciding import take_back
from qrelay.labels.ledger import overrides
from qrelay.types import Candidate, CandidateSet, JudgedSet, Passage, Query
from tests.labels.builders import OTHER_JUDGE, dead_letter, graded, judged_set, judgment, with_labels
from tests.web.browser.driving import Screen
from tests.web.serving import Served, console

PHONE = (360, 740)
DESK = (1200, 900)
SCRIPT = "window.ran = (window.ran || 0) + 1"
HOSTILE = (
    f"<script>{SCRIPT}</script>",
    f'<img src=x onerror="{SCRIPT}">',
    f"\"><svg/onload='{SCRIPT}'>",
    f"'><input autofocus onfocus={SCRIPT.replace(' ', '')}>",
    f"</textarea></title></style><iframe srcdoc='<script>{SCRIPT}</script>'>",
    f"javascript:{SCRIPT}",
    "{{ 7 * 7 }}{% include 'x' %}${7 * 7}",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "a" * 100_000,
    "\u0e01\u0e49\u0e49\u0e49\u0e49" * 500,
)
PAGES = (
    "/", "/queries", "/queries?dead=1", "/queries?differ=0.1&missing=", "/query?of=docs&id=q01",
    "/query?of=docs&id=q01&blind=1", "/people?of=docs", "/samples", "/sample?file=first.tsv&of=docs",
    "/query?of=docs&id=none",
)  # fmt: skip


def hostile(number: int, text: str) -> JudgedSet:
    """The text wherever one can be."""
    identity = f"h{number}-" + "".join(text.split())[:300]
    query = Query(identity, text, "hostile", None, {text[:100]: text}, (text,))
    passages = [Passage(f"{identity}#{place}", identity, text, text) for place in range(2)]
    judge = dataclasses.replace(OTHER_JUDGE, model=text[:100], strategy="graded")
    said = [judgment(each.passage_id, graded(2), judge, raw_reply=f"2\nReason: {text}") for each in passages]
    return JudgedSet(
        CandidateSet(query, tuple(Candidate(each, (), True) for each in passages), text[:100]), tuple(said)
    )


def sets() -> list[JudgedSet]:
    found = []
    for number in range(60):
        record = judged_set(f"q{number:02}", f"how do I stop machine {number}?", [graded(3), graded(0), graded(1)])
        found.append(
            with_labels(record, judgment("d1#0", graded(number % 4), OTHER_JUDGE, raw_reply="2\nReason: brake"))
        )
    return found + [hostile(number, text) for number, text in enumerate(HOSTILE)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("console")
    drawn = folder / "data" / "to-grade"
    drawn.mkdir(parents=True)
    header = "query_id\tpassage_id\tgrade\tquery\ttitle\ttext\n"
    rows = "".join(f"q{n:02}\td1#0\t\thow do I stop machine {n}?\ttitle\ttext {n} of d1\n" for n in range(40, 43))
    (drawn / "first.tsv").write_text(header + rows)
    with console(folder, sets()) as served:
        served.ledger.record_dead_letters([dead_letter("l1", "lost")])
        yield served


@pytest.fixture
def screen(site: Served, browser: Any) -> Screen:
    """The console before anybody gave a name."""
    found = Screen(browser, site.url)
    found.screen(*DESK)
    found.open("/queries")
    browser.delete_all_cookies()
    found.open("/queries")
    return found


def decided(site: Served, query_id: str, collection: str = "docs") -> list[tuple[str, str, int | None]]:
    with site.ledger.snapshot() as snapshot:
        rows = overrides.history(snapshot.connection, collection, query_id)
    return [(each.author, each.passage_id, each.grade) for each in rows]


def test_queries_are_filtered_paged_and_opened_by_mouse(screen: Screen) -> None:
    assert len(screen.all(".items > li")) == 50
    screen.follow(screen.one('a[rel="next"]'))
    assert len(screen.all(".items > li")) == 60 + len(HOSTILE) - 50
    screen.follow(screen.one('a[rel="prev"]'))
    screen.one("[data-search]").send_keys("machine 17")
    screen.one('select[name="collection"]').send_keys("docs")
    screen.follow(screen.one("form.filters button.main"))
    assert [each.text for each in screen.all("a.open")] == ["how do I stop machine 17?"]
    screen.follow(screen.one("a.open"))
    assert screen.one("h1").text == "how do I stop machine 17?"


def test_the_list_is_gone_through_by_keyboard(screen: Screen) -> None:
    screen.keys("j")
    screen.keys("j")
    screen.keys("j")
    screen.keys("k")
    assert screen.browser.execute_script(
        "return [...document.querySelectorAll('[data-item]')].indexOf(document.activeElement)") == 1  # fmt: skip
    body = screen.one("body")
    screen.keys("o")
    screen.until_gone(body)
    assert screen.one("h1").text == "how do I stop machine 1?"
    body = screen.one("body")
    screen.keys("n")
    screen.until_gone(body)
    assert screen.one("h1").text == "how do I stop machine 2?"
    screen.keys("/")  # no search here: nothing happens


def test_passages_are_graded_by_keyboard_and_a_grade_is_taken_back(site: Served, screen: Screen) -> None:
    screen.call_me("Ana <b>María</b>")
    screen.open("/query?of=docs&id=q03")
    screen.keys("j")
    screen.keys("2")
    screen.says("Saved: grade 2")
    assert screen.here() == "p2", "it goes on to the next passage"
    screen.keys("0")
    screen.says("Saved: grade 0")
    name = "Ana <b>María</b>"
    assert decided(site, "q03") == [(name, "d0#0", 2), (name, "d1#0", 0)]
    screen.keys("u")
    screen.says("Taken back")
    assert screen.here() == "p2"
    assert decided(site, "q03")[2:] == [(name, "d1#0", None)]
    assert "You graded 2" in screen.one("#p1").text


def test_a_grade_that_was_taken_back_elsewhere_is_said_not_to_be_taken_back(site: Served, screen: Screen) -> None:
    screen.call_me("ben")
    screen.open("/query?of=docs&id=q08")
    screen.keys("j")
    screen.keys("2")
    screen.says("Saved: grade 2")
    take_back(site.ledger, "docs", "q08", "d0#0", "ben")
    screen.keys("u")
    screen.says("Not taken back: ben has no grade of query q08")
    assert [grade for *_, grade in decided(site, "q08")] == [2, None]


def test_a_reason_is_typed_without_grading_by_accident(site: Served, screen: Screen) -> None:
    from selenium.webdriver.common.keys import Keys

    screen.call_me("ben")
    screen.open("/query?of=docs&id=q04")
    screen.keys("j")
    screen.keys("w")
    screen.keys("3 brakes: j2", Keys.ENTER, Keys.ESCAPE)
    assert decided(site, "q04") == []
    screen.keys("3")
    screen.says("Saved: grade 3")
    assert "3 brakes: j2" in screen.one("#p1").text


def test_what_is_not_saved_is_said_and_not_shown_as_graded(site: Served, screen: Screen) -> None:
    screen.call_me("ben")
    screen.open("/query?of=docs&id=q05")
    screen.browser.execute_script("document.querySelector('#p1 [name=known]').value = 'x'")
    screen.keys("j")
    screen.keys("1")
    screen.says("Not saved")
    assert decided(site, "q05") == []
    assert "You graded" not in screen.one("#p1").text


def test_blind_nothing_is_on_the_screen_or_in_the_page_before_the_grade(screen: Screen) -> None:
    screen.call_me("chloe")
    screen.open("/query?of=docs&id=q06")
    body = screen.one("body")
    screen.keys("b")
    screen.until_gone(body)
    source = screen.one("section").get_attribute("outerHTML")
    assert [words for words in ("judge-", "brake", "Mining", "bm25", "P(relevant)") if words in source] == []
    screen.keys("j")
    screen.keys("1")
    screen.says("Saved: grade 1")
    assert "judge-1.5b" in screen.one("#p1").text
    assert "judge-1.5b" not in screen.one("#p2").text


def test_without_its_script_the_page_grades_by_its_form(site: Served, screen: Screen) -> None:
    screen.call_me("dan")
    screen.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        screen.open("/query?of=docs&id=q07")
        screen.one('#p2 button[value="1"]').click()
        screen.until(lambda: decided(site, "q07"))
        screen.until(lambda: "You graded 1" in screen.one("#p2").text)
    finally:
        screen.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert decided(site, "q07") == [("dan", "d1#0", 1)]


def test_a_sample_is_graded_to_its_end_by_keyboard_alone(site: Served, screen: Screen) -> None:
    screen.call_me("eve")
    screen.open("/samples")
    screen.follow(screen.one("button.main[class]:not(form.who button)"))
    for grade in ("2", "0", "1"):
        body = screen.one("body")
        screen.keys(grade)
        screen.until_gone(body)
    assert screen.one("h1").text == "All graded"
    body = screen.one("body")
    screen.keys("u")
    screen.until_gone(body)
    assert "2 of 3 graded by you" in screen.one(".bar").text
    assert decided(site, "q42") == [("eve", "d1#0", 1), ("eve", "d1#0", None)]


def test_the_keys_are_shown_on_request(screen: Screen) -> None:
    assert not screen.one("#help dl").is_displayed()
    screen.keys("?")
    assert "search" in screen.one("#help dl").text
    screen.keys("?")
    assert not screen.one("#help dl").is_displayed()


def test_hostile_texts_run_nothing_and_fit_a_phone(site: Served, screen: Screen) -> None:
    addresses = ["/queries?collection=hostile", "/people?of=hostile", "/"]
    screen.open(addresses[0])
    addresses += [each.get_attribute("href").removeprefix(site.url) for each in screen.all("a.open")]
    assert len(addresses) == 3 + len(HOSTILE)
    screen.screen(*PHONE)
    screen.browser.get_log("browser")
    for name, address in zip(HOSTILE * 2, addresses, strict=False):
        screen.open("/queries")
        screen.call_me(name[:60] if name.isascii() else "ünnamed")
        screen.open(address)
        if screen.all("#p1"):
            screen.keys("j")
            screen.keys("1")
            screen.says("Saved: grade 1")
        assert screen.browser.execute_script("return window.ran") is None, address
        assert screen.all("iframe, svg, section img, script:not([src='/static/console.js'])") == [], address
        assert not screen.wider_than_the_screen(), address
        assert "49" not in screen.one("h1").text, "a template's text is no template"
    refused = [each["message"] for each in screen.browser.get_log("browser") if "Content Security" in each["message"]]
    assert refused == [], "nothing even tried"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_no_serious_fault_and_nothing_scrolls_sideways(
    screen: Screen, axe: str, size: tuple[int, int], dark: bool
) -> None:
    screen.call_me("ana")
    screen.screen(*size, dark=dark)
    found = {}
    for address in PAGES:
        screen.open(address)
        found[address] = screen.faults(axe) + ["scrolls sideways"] * screen.wider_than_the_screen()
    assert {address: faults for address, faults in found.items() if faults} == {}


def test_dark_mode_is_dark(screen: Screen) -> None:
    def brightness() -> int:
        colour = screen.one("body").value_of_css_property("background-color")
        return sum(int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])

    light = brightness()
    screen.screen(*DESK, dark=True)
    assert brightness() < 150 < 600 < light
