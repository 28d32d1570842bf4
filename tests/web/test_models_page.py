"""The pages on models over HTTP: what serves, the gate's word, lineage, promoting and rolling back."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from qrelay.models.registry import BI_ENCODER, DataSource, Registry
from tests.labels.builders import JUDGE, judged_set
from tests.labels.exporting import export_file
from tests.models.registry.models import passed, published, row
from tests.web.reports import HOSTILE
from tests.web.serving import Served, console
from tests.web.test_queries import acting, named, page


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    with console(tmp_path, [judged_set(f"q{n:02}") for n in range(12)]) as served:
        yield served


@pytest.fixture
def registry(site: Served) -> Registry:
    return Registry(site.folder / "data" / "registry")


def events(registry: Registry) -> list[tuple[str, str, str]]:
    return [
        (each.kind, each.version, each.by) for each in registry.history() if each.kind not in ("published", "gated")
    ]


def promote(site: Served, version: str, /, **fields: str) -> httpx.Response:
    """What the form on the version's page sends, with what it shows."""
    number = re.search(r'name="gate" value="(\d*)"', page(site, f"/model?version={version}"))
    known = {"version": version, "gate": number[1] if number else "", "read": "1", "reason": "better"}
    return site.post("/model/promote", **{**known, **fields})


def test_an_empty_registry_says_how_versions_are_made(site: Served) -> None:
    assert "qrelay training run" in page(site, "/models")


def test_a_version_that_passed_is_promoted_by_name_and_rolled_back(site: Served, registry: Registry) -> None:
    first = passed(registry, published(registry, "a"), why="it rose", rows=[row("nDCG@10", "docs", 0.4, 0.5)])
    named(site, "ána ✓")
    shown = page(site, f"/model?version={first}")
    for words in ("it rose", "0.4000", "0.5000", "instead of the configured model", f"Promote {first}"):
        assert words in shown, words
    assert promote(site, first).headers["location"] == f"/model?version={first}"
    assert registry.standing().serving(BI_ENCODER) == first
    second = passed(registry, published(registry, "b", parent=first), first)
    assert promote(site, second).status_code == 303
    listed = page(site, "/models")
    assert f">passed</span> against {first}" in listed
    back = {"slot": BI_ENCODER, "serving": second, "read": "1", "reason": "slower"}
    assert site.post("/models/rollback", **back, to=first).status_code == 303
    assert site.post("/models/rollback", **{**back, "serving": first}, to="").status_code == 303
    assert registry.standing().serving(BI_ENCODER) == ""
    who = "ána ✓"
    assert events(registry) == [("promoted", first, who), ("promoted", second, who), ("rolled_back", first, who),
                                ("rolled_back", "", who)]  # fmt: skip
    assert "slower" in page(site, "/models")


def test_a_ledger_that_is_not_there_stops_no_promotion_and_no_rollback(site: Served, registry: Registry) -> None:
    version = passed(registry, published(registry, "a"))
    named(site, "ana")
    (site.folder / "data" / "ledger.sqlite").rename(site.folder / "away.sqlite")
    gate = str(registry.standing().last)
    assert site.post("/model/promote", version=version, gate=gate, read="1").status_code == 303
    assert site.post("/models/rollback", slot=BI_ENCODER, serving=version, to="", read="1").status_code == 303
    assert [each[0] for each in events(registry)] == ["promoted", "rolled_back"]


def test_what_the_gate_did_not_pass_has_no_button_and_is_refused(site: Served, registry: Registry) -> None:
    named(site, "ana")
    fresh, failed = published(registry, "a"), published(registry, "b")
    registry.record_gate(failed, {"passed": False, "against": "", "why": "it fell"})
    for version, why in ((fresh, "has not been through the gate"), (failed, "it fell")):
        shown = page(site, f"/model?version={version}")
        assert why in shown
        assert "/model/promote" not in shown
        refused = promote(site, version, gate=str(registry.standing().last) if version == failed else "")
        assert refused.status_code == 400
        assert why in html.unescape(refused.text)
    assert events(registry) == []


def test_a_verdict_that_changed_since_the_page_was_read_is_not_acted_on(site: Served, registry: Registry) -> None:
    named(site, "ana")
    version = passed(registry, published(registry, "a"))
    shown = re.search(r'name="gate" value="(\d+)"', page(site, f"/model?version={version}"))
    assert shown
    passed(registry, version)
    assert "has decided about" in promote(site, version, gate=shown[1]).text
    assert promote(site, version).status_code == 303
    stale = site.post("/models/rollback", slot=BI_ENCODER, serving="other", to="", read="1")
    assert "by now" in stale.text
    assert [each[0] for each in events(registry)] == ["promoted"]


@pytest.mark.parametrize("fields", [{"read": ""}, {"csrf": "x"}, {"version": "../x"}, {"version": "nobody-1"}])
def test_nothing_is_promoted_unread_forged_or_unknown(
    site: Served, registry: Registry, fields: dict[str, str]
) -> None:
    named(site, "ana")
    version = passed(registry, published(registry, "a"))
    assert promote(site, version, **fields).status_code in (400, 403, 404)
    assert events(registry) == []


def test_nobody_without_a_name_promotes(site: Served, registry: Registry) -> None:
    version = passed(registry, published(registry, "a"))
    assert "nobody is named" in promote(site, version).text
    assert events(registry) == []


def test_the_lineage_leads_from_a_version_to_each_judgment(site: Served, registry: Registry) -> None:
    manifest = export_file(site.ledger, "docs", "qrels", site.folder / "train.qrels", unmeasured=True)
    source = DataSource("train set", manifest["sha256"], manifest["rows"], manifest)
    parent = published(registry, "a", data=[source])
    version = published(registry, "b", parent=parent)
    site.ledger.commit([judged_set("q99")])
    shown = page(site, f"/model?version={version[:-2]}")
    assert f"/model?version={parent}" in shown
    assert JUDGE.model in shown
    [link] = re.findall(r'href="(/model/judgments[^"]+)"', shown)
    first = page(site, html.unescape(link))
    [following] = re.findall(r'rel="next" href="([^"]+)"', first)
    second = page(site, html.unescape(following))
    found = re.findall(r'<h2><a href="([^"]+)"', first + second)
    assert [html.unescape(each) for each in found] == [f"/query?of=docs&id=q{n:02}" for n in range(12)]
    assert "missing: timeout" in first
    one = page(site, f"{html.unescape(link)}&id=q07")
    assert re.findall(r'<h2><a href="([^"]+)"', one) == ["/query?of=docs&amp;id=q07"]
    page(site, html.unescape(found[0]))


def test_hostile_names_in_a_manifest_are_escaped(site: Served, registry: Registry) -> None:
    source = DataSource(HOSTILE, "c" * 64, 1, {"collection": "docs", "format": HOSTILE, "sha256": "c" * 64})
    version = published(registry, "a", judge=HOSTILE, data=[source], job=HOSTILE, experiment={"name": HOSTILE})
    registry.record_gate(
        version, {"passed": True, "against": "", "why": HOSTILE, "rows": [row(HOSTILE, HOSTILE, 0, 1)]}
    )
    named(site, HOSTILE)
    assert promote(site, version, reason=HOSTILE).status_code == 303
    judgments = f"/model/judgments?version={version}&data={quote(HOSTILE)}"
    for address in ("/models", f"/model?version={version}", judgments):
        shown = page(site, address)
        assert acting(shown) == {("script", "src", "/static/console.js"), ("script", "defer", None)}, address
        assert "&lt;script&gt;" in shown


def test_without_the_ledger_a_lineage_ends_at_the_exports(tmp_path: Path) -> None:
    with console(tmp_path) as site:
        source = DataSource("d", "c" * 64, 3, {"collection": "docs", "format": "qrels"})
        version = published(Registry(tmp_path / "data" / "registry"), "a", data=[source])
        site.ledger.close()
        for file in (tmp_path / "data").glob("ledger.sqlite*"):
            file.unlink()
        shown = page(site, f"/model?version={version}")
    assert "export qrels of docs" in shown
    assert "its judgments" not in shown
    assert "ledger cannot be read" in shown


def test_a_database_that_is_down_is_said_and_the_version_still_shown(tmp_path: Path) -> None:
    with console(tmp_path) as site:
        site.site.sink = site.site.sink.model_copy(update={"ledger": "postgresql://127.0.0.1:9/ledgers"})
        source = DataSource("d", "c" * 64, 3, {"collection": "docs", "format": "qrels"})
        version = published(Registry(tmp_path / "data" / "registry"), "a", data=[source])
        shown = page(site, f"/model?version={version}")
    assert "export qrels of docs" in shown
    assert "ledger cannot be read" in shown
    assert "127.0.0.1" in shown
