"""The report: whole, self-contained, escaped, and the same as the dict that it was made from."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import math
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qrelay.errors import InputError
from qrelay.judging.qualification.figures import calibrated, decisions, grading, ranking
from qrelay.judging.report import plain_warnings, write_report
from qrelay.judging.report.diagrams import confusion_png, reliability_png
from qrelay.judging.report.read import read_measured
from qrelay.stats.agreement import auc, kappa
from qrelay.stats.calibration import Isotonic

QUERIES, ROWS = 40, 400


def columns(seed: int = 0) -> dict[str, Any]:
    """A judge that knows something: grades 0 to 3, a raw score, and what a cross-validated map makes of it."""
    generator = np.random.default_rng(seed)
    grades = generator.choice(4, ROWS, p=[0.5, 0.2, 0.2, 0.1])
    queries = np.array([f"q{n}" for n in np.arange(ROWS) % QUERIES])
    score = grades + generator.normal(size=ROWS)
    relevant = grades >= 2
    p = Isotonic.fit(score, relevant).predict(score)
    return {
        "labels_binary": relevant,
        "grades": grades,
        "raw_score": score,
        "p_before": np.clip(score / 3, 0, 1),
        "p_after": p,
        "predicted_binary": p >= 0.5,
        "predicted_grade": np.clip(np.rint(score), 0, 3).astype(int),
        "groups": queries,
    }


def figures(seed: int = 0) -> dict[str, Any]:
    given = columns(seed)
    relevant, queries = given["labels_binary"], given["groups"]
    return {
        **ranking(relevant, given["raw_score"], queries),
        **decisions(relevant, given["predicted_binary"], queries),
        **grading(given["grades"], given["predicted_grade"]),
        **calibrated(relevant, given["p_before"], given["p_after"]),
        "missing": 0,
    }


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return figures()


@pytest.fixture
def report(measured: dict[str, Any]) -> dict[str, Any]:
    judge = {**copy.deepcopy(measured), "tokens": 123456, "inputs": ["judge-a"], "uses_stage_scores": False}
    bare = {"auc": 0.7, "auc_ci": [0.6, 0.8], "ece_before": None, "ece_after": None, "kappa_binary": None}
    return {
        "title": "Judges beside people",
        "data": {"n": ROWS, "queries": QUERIES, "relevant": 120, "sha256": "ab" * 32, "relevant_from": 2},
        "systems": {"judge-a": judge, "bm25": {**bare, "inputs": ["bm25"], "uses_stage_scores": True}},
        "comparisons": [{"a": "judge-a", "b": "bm25", "difference": 0.1, "ci": [0.05, 0.15], "p": 0.0005}],
        "verdicts": {
            "judge-a": {
                "positives": {"verdict": "qualified", "reason": "kappa holds", "numbers": {"kappa_raw": 0.51}},
                "negatives": {"verdict": "calibrated_only", "reason": "with a map", "numbers": {"raw": {"n": 7}}},
                "gate": {"verdict": "not_qualified", "reason": "AUC too low", "numbers": {}},
            }
        },
        "notes": ["measured with care"],
    }


class Page(HTMLParser):
    """Tags, attributes and text of a page, and whether every tag is closed."""

    VOID = frozenset({"meta", "br", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page_of(report: dict[str, Any], folder: Path, focus: str = "judge-a") -> Page:
    write_report(report, folder, focus=focus)
    return Page((folder / "report.html").read_text("utf8"))


def png_size(data: bytes) -> tuple[int, int]:
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", data[16:24])


# --- one system's figures ---------------------------------------------------------------------------------------


def test_a_measured_system_has_every_figure_of_a_report(measured: dict[str, Any]) -> None:
    given = columns()
    assert measured["auc"] == pytest.approx(auc(given["labels_binary"], given["raw_score"]))
    assert measured["auc_ci"][0] < measured["auc"] < measured["auc_ci"][1]
    assert 0.5 < measured["auc_within_query"] < 1
    assert 0 < measured["auc_within_query_n"] <= QUERIES
    assert measured["kappa_binary"] == pytest.approx(kappa(given["labels_binary"], given["predicted_binary"]))
    assert measured["kappa_binary_ci"][0] < measured["kappa_binary"] < measured["kappa_binary_ci"][1]
    assert measured["kappa_four_point"] < measured["kappa_graded"]
    assert 0 < measured["alpha"] < 1
    assert measured["ece_after"] < measured["ece_before"]
    assert measured["brier_after"] < measured["brier_before"]
    assert measured["confusion"]["grades"] == [0, 1, 2, 3]
    assert sum(map(sum, measured["confusion"]["counts"])) == ROWS
    assert sum(n for *_, n in measured["reliability"]["after"]) == ROWS
    json.dumps(measured, allow_nan=False)


def test_without_own_probabilities_before_is_none() -> None:
    given = columns()
    found = calibrated(given["labels_binary"], None, given["p_after"])
    assert (found["ece_before"], found["brier_before"], found["reliability"]["before"]) == (None, None, [])


# --- files ------------------------------------------------------------------------------------------------------


def test_four_files_are_written_and_nothing_else(report: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    paths = write_report(report, folder, focus="judge-a")
    assert sorted(path.name for path in paths) == sorted(path.name for path in folder.iterdir())
    assert {path.name for path in paths} == {"report.html", "report.json", "reliability.png", "confusion.png"}


def test_the_json_is_the_report_with_null_for_nan(report: dict[str, Any], tmp_path: Path) -> None:
    report["systems"]["bm25"]["auc_ci"] = (math.nan, math.inf)
    write_report(report, tmp_path, focus="judge-a")
    found = json.loads((tmp_path / "report.json").read_text("utf8"))
    report["systems"]["bm25"]["auc_ci"] = [None, None]
    assert found == json.loads(json.dumps(report))
    again = read_measured(tmp_path / "report.json")
    assert {name: system.auc for name, system in again.systems.items()} == {
        name: system.get("auc") for name, system in report["systems"].items()
    }
    assert again.queries == report["data"]["queries"]
    assert again.verdicts.keys() == report["verdicts"].keys()


def test_the_same_report_gives_the_same_bytes(report: dict[str, Any], tmp_path: Path) -> None:
    one, other = (write_report(report, tmp_path / name, focus="judge-a") for name in ("a", "b"))
    for first, second in zip(one, other, strict=True):
        assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest(), first


def test_an_unknown_focus_is_refused_and_leaves_nothing(report: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no system 'x' to draw: there are judge-a, bm25"):
        write_report(report, tmp_path / "r", focus="x")
    assert not (tmp_path / "r").exists()


# --- the page ---------------------------------------------------------------------------------------------------


def test_the_page_needs_neither_network_nor_script(report: dict[str, Any], tmp_path: Path) -> None:
    page = page_of(report, tmp_path)
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    drawn = [base64.b64decode(str(source).removeprefix("data:image/png;base64,")) for source in sources]
    assert drawn == [(tmp_path / name).read_bytes() for name in ("reliability.png", "confusion.png")]
    assert not re.search(r"https?://|url\(", (tmp_path / "report.html").read_text("utf8"))


def test_the_page_shows_figures_verdicts_inputs_hash_and_notes(report: dict[str, Any], tmp_path: Path) -> None:
    text, system = page_of(report, tmp_path).text, report["systems"]["judge-a"]
    for figure in ("auc", "auc_within_query", "kappa_binary", "kappa_graded", "kappa_four_point", "alpha"):
        assert f"{system[figure]:.3f}" in text, figure
    for figure in ("ece", "brier"):
        assert f"{system[f'{figure}_before']:.3f} → {system[f'{figure}_after']:.3f}" in text
    for words in ("calibrated only", "not qualified", "kappa holds", "kappa_raw: 0.510", "raw: n 7", "ab" * 32):
        assert words in text, words
    for words in ("123,456", "judge-a against bm25 +0.100 0.050 to 0.150 < 0.001", "measured with care"):
        assert words in text, words
    assert "nan" not in text.lower().split()
    assert "None" not in text


def test_hostile_names_are_shown_not_run(report: dict[str, Any], tmp_path: Path) -> None:
    name = "<script>alert(1)</script>\" onload='x' {{ 7*7 }} $\\frac$"
    report["systems"] = {name: report["systems"]["judge-a"]}
    report["verdicts"] = {name: {"gate": {"verdict": "<b>", "reason": name, "numbers": {name: 0.5}}}}
    report |= {"title": name, "notes": [name], "comparisons": []}
    page = page_of(report, tmp_path, focus=name)
    assert name in page.text
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b"})
    assert all("onload" not in attributes for _, attributes in page.tags)


def test_a_bare_report_is_still_a_page(tmp_path: Path) -> None:
    page = page_of({"systems": {"x": {}}}, tmp_path, focus="x")
    assert page.open == []
    assert "no label" not in page.text
    assert png_size((tmp_path / "confusion.png").read_bytes())[0] > 300


# --- warnings ---------------------------------------------------------------------------------------------------


def test_a_sound_report_warns_of_nothing(report: dict[str, Any]) -> None:
    assert plain_warnings(report, "judge-a") == []


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("data", {"queries": 12}, "Only 12 queries"),
        ("data", {"relevant": 9}, "9 are relevant"),
        ("data", {"relevant": ROWS - 9}, f"{ROWS - 9} are relevant"),
        ("system", {"uses_stage_scores": True}, "Do not use it in a gate"),
        ("system", {"missing": 4}, "no label for 4 pairs"),
        ("system", {"auc_ci": [math.nan, math.nan]}, "has no interval"),
        ("system", {"auc_ci": [0.5, 0.9]}, "known only roughly"),
        ("system", {"ece_after": None}, "do not read its scores as probabilities"),
        ("system", {"ece_before": 0.4, "ece_after": 0.2}, "off by 0.20"),
        ("system", {"ece_before": 0.01, "ece_after": 0.05}, "worse (0.010 before, 0.050 after)"),
    ],
)
def test_what_weakens_the_figures_is_said_on_the_page(
    report: dict[str, Any], tmp_path: Path, part: str, change: dict[str, Any], words: str
) -> None:
    (report["data"] if part == "data" else report["systems"]["judge-a"]).update(change)
    (warning,) = plain_warnings(report, "judge-a")
    assert words in warning
    assert warning in page_of(report, tmp_path).text


# --- diagrams ---------------------------------------------------------------------------------------------------


def test_diagrams_show_what_was_measured(measured: dict[str, Any]) -> None:
    """Other figures draw other pictures; nothing measured draws one that says so."""
    for draw, part in ((reliability_png, "reliability"), (confusion_png, "confusion")):
        drawn, empty = draw("judge", measured), draw("judge", {})
        assert min(png_size(drawn)) > 400
        assert len({drawn, empty, draw("judge", figures(seed=1)), draw("other", measured)}) == 4
        assert draw("judge", {part: measured[part]}) == drawn
