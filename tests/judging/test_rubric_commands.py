"""`qrelay judge try --rubric`, `lint` and `compare`, run whole on the double; and reasons on their way to people."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay import wire
from qrelay.cli.judge.group import judge as judge_command
from qrelay.cli.labels.label import label
from qrelay.cli.labels.mine import mine
from qrelay.exitcodes import EXIT_GATE, EXIT_OK, EXIT_USAGE
from qrelay.formats.annotated_pairs import write_annotated_pairs
from qrelay.labels.ledger.ledger import Ledger
from qrelay.types import JudgedSet, with_reason
from tests.judging.qualification.test_commands import graded_pairs
from tests.judging.rubrics import rubric_file
from tests.labels.builders import graded, judged_set

PAIR = ("--query", "copy a folder", "--passage", "copytree copies a folder", "--backend", "fake")


def run(folder: Path, *arguments: str, code: int = EXIT_OK) -> Any:
    env = {"QRELAY_JUDGE__BACKEND": "fake", "QRELAY_DATA_DIR": str(folder)}
    done = CliRunner().invoke(judge_command, list(arguments), env=env)
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_try_judges_with_a_rubric_and_shows_its_scale_and_its_reason(tmp_path: Path) -> None:
    path = rubric_file(tmp_path, answer={"reason": True})
    found = json.loads(run(tmp_path, "try", "--rubric", path, *PAIR, "--json").stdout)
    assert (found["judge"]["strategy"], found["judge"]["scale"]) == ("helpdesk", "0-4:3")
    (judged,) = found["judgments"]
    assert len(judged["outcome"]["probabilities"]) == 5 and judged["reason"]
    assert judged["reason"] in run(tmp_path, "try", "--rubric", path, *PAIR).stdout
    run(tmp_path, "try", "--rubric", path, "--strategy", "binary", *PAIR, code=EXIT_USAGE)


def test_lint_ends_with_a_code_that_a_script_can_trust(tmp_path: Path) -> None:
    assert "0 warnings" in run(tmp_path, "lint", rubric_file(tmp_path)).stdout
    bad = rubric_file(tmp_path, "bad.yaml", template="{query} {text}")
    shown = run(tmp_path, "lint", bad, code=EXIT_GATE).stdout
    assert shown.count(f"{bad}: warning: template") == 3 and "3 warnings" in shown
    found = json.loads(run(tmp_path, "lint", bad, "--json", code=EXIT_GATE).stdout)
    assert len(found["warnings"]) == 3 and found["relevant_from"] == 3
    assert json.loads(run(tmp_path, "lint", "utility", "--json").stdout)["warnings"] == []


def test_compare_says_how_two_judges_differ_by_query(tmp_path: Path) -> None:
    write_annotated_pairs(tmp_path / "slice.tsv", graded_pairs())
    pairs = ("--slice", str(tmp_path / "slice.tsv"), "--relevant-from", "1")
    found = json.loads(run(tmp_path, "compare", rubric_file(tmp_path), "binary", *pairs, "--json").stdout)
    assert (found["a"], found["b"], found["pairs"], found["queries"]) == ("own", "binary", 60, 10)
    by_name = {each["measure"]: each for each in found["measures"]}
    assert set(by_name) == {"auc", "auc_within_query", "kappa"}
    for each in by_name.values():
        assert each["difference"] == pytest.approx(each["a"] - each["b"])
        assert each["ci"][0] <= each["difference"] <= each["ci"][1] and 0 < each["p"] <= 1
    assert len(by_name["auc_within_query"]["by_query"]) == 10 and 0 < by_name["auc_within_query"]["p_fisher"] <= 1
    shown = run(tmp_path, "compare", "graded@fake", "binary", *pairs, code=1)
    assert "there is no rubric 'graded@fake'" in str(shown.exception)
    assert "60 pairs of 10 queries" in run(tmp_path, "compare", "graded-0-3@fake", "binary", *pairs).stdout
    run(tmp_path, "compare", "binary", "binary", *pairs, code=EXIT_USAGE)


def with_reasons() -> JudgedSet:
    record = judged_set("q1", outcomes=[graded(3), graded(0), graded(2, 0.55)])
    judgments = [replace(each, raw_reply=with_reason("2", f"Reason {n}.")) for n, each in enumerate(record.judgments)]
    return replace(record, judgments=tuple(judgments))


def test_a_reason_travels_and_is_shown_where_people_look(ledger: Ledger, ledger_url: str) -> None:
    sent = wire.decode(*wire.encode(with_reasons()))
    assert isinstance(sent, JudgedSet)
    assert [each.reason for each in sent.judgments] == ["Reason 0.", "Reason 1.", "Reason 2."]
    ledger.commit([sent, judged_set("q2")])
    given = ["--ledger", ledger_url, "--collection", "docs"]
    explained = json.loads(CliRunner().invoke(mine, [*given, "--explain", "q1", "--json"]).output)
    said = {row["passage_id"]: row.get("judge_reason") for row in explained["candidates"]}
    assert (said["d0#0"], said["d2#0"]) == ("Reason 0.", "Reason 2.")
    assert "Reason 1." in " ".join(CliRunner().invoke(mine, [*given, "--explain", "q1"]).output.split())
    queue = ["queue", *given, "--by", "uncertainty"]
    pairs = json.loads(CliRunner().invoke(label, [*queue, "--json"]).output)["pairs"]
    shown = {pair["passage_id"]: pair["labels"][0]["reason"] for pair in pairs if pair["query_id"] == "q1"}
    assert shown["d2#0"] == "Reason 2." and "Reason 0." in CliRunner().invoke(label, queue).output
