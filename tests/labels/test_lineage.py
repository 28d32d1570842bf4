"""From a version down to the judgments that made it, and a judge's retraction in registry and ledger at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.models.group import models
from qrelay.errors import ConfigError, InputError
from qrelay.identity import judge_digest
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, add
from qrelay.labels.lineage.covered import covered
from qrelay.labels.lineage.trace import judgments
from qrelay.models.registry import DataSource, Registry
from tests.labels.builders import JUDGE, OTHER_JUDGE, graded, judged_set, judgment, relabelled
from tests.labels.exporting import export_file
from tests.models.registry.models import published

FIRST, OTHER = judge_digest(JUDGE), judge_digest(OTHER_JUDGE)


def run(home: Path, *arguments: str, code: int = 0) -> Any:
    """What a command of `qrelay models` prints as JSON."""
    clean = {name: None for name in os.environ if name.startswith("QRELAY_")}
    result = CliRunner().invoke(
        models, [*arguments, "--data-dir", str(home), "--json"], catch_exceptions=False, env=clean
    )
    assert result.exit_code == code, result.output
    return json.loads(result.output) if code == 0 else result.output


def exported(ledger: Ledger, home: Path, name: str, kind: str = "qrels", **choices: Any) -> DataSource:
    """An export, as a version's manifest names what was trained on."""
    manifest = export_file(ledger, "docs", kind, home / name, unmeasured=True, **choices)
    return DataSource(name, manifest["sha256"], manifest["rows"], manifest)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    opened = Ledger.open(tmp_path / "ledger.sqlite")
    opened.commit([judged_set("q1"), judged_set("q2", outcomes=[graded(0), graded(2)])])
    yield opened
    opened.close()


@pytest.fixture
def version(tmp_path: Path, ledger: Ledger) -> str:
    """Of an export of two queries; afterwards one is judged again and a third comes."""
    source = exported(ledger, tmp_path, "train.qrels")
    made = published(Registry(tmp_path / "registry"), "a", judge=FIRST, data=[source])
    ledger.rejudge([relabelled(judged_set("q1"), judgment("d0#0", graded(1), OTHER_JUDGE))])
    ledger.commit([judged_set("q3")])
    return made


def test_lineage_goes_from_the_version_to_the_judgments_of_its_time(tmp_path: Path, version: str) -> None:
    found = run(tmp_path, "lineage", version)
    (step,) = found["chain"]
    (data,) = step["data"]
    assert (step["base"], step["judges"][0]["hash"], data["export"]["collection"]) == ("base@1", FIRST, "docs")
    assert (data["covered"]["from"], data["covered"]["to"], data["covered"]["judges"]) == (0, 1, [FIRST])
    assert (data["counts"]["queries"], data["counts"]["judgments"]) == (2, 5)
    assert data["counts"]["judges"] == {FIRST: {"measurements": 5, "graded": 4, "missing": 1, "counted": 5}}


def test_lineage_lists_a_querys_pairs_with_label_judge_time_and_key(tmp_path: Path, version: str) -> None:
    rows = run(tmp_path, "lineage", version, "--query-id", "q1")["judgments"]
    assert [(row["passage_id"], row["grade"], row["missing"]) for row in rows] == [
        ("d0#0", 3, None),
        ("d1#0", 0, None),
        ("d2#0", None, "timeout"),
    ]
    assert {row["judge"] for row in rows} == {FIRST}
    assert rows[0]["judgment_key"] == "key of d0#0 by judge-1.5b r1 graded"
    assert rows[0]["judged_at"].startswith("2026-01-02T03:04:05")


def test_every_judgment_is_streamed_to_a_file(tmp_path: Path, version: str) -> None:
    out = tmp_path / "judgments.jsonl"
    assert run(tmp_path, "lineage", version, "--judgments", str(out))["written"] == 5
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["query_id"], row["generation"], row["change"]) for row in rows] == [("q1", 0, 1)] * 3 + [
        ("q2", 0, 1)
    ] * 2
    assert {row["version"] for row in rows} == {version}


def test_an_increment_names_its_own_changes_and_a_child_its_parents_data(
    tmp_path: Path, ledger: Ledger, version: str
) -> None:
    source = exported(ledger, tmp_path, "more.qrels", since=1)
    child = published(Registry(tmp_path / "registry"), "b", parent=version, judge=OTHER, data=[source])
    one, two = run(tmp_path, "lineage", child)["chain"]
    assert (one["version"], two["version"]) == (child, version)
    covered_ = one["data"][0]["covered"]
    assert (covered_["from"], covered_["to"]) == (1, 3)
    rows = run(tmp_path, "lineage", child, "--query-id", "q1")["judgments"]
    of_child = [(row["passage_id"], row["judge"], row["counted"]) for row in rows if row["version"] == child]
    assert of_child[:2] == [("d0#0", OTHER, True), ("d0#0", FIRST, False)]
    assert {row["query_id"] for row in run_file(tmp_path, child) if row["version"] == child} == {"q1", "q3"}


def run_file(home: Path, version: str) -> list[dict[str, Any]]:
    run(home, "lineage", version, "--judgments", str(home / "out.jsonl"))
    return [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()]


def test_peoples_decisions_are_part_of_the_lineage_of_what_was_exported_with_them(
    tmp_path: Path, ledger: Ledger
) -> None:
    with ledger.writing("test") as connection:
        add(connection, "docs", [NewOverride("q1", "d0#0", 1, "0-3", "ana")], ledger.now_us())
    source = exported(ledger, tmp_path, "train.qrels", overrides=True)
    with ledger.snapshot() as snapshot:
        wanted = covered(snapshot.connection, source.manifest, source.sha256)
        rows = [row for row in judgments(snapshot, wanted, "q1") if row["passage_id"] == "d0#0"]
    assert [(row["grade"], row["author"], row["counted"]) for row in rows] == [(1, "ana", True), (3, "", False)]


def test_without_a_ledger_lineage_ends_at_the_judges_and_says_so(
    tmp_path: Path, version: str, ledger: Ledger
) -> None:
    ledger.close()
    (tmp_path / "ledger.sqlite").unlink()
    found = run(tmp_path, "lineage", version)
    assert found["ledger"] is None and "counts" not in found["chain"][0]["data"][0]
    with pytest.raises(ConfigError, match="--ledger"):
        run(tmp_path, "lineage", version, "--query-id", "q1")


def test_a_file_that_the_ledger_never_exported_is_traced_to_all_that_it_holds(
    tmp_path: Path, ledger: Ledger, version: str
) -> None:
    source = DataSource("other", "0" * 64, 1, {"collection": "docs"})
    unknown = published(Registry(tmp_path / "registry"), "u", data=[source])
    (data,) = run(tmp_path, "lineage", unknown)["chain"][0]["data"]
    assert (data["covered"]["to"], data["counts"]["queries"]) == (None, 3)


def test_retracting_a_judge_empties_exports_and_taints_versions_until_it_is_restored(
    tmp_path: Path, ledger: Ledger, version: str
) -> None:
    found = run(tmp_path, "retract-judge", FIRST[:10], "--reason", "its prompt had a fault", "--by", "ana")
    assert (found["judge"], found["touched"]["labels"], found["touched"]["queries"]) == (FIRST, 8, 3)
    assert found["tainted"] == {version: [FIRST]}
    assert exported(ledger, tmp_path, "after.qrels").rows == 1  # the other judge's one label
    told = run(tmp_path, "tainted")
    assert [each["version"] for each in told["versions"]] == [version]
    assert told["retracted"][FIRST]["detail"]["reason"] == "its prompt had a fault"
    again = run(tmp_path, "retract-judge", FIRST, "--reason", "again", "--by", "ana")
    assert (again["changed"], again["touched"]["changed"]) == (False, False)
    restored = run(tmp_path, "restore-judge", FIRST, "--by", "ana")
    assert (restored["tainted"], restored["changed"], restored["touched"]["changed"]) == ({}, True, True)
    assert exported(ledger, tmp_path, "restored.qrels").rows > 1


def test_lineage_of_before_a_retraction_still_names_the_judgments(
    tmp_path: Path, ledger: Ledger, version: str
) -> None:
    before = run(tmp_path, "lineage", version)["chain"][0]["data"][0]["counts"]
    run(tmp_path, "retract-judge", FIRST, "--reason", "x", "--by", "ana")
    found = run(tmp_path, "lineage", version)
    assert found["tainted_by"] == [FIRST]
    assert found["chain"][0]["data"][0]["counts"] == before


def test_without_a_ledger_a_judge_is_retracted_in_the_registry_and_that_is_said(
    tmp_path: Path, ledger: Ledger, version: str
) -> None:
    ledger.close()
    (tmp_path / "ledger.sqlite").unlink()
    found = run(tmp_path, "retract-judge", FIRST[:8], "--reason", "x", "--by", "ana")
    assert (found["ledger"], found["touched"], found["tainted"]) == (None, None, {version: [FIRST]})
    arguments = ["restore-judge", FIRST, "--by", "ana", "--data-dir", str(tmp_path)]
    out = CliRunner().invoke(models, arguments, catch_exceptions=False).output
    assert "no ledger was found" in out
    with pytest.raises(InputError, match="names 0 judges of the registry"):
        run(tmp_path, "retract-judge", "zz", "--reason", "x", "--by", "ana")
