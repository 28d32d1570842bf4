"""The pages on queries over HTTP: what they show, what they hide, and that a grade is a decision like any other."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest

from qrelay.cli.labels.export import export
from qrelay.labels.ledger import overrides
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, Override
from qrelay.types import Candidate, CandidateSet, JudgedSet, Passage, Query
from qrelay.web.console.queries.visible import exact, visible
from tests.labels.builders import OTHER_JUDGE, dead_letter, graded, judged_set, judgment, with_labels
from tests.web.serving import Served, console

HTML = {"accept": "text/html"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
TURNED = "abc\u202egnp.exe\u200b"


def hostile_set() -> JudgedSet:
    """Markup in ids, texts, titles, attributes and answers."""
    identity = HOSTILE.replace(" ", "/")
    query = Query(identity, HOSTILE, "docs", None, {HOSTILE: HOSTILE}, (HOSTILE,))
    passage = Passage(f"{identity}#0", identity, HOSTILE, HOSTILE + TURNED + "x" * 10_000)
    label = judgment(
        passage.passage_id, graded(2), dataclasses.replace(OTHER_JUDGE, model=HOSTILE), raw_reply=HOSTILE
    )
    return JudgedSet(CandidateSet(query, (Candidate(passage, (), True),), HOSTILE), (label,))


def labelled() -> JudgedSet:
    """Two judges that differ on d1#0, one of them with a reason."""
    record = judged_set("q1", "how to stop?", [graded(3), graded(0)])
    said = judgment("d1#0", graded(2), OTHER_JUDGE, raw_reply="2\nReason: it names the brake")
    return with_labels(record, said)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    with console(tmp_path, [labelled(), judged_set("q2"), hostile_set()]) as served:
        served.ledger.record_dead_letters([dead_letter("l1", "lost")])
        yield served


def acting(page: str) -> set[tuple[str, str, str | None]]:
    """What of a page could run: scripts, handlers, styles, and addresses that are a script."""
    found: set[tuple[str, str, str | None]] = set()

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.update((tag, *each) for each in attrs if tag in ("script", "img", "style", "iframe"))
            found.update((tag, *each) for each in attrs if each[0].startswith("on") or each[0] == "style")
            found.update((tag, *each) for each in attrs if (each[1] or "").startswith("javascript:"))

    Parser().feed(page)
    return found


def named(site: Served, name: str) -> None:
    site.http.cookies.set("qrelay_person", quote(name))


def page(site: Served, address: str) -> str:
    answer = site.http.get(address, headers=HTML)
    assert answer.status_code == 200, answer.text
    return answer.text


def decisions(ledger: Ledger, query_id: str = "q1") -> tuple[Override, ...]:
    with ledger.snapshot() as snapshot:
        return overrides.history(snapshot.connection, "docs", query_id)


def grade(site: Served, grade: str = "2", passage: str = "d1#0", address: str = "/query/grade", **fields: str) -> int:
    known = {
        "of": "docs",
        "id": "q1",
        "passage": passage,
        "grade": grade,
        "scale": "0-3",
        "known": "0",
        "number": "2",
    }
    return site.post(address, **{**known, **fields}).status_code


def test_the_list_is_searched_filtered_and_leads_to_each_query(site: Served) -> None:
    assert "how to stop?" in page(site, "/queries?search=STOP")
    assert "how to stop?" not in page(site, "/queries?differ=0.9")
    assert "how to stop?" in page(site, "/queries?differ=0.5&sort=disagreement")
    assert "text of lost" in page(site, "/queries?dead=1")
    links = re.findall(r'class="open" href="([^"]+)"', page(site, "/queries"))
    assert len(links) == 3
    for link in links:
        page(site, html.unescape(link))


@pytest.mark.parametrize("asked", ["differ=2", "differ=x", "sort=none", "round=-1", "at=nonsense", "graded=maybe"])
def test_what_cannot_be_asked_is_refused_by_name(site: Served, asked: str) -> None:
    answer = site.http.get(f"/queries?{asked}", headers=HTML)
    assert answer.status_code == 400
    assert "<h1>400" in answer.text


def test_one_query_shows_scores_grades_reasons_and_why_mining_chose(site: Served) -> None:
    shown = page(site, "/query?of=docs&id=q1")
    for words in ("it names the brake", "judge-7b", "judge-1.5b", "hard_relevant", "P(relevant)", "bm25", "0.95"):
        assert (words in shown) == (words != "hard_relevant"), words
    assert "positive: graded relevant, and dense ranks it 1" in shown
    assert "the passage is dedicated to the query and contains the exact answer" in shown


def test_blind_nothing_that_was_measured_or_decided_is_in_the_page_before_the_grade(site: Served) -> None:
    named(site, "ben")
    assert grade(site, "3", note="ben says so") == 303
    named(site, "ana")
    told = ("judge-7b", "judge-1.5b", "graded", "names the brake", "ben", "bm25", "dense ", "Mining", "0.95", "rank")
    blind = page(site, "/query?of=docs&id=q1&blind=1")
    inside = blind[blind.index('aria-label="Passages"') :]
    assert [words for words in told if words in inside.replace("once you have graded it", "")] == []
    assert [words for words in ("differ", "uncertain", "example", "judge-") if words in blind] == []
    grade(site, "2", address="/query/grade?blind=1")
    after = page(site, "/query?of=docs&id=q1&blind=1")
    assert "names the brake" in after
    assert "ben says so" in after
    assert after.count("Labels, scores and other people") == 1, "the other passage stays blind"


def test_a_grade_is_a_decision_that_the_command_line_exports_and_calibration_see(site: Served) -> None:
    from click.testing import CliRunner

    named(site, "ána ✓")
    answer = site.post(
        "/query/grade?sort=newest", of="docs", id="q1", passage="d1#0", grade="2", scale="0-3", known="0", number="2",
        note="read it",
    )  # fmt: skip
    assert answer.headers["location"] == "/query?sort=newest&of=docs&id=q1#p2"
    [said] = decisions(site.ledger)
    assert (said.grade, said.author, said.note, said.stands) == (2, "ána ✓", "read it", True)
    out = site.folder / "out.qrels"
    command = ["qrels", "--collection", "docs", "--overrides", "--out", str(out)]
    done = CliRunner().invoke(export, [*command, "--ledger", str(site.folder / "data" / "ledger.sqlite")])
    assert done.exit_code == 0, done.output
    assert "q1 0 d1#0 2" in out.read_text()
    pairs = site.http.get("/people/pairs?of=docs&scale=0-3")
    assert pairs.text.splitlines()[1].split("\t")[:3] == ["q1", "d1#0", "2"]


def test_the_script_gets_the_passage_as_it_is_once_the_grade_is_on_disk(site: Served) -> None:
    named(site, "ana")
    headers = {"origin": site.url, "x-part": "1"}
    fields = {"of": "docs", "id": "q1", "passage": "d1#0", "scale": "0-3", "known": "0", "number": "2"}
    token = site.token()
    answer = site.http.post("/query/grade", data={**fields, "grade": "1", "csrf": token}, headers=headers)
    assert answer.text.lstrip().startswith("<article")
    assert "You graded <strong>1</strong>" in answer.text
    assert [each.grade for each in decisions(site.ledger)] == [1]
    undone = site.http.post("/query/undo", data={**fields, "csrf": token}, headers=headers)
    assert "took back" in undone.text
    assert [each.grade for each in decisions(site.ledger)] == [1, None]


def test_what_is_not_taken_back_is_never_said_to_be(site: Served) -> None:
    """Somebody else's grade, and one's own that is taken back already."""
    named(site, "ben")
    grade(site, "3")
    named(site, "ana")
    fields = {"of": "docs", "id": "q1", "passage": "d1#0", "scale": "0-3", "known": "0", "number": "2"}
    headers = {"origin": site.url, "x-part": "1", "accept": "application/json"}
    refused = site.http.post("/query/undo", data={**fields, "csrf": site.token()}, headers=headers)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("ana has no grade of query q1 and passage d1#0")
    by_form = site.post("/query/undo", **fields)
    assert by_form.status_code == 400
    assert "load the page again" in by_form.text
    assert [(each.author, each.grade) for each in decisions(site.ledger)] == [("ben", 3)]


@pytest.mark.parametrize(
    "changed",
    [{"grade": "9"}, {"grade": "x"}, {"passage": "d9"}, {"id": "nobody"}, {"of": "nowhere"}, {"scale": "best"},
     {"note": "x" * 2001}, {"known": ""}],
)  # fmt: skip
def test_a_grade_that_cannot_be_is_refused_and_nothing_recorded(site: Served, changed: dict[str, str]) -> None:
    named(site, "ana")
    assert grade(site, **changed) in (400, 404)
    assert decisions(site.ledger) == ()


def test_nobody_grades_without_a_name_or_from_another_page(site: Served) -> None:
    assert grade(site) == 400
    named(site, "ana")
    foreign = {"origin": "http://elsewhere.example"}
    data = {"csrf": site.token(), "of": "docs", "id": "q1", "passage": "d1#0", "grade": "2", "scale": "0-3"}
    assert site.http.post("/query/grade", data=data, headers=foreign).status_code == 403
    assert site.http.post("/query/grade", data={**data, "csrf": "x"}, headers={"origin": site.url}).status_code == 403
    assert decisions(site.ledger) == ()


def test_hostile_texts_are_escaped_cut_and_made_visible_on_every_page(site: Served) -> None:
    named(site, HOSTILE)
    with site.ledger.writing("test") as connection:
        identity = HOSTILE.replace(" ", "/")
        said = NewOverride(identity, f"{identity}#0", 1, "0-3", HOSTILE, HOSTILE)
        overrides.add(connection, "docs", [said], 1)
    link = html.unescape(re.findall(r'href="(/query\?[^"]*script[^"]*)"', page(site, "/queries"))[0])
    for address in ("/queries", "/queries?search=" + quote(HOSTILE), link, link + "&blind=1", "/people", "/"):
        shown = page(site, address)
        assert acting(shown) == {("script", "src", "/static/console.js"), ("script", "defer", None)}, address
    shown = page(site, link)
    assert "\u202e" not in shown
    assert "[U+202E]" in shown
    text = page(site, html.unescape(re.findall(r'href="(/query/text[^"]+)"', shown)[0]))
    assert text.endswith("x" * 10_000)


def test_hidden_characters_are_marked_in_texts_and_more_of_them_in_ids() -> None:
    assert visible("a\u202eb\u200bc\n\td\x00") == "a[U+202E]b[U+200B]c\n\td[U+0000]"
    assert visible("\u0646\u0645\u06cc\u200c\u062e") == "\u0646\u0645\u06cc\u200c\u062e"
    assert exact("a\u200db\u00a0c d") == "a[U+200D]b[U+00A0]c d"


def test_people_see_how_far_they_are_and_how_far_they_agree(site: Served) -> None:
    for name in ("ana", "ben"):
        named(site, name)
        grade(site, "1")
        grade(site, "3", "d0#0")
    shown = page(site, "/people?of=docs")
    assert "2 of 6 judged pairs" in shown
    assert "<dt>Krippendorff&#39;s alpha</dt><dd>1.00</dd>" in shown.replace("Krippendorff's", "Krippendorff&#39;s")


def test_a_drawn_sample_is_graded_blind_one_pair_after_the_other(site: Served) -> None:
    drawn(site, "q1\td1#0\t\thow to stop?\ta title\ta text\nq2\td0#0\t\ttext of q2\tt\tanother\n")
    assert "first.tsv" in page(site, "/samples")
    named(site, "ana")
    address = "/sample?file=first.tsv&of=docs"
    shown = page(site, address)
    assert "0 of 2 graded by you" in shown
    assert "names the brake" not in shown
    fields = {"of": "docs", "id": "q1", "passage": "d1#0", "scale": "0-3", "known": "0", "number": "1"}
    following = site.post(address.replace("/sample", "/sample/grade"), **fields, grade="2").headers["location"]
    after = page(site, following)
    assert ("1 of 2 graded by you" in after, "another" in after, "Take back the grade of pair 1" in after) == (
        True,
    ) * 3
    site.post(address.replace("/sample", "/sample/undo"), **fields)
    assert "0 of 2 graded by you" in page(site, address)
    assert [each.grade for each in decisions(site.ledger)] == [2, None]


def drawn(site: Served, rows: str) -> Path:
    """A sample's file."""
    path = site.folder / "data" / "to-grade" / "first.tsv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("query_id\tpassage_id\tgrade\tquery\ttitle\ttext\n" + rows)
    return path


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "x", "1.5"])
def test_a_pair_of_no_number_is_refused_in_words(site: Served, number: str) -> None:
    drawn(site, "q1\td1#0\t\thow to stop?\ta title\ta text\n")
    named(site, "ana")
    answer = site.http.get("/sample", params={"file": "first.tsv", "of": "docs", "n": number}, headers=HTML)
    assert answer.status_code == 400
    assert "is no whole number" in answer.text
    assert "0 of 1 graded" in page(site, "/sample?file=first.tsv&of=docs&n=")


def test_a_sample_stays_on_the_scale_that_its_address_asks_for(site: Served) -> None:
    drawn(site, "q1\td1#0\t\thow to stop?\ta title\ta text\nq2\td0#0\t\ttext of q2\tt\tanother\n")
    named(site, "ana")
    shown = page(site, "/sample?file=first.tsv&of=docs&scale=1-4")
    action = html.unescape(re.findall(r'action="(/sample/grade[^"]+)"', shown)[0])
    fields = {"of": "docs", "id": "q1", "passage": "d1#0", "scale": "1-4", "known": "0", "number": "1"}
    following = site.post(action, **fields, grade="4").headers["location"]
    shown = page(site, following)
    assert ("another" in shown, 'value="1-4"' in shown, "answers a part of the query" in shown) == (True, True, True)
    action = html.unescape(re.findall(r'action="(/sample/undo[^"]+)"', shown)[0])
    assert "scale=1-4" in site.post(action, **fields).headers["location"]


def test_a_sample_that_is_drawn_again_is_read_again(site: Served) -> None:
    path = drawn(site, "q1\td1#0\t\thow to stop?\ta title\tthe first text\n")
    named(site, "ana")
    assert "the first text" in page(site, "/sample?file=first.tsv&of=docs")
    path.write_text(path.read_text().replace("the first text", "another text"))
    assert "another text" in page(site, "/sample?file=first.tsv&of=docs")


@pytest.mark.parametrize("file", ["../ledger.sqlite", "none.tsv", ""])
def test_no_other_file_is_read_as_a_sample(site: Served, file: str) -> None:
    answer = site.http.get("/sample", params={"file": file, "of": "docs"}, headers=HTML)
    assert answer.status_code == 400
    assert "qrelay judge slice" in answer.text
