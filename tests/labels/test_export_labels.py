"""The soft labels of a query: every graded passage, with what was measured and what mining makes of it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from qrelay.errors import InputError
from qrelay.labels.exports.export import Export
from qrelay.labels.exports.request import Request
from qrelay.labels.ledger import overrides
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride
from qrelay.labels.mining.rules import MiningRules
from qrelay.labels.qualification import JudgeVerdict, Report, UseVerdict
from qrelay.types import JudgeIdentity, Missing, Utility
from tests.labels.builders import FUSED, JUDGE, graded, judged_set, judgment, with_labels
from tests.labels.exporting import export_bytes

LIKELIHOOD = JudgeIdentity("judge-1.5b", "r1", "q4", "n" * 64, "answer_nll", "0-3", "")
OUTCOMES = (graded(3), graded(0), Missing("timeout"), graded(1))


def labels(ledger: Ledger, **fields: Any) -> list[dict[str, Any]]:
    fields = {"rules": MiningRules(guard_ratio=1.0), **fields}
    return [
        json.loads(line)
        for line in b"".join(export_bytes(ledger, "docs", "labels", **{"unmeasured": True, **fields})).splitlines()
    ]


def test_every_graded_passage_is_there_and_what_is_missing_is_not(sqlite_ledger: Ledger) -> None:
    sqlite_ledger.commit([judged_set("q1", outcomes=OUTCOMES)])
    (row,) = labels(sqlite_ledger)
    assert (row["query_id"], row["query"]) == ("q1", "text of q1")
    assert [each["passage_id"] for each in row["passages"]] == ["d0#0", "d1#0", "d3#0"]
    assert row["passages"][0] == {
        "passage_id": "d0#0", "doc_id": "d0", "title": "title of d0", "text": "text 0 of d0",
        "grade": 3, "p_relevant": 0.95, "expected_relevance": 1.0, "answer_nll": None, "human": False,
        "role": "positive", "hard": False, "reason": "relevant", "scores": {"bm25": 20.0, "dense": 0.9},
    }  # fmt: skip
    roles = {each["passage_id"]: (each["role"], each["hard"], each["reason"]) for each in row["passages"]}
    assert roles["d1#0"] == ("negative", True, "top_rank")


def test_a_passage_that_a_guard_keeps_out_has_no_role_and_says_why(sqlite_ledger: Ledger) -> None:
    sqlite_ledger.commit([judged_set("q1", outcomes=(graded(3), graded(1, p_relevant=0.45), graded(0)))])
    passages = {each["passage_id"]: each for each in labels(sqlite_ledger)[0]["passages"]}
    assert (passages["d1#0"]["role"], passages["d1#0"]["hard"]) == ("", False)
    assert passages["d1#0"]["reason"] == "uncertain"


def test_expected_relevance_is_the_share_of_the_scale(sqlite_ledger: Ledger) -> None:
    four = dataclasses.replace(JUDGE, scale="1-4")
    outcome = dataclasses.replace(graded(3, min_grade=1), expected_relevance=2.5)
    sqlite_ledger.commit([judged_set("q1", outcomes=(outcome,), judge=four)])
    assert labels(sqlite_ledger)[0]["passages"][0]["expected_relevance"] == 0.5


def test_the_likelihood_judges_measurement_stands_beside_the_fused_label(sqlite_ledger: Ledger) -> None:
    measured = dataclasses.replace(graded(2), utility=Utility(nll=1.25, nll_without_passage=2.0))
    half = dataclasses.replace(graded(2), utility=Utility(nll=1.25))
    record = with_labels(
        judged_set("q1", outcomes=(graded(3), graded(0)), judge=FUSED),
        judgment("d0#0", measured, LIKELIHOOD),
        judgment("d1#0", half, LIKELIHOOD),
    )
    sqlite_ledger.commit([record])
    first, second = labels(sqlite_ledger)[0]["passages"]
    assert (first["grade"], first["answer_nll"]) == (3, -0.75)
    assert (second["grade"], second["answer_nll"]) == (0, None)
    alone = labels(sqlite_ledger, judge="fused")[0]["passages"]
    assert alone[0]["answer_nll"] is None


def test_a_persons_label_says_so_and_its_expectation_is_its_grade(sqlite_ledger: Ledger) -> None:
    sqlite_ledger.commit([judged_set("q1", outcomes=(graded(3), graded(0)))])
    with sqlite_ledger.writing("record overrides") as connection:
        overrides.add(connection, "docs", [NewOverride("q1", "d1#0", 2, "0-3", "ann")], sqlite_ledger.now_us())
    first, second = labels(sqlite_ledger, overrides=True)[0]["passages"]
    assert (first["human"], second["human"]) == (False, True)
    assert second["expected_relevance"] == pytest.approx(2 / 3, abs=1e-6)
    assert second["role"] == "positive"
    assert not any(each["human"] for each in labels(sqlite_ledger)[0]["passages"])


def test_labels_of_a_judge_that_is_not_qualified_are_refused(sqlite_ledger: Ledger) -> None:
    from qrelay.identity import judge_digest

    sqlite_ledger.commit([judged_set("q1")])
    bad = UseVerdict(verdict="not_qualified", reason="kappa 0.1")
    hashed = judge_digest(JUDGE)
    report = Report({hashed: JudgeVerdict(judge=hashed, positives=bad, negatives=bad, gate=bad)})
    with pytest.raises(InputError, match="not qualified"):
        labels(sqlite_ledger, report=report)


def test_the_manifest_has_the_rules_that_gave_the_roles_and_where_narrows_the_passages(sqlite_ledger: Ledger) -> None:
    sqlite_ledger.commit([judged_set("q1", outcomes=OUTCOMES), judged_set("q2", outcomes=(graded(0),))])
    export = Export(sqlite_ledger, Request("docs", "labels", unmeasured=True))
    assert b"".join(export.chunks()).count(b"\n") == 2
    manifest = export.manifest()
    assert manifest["rules"]["negative_threshold"] == 0.4 and "round" not in manifest["rules"]
    assert (manifest["rows"], manifest["queries"]) == (2, 2)
    (row,) = labels(sqlite_ledger, where="grade>=1")
    assert [each["grade"] for each in row["passages"]] == [3, 1]
