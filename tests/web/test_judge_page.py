"""The pages on judges over HTTP: reports that are on disk, and thresholds over the ledger's labels."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from qrelay.labels.browse.thresholds import Histogram
from qrelay.labels.ledger import retractions
from qrelay.types import Graded, Missing
from qrelay.web.counting import Counting
from tests.conftest import LONG_S
from tests.labels.builders import OTHER_JUDGE, graded, judged_set, judgment, relabelled
from tests.web.reports import HOSTILE, report, written
from tests.web.serving import Served, console
from tests.web.test_queries import acting, page

HTML = {"accept": "text/html"}
COUNTING = "are being counted"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    labels: list[Graded | Missing] = [
        graded(3, 0.95),
        graded(1, 0.4),
        graded(0, 0.399),
        graded(0, 0.29),
        graded(2, 1.0),
        Missing("timeout", ""),
    ]
    with console(tmp_path, [judged_set("q1", outcomes=labels), judged_set("q2", collection="other")]) as served:
        yield served


def thresholds(site: Served, asked: str = "") -> httpx.Response:
    """The page, once its labels are counted."""
    while COUNTING in (answer := site.http.get(f"/judge/thresholds?{asked}", headers=HTML)).text:
        pass
    return answer


def counted(shown: str) -> dict[str, int]:
    """What the page says that the thresholds take."""
    return {name: int(count) for name, count in re.findall(r'data-count="(\w+)"[^>]*>(\d+)<', shown)}


def test_without_a_report_the_page_says_how_to_make_one(site: Served) -> None:
    shown = page(site, "/judge")
    assert "qrelay judge qualify" in shown
    assert str(site.folder / "data" / "reports") in shown
    assert "No report is in force" in shown


def test_a_report_shows_each_verdict_with_its_reason_confusion_and_reliability(site: Served) -> None:
    written(site.folder)
    shown = page(site, "/judge")
    for words in ("qualified", "kappa with people holds", "calibrated only", "not qualified", "kappa_needed: 0.400",
                  "0.910", "0.850 to 0.950", "1,234", "70 pairs of 12 queries"):  # fmt: skip
        assert words in shown, words
    assert "Only 12 queries were graded" in shown, "what to know before believing the figures"
    assert shown.count("<circle") == 3
    assert shown.count("<rect") == 2
    assert "<td>30 <small>86%</small></td>" in shown
    assert "No probabilities of it were measured" in page(site, "/judge?system=shy")


def test_the_report_in_force_comes_first_and_others_can_be_chosen(tmp_path: Path) -> None:
    written(tmp_path, "first.json")
    second = written(tmp_path, "second.json", n=71)
    folder = written(tmp_path, "night/report.json")
    folder.write_text(json.dumps({"title": "t", "data": {"n": 72, "queries": 3}, "systems": report()["systems"]}))
    with console(tmp_path) as site:
        site.site.sink = site.site.sink.model_copy(update={"qualification": str(second)})
        shown = page(site, "/judge")
        assert "71 pairs" in shown
        assert "No report is in force" not in shown
        names = re.findall(r'<option value="([^"]*)"', shown)
        assert names[:3] == [str(second), "first.json", "night/report.json"]
        assert "72 pairs" in page(site, "/judge?report=night/report.json")


@pytest.mark.parametrize("name", ["../ledger.sqlite", "/etc/passwd", "none.json"])
def test_no_other_file_is_read_as_a_report(site: Served, name: str) -> None:
    written(site.folder)
    assert site.http.get("/judge", params={"report": name}, headers={"accept": "text/html"}).status_code == 400


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"systems": 3}', '{"systems": {"a": {"confusion": {"grades": [1]}}}}']
)
def test_a_file_that_is_no_report_is_named_beside_those_that_are(site: Served, text: str) -> None:
    bad = written(site.folder)
    bad.write_text(text)
    told = f"{bad} is no report of"
    shown = page(site, "/judge")
    assert told in shown
    assert "pairs of" not in shown
    written(site.folder, "second.json", n=71)
    shown = page(site, "/judge")
    assert (told in shown, "71 pairs" in shown) == (True, True)
    assert re.findall(r'<option value="([^"]*\.json)"', shown) == ["first.json", "second.json"]
    chosen = page(site, "/judge?report=first.json")
    assert (told in chosen, "71 pairs" in chosen) == (True, False)


def test_names_and_reasons_of_a_hostile_report_are_escaped(site: Served) -> None:
    written(site.folder).write_text(json.dumps(report(HOSTILE, HOSTILE)))
    shown = page(site, "/judge")
    assert acting(shown) == {("script", "src", "/static/console.js"), ("script", "defer", None)}
    assert "&lt;script&gt;" in shown


def test_thresholds_count_labels_exactly_at_their_bounds(site: Served) -> None:
    shown = thresholds(site, "of=docs&positive=40&negative=29").text
    assert counted(shown) == {"positives": 3, "agreeing": 2, "negatives": 0, "neither": 2, "both": 0}
    assert "5 with a grade, 1 missing" in shown
    shown = thresholds(site, "of=docs&positive=100&negative=30").text
    assert counted(shown) == {"positives": 1, "agreeing": 1, "negatives": 1, "neither": 3, "both": 0}
    shown = thresholds(site, "of=docs&positive=20&negative=40").text
    assert counted(shown) == {"positives": 5, "agreeing": 2, "negatives": 2, "neither": 0, "both": 2}


def test_thresholds_begin_at_the_settings_and_see_labels_that_come_later(site: Served) -> None:
    assert counted(thresholds(site).text)["negatives"] == 2
    site.ledger.commit(
        [judged_set("q3", outcomes=[graded(0, 0.1)]), judged_set("q4", outcomes=[Missing("error", "")])]
    )
    site.ledger.rejudge([relabelled(judged_set("q1"), judgment("d0#0", graded(1), OTHER_JUDGE))])
    shown = thresholds(site, "of=docs").text
    assert counted(shown)["negatives"] == 3
    assert "6 with a grade, 2 missing" in shown
    names = re.findall(r'<option value="([0-9a-f]{12})"', shown)
    assert len(names) == 2
    assert "1 with a grade, 0 missing" in thresholds(site, f"of=docs&judge={names[1]}").text
    with site.ledger.writing("retract a judge") as connection:
        retractions.retract(connection, names[1], author="ana", reason="", now_us=site.ledger.now_us())
    assert thresholds(site, f"of=docs&judge={names[1]}").status_code == 400


@pytest.mark.parametrize("asked", ["positive=101", "negative=-1", "positive=x", "of=nowhere", "judge=ffff"])
def test_a_threshold_that_cannot_be_is_refused(site: Served, asked: str) -> None:
    assert thresholds(site, asked).status_code in (400, 404)


def test_while_labels_are_counted_the_page_says_so_and_others_are_answered(tmp_path: Path) -> None:
    """More looks at once than the ledger has connections, at a collection whose counting goes on for as long as we
    like."""
    looks, going_on = 20, threading.Event()

    def count(_: str) -> list[Histogram]:
        going_on.wait()
        return []

    with console(tmp_path) as site, ThreadPoolExecutor(looks) as pool:
        site.site.histograms = Counting(count, patience_s=0)
        try:
            asked = [pool.submit(httpx.get, f"{site.url}/judge/thresholds", timeout=LONG_S) for _ in range(looks)]
            assert {COUNTING in each.result().text for each in asked} == {True}
            assert "q1" in page(site, "/queries")
        finally:
            going_on.set()
        assert "No judge has labelled" in thresholds(site).text
