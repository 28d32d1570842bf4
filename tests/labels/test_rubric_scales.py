"""Labels on a rubric's own scale: what is relevant travels in its name, through mining, exports and eval."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qrelay.errors import ConfigError, InputError
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, add
from qrelay.training.evaluation.manifests import relevant_from
from qrelay.types import Graded, JudgedSet
from tests.labels.builders import JUDGE, judged_set
from tests.labels.exporting import export_bytes, export_file


def on(scale: str, relevant_from: int, *grades: int) -> JudgedSet:
    """A set of labels of 0 to 4, by a judge whose grades from `relevant_from` on are relevant."""
    sure = [Graded(n, 0, (0.2,) * 5, float(n), 0.9, 0.95 if n >= relevant_from else 0.02) for n in grades]
    return judged_set(
        f"q{relevant_from}", outcomes=sure, judge=replace(JUDGE, scale=scale, model=f"m{relevant_from}")
    )


def positives(ledger: Ledger) -> dict[str, list[str]]:
    lines = [
        json.loads(line)
        for chunk in export_bytes(ledger, "docs", "triples", unmeasured=True)
        for line in chunk.splitlines()
    ]
    return {each["query_id"]: sorted(one["passage_id"] for one in each["positives"]) for each in lines}


def test_two_judges_of_one_range_keep_what_each_calls_relevant(ledger: Ledger) -> None:
    ledger.commit([on("0-4:2", 2, 4, 2, 0), on("0-4:3", 3, 4, 2, 0)])
    assert positives(ledger) == {"q2": ["d0#0", "d1#0"], "q3": ["d0#0"]}


def test_a_scale_that_says_nothing_is_refused_with_the_setting_to_set(ledger: Ledger) -> None:
    ledger.commit([on("0-4", 3, 4, 0)])
    with pytest.raises(InputError, match=r"'0-4'.*set sink\.relevant_grades"):
        positives(ledger)


def test_an_export_says_what_is_relevant_to_whoever_evaluates_with_it(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([on("0-4:2", 2, 4, 2, 1, 0)])
    written = export_file(ledger, "docs", "qrels", tmp_path / "docs.qrels")
    assert written["relevant_grades"] == {"0-4:2": 2}
    assert relevant_from(None, tmp_path / "docs.qrels")[0] == 2


def test_judges_that_differ_in_what_is_relevant_make_eval_ask(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([on("0-4:2", 2, 4, 0), on("0-4:3", 3, 4, 0)])
    export_file(ledger, "docs", "qrels", tmp_path / "docs.qrels")
    with pytest.raises(ConfigError, match="differ in what is relevant: say --relevant-from"):
        relevant_from(None, tmp_path / "docs.qrels")


def test_people_grade_such_labels_on_the_plain_range(ledger: Ledger) -> None:
    ledger.commit([on("0-4:2", 2, 4, 2, 0)])
    with ledger.writing("an override") as connection, pytest.raises(InputError, match="people grade on 0-4"):
        add(connection, "docs", [NewOverride("q2", "d0#0", 0, "0-4:2", "ana", "")], ledger.now_us())
