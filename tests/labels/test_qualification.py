"""The report on the judges: read strictly, refused for training where it says no, and named in the manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import ConfigError, InputError
from qrelay.identity import judge_digest
from qrelay.labels.exports.catalogue import QRELS, TRIPLES
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.qualification import NO_REPORT, Report, read_report
from qrelay.labels.settings import SinkSettings
from qrelay.services.sink.sink import load_sink
from qrelay.types import JudgeIdentity
from tests.labels.builders import FUSED, JUDGE, OTHER_JUDGE, graded, judged_set, judgment, with_labels
from tests.labels.exporting import export_file


def use(verdict: str, reason: str = "measured", numbers: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"verdict": verdict, "reason": reason, "numbers": numbers or {}}


def verdicts(judge: JudgeIdentity | None = JUDGE, **uses: dict[str, Any]) -> dict[str, Any]:
    good = {name: use("qualified") for name in ("positives", "negatives", "gate")}
    return {"judge": judge_digest(judge) if judge else None, **good, **uses}


def report_file(folder: Path, judge: JudgeIdentity | None = JUDGE, **uses: dict[str, Any]) -> Path:
    """A report on one judge, as `qrelay judge qualify` writes it: qualified for what is not named."""
    path = folder / "qualification.json"
    document = {"format": 1, "verdicts": {"small": verdicts(judge, **uses), "gone": verdicts(None)}}
    path.write_text(json.dumps(document))
    return path


def report(folder: Path, judge: JudgeIdentity | None = JUDGE, **uses: dict[str, Any]) -> Report:
    return read_report(report_file(folder, judge, **uses))


def export(ledger: Ledger, folder: Path, kind: str, found: Report, **fields: Any) -> dict[str, Any]:
    return export_file(ledger, "docs", kind, folder / kind, report=found, **fields)


@pytest.mark.parametrize("which", ["positives", "negatives"])
def test_training_data_of_a_judge_that_is_not_qualified_is_refused_with_reason_and_numbers(
    ledger: Ledger, tmp_path: Path, which: str
) -> None:
    ledger.commit([judged_set()])
    bad = {which: use("not_qualified", "precision below 0.8", {"precision": 0.61, "raw": {"n": 120, "high": 1 / 3}})}
    found = report(tmp_path, JUDGE, **bad)
    words = rf"{which}: precision below 0\.8 \(numbers: precision 0\.61, raw \(n 120, high 0\.3333\)\).*--unqualified"
    with pytest.raises(InputError, match=words):
        export(ledger, tmp_path, TRIPLES, found)
    assert not (tmp_path / TRIPLES).exists()


def test_unqualified_overrides_and_the_manifest_says_so(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set()])
    found = report(tmp_path, positives=use("not_qualified"))
    manifest = export(ledger, tmp_path, TRIPLES, found, unqualified=True)
    assert manifest["rows"] == 1
    assert manifest["qualification"]["verdict"] == "not_qualified"
    assert manifest["qualification"]["unqualified"] is True


def test_qrels_are_exported_whatever_the_verdict_and_carry_it(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set()])
    found = report(tmp_path, negatives=use("not_qualified", "too few", {"npv": 0.5}))
    manifest = export(ledger, tmp_path, QRELS, found)
    assert manifest["rows"] == 2
    assert manifest["qualification"]["verdict"] == "not_qualified"
    (judge,) = manifest["qualification"]["judges"].values()
    assert judge["negatives"] == use("not_qualified", "too few", {"npv": 0.5})
    assert judge["positives"]["verdict"] == judge["gate"]["verdict"] == "qualified"


def test_a_judge_good_behind_a_calibration_alone_needs_one_on_each_label(ledger: Ledger, tmp_path: Path) -> None:
    found = report(tmp_path, positives=use("calibrated_only"), negatives=use("calibrated_only"))
    calibrated = [dataclasses.replace(graded(grade), calibration="m" * 64) for grade in (3, 0)]
    ledger.commit([judged_set("q1", outcomes=calibrated)])
    manifest = export(ledger, tmp_path, TRIPLES, found)
    assert manifest["qualification"]["verdict"] == "calibrated_only"
    (judge,) = manifest["qualification"]["judges"].values()
    assert judge["calibrations"] == ["m" * 64]
    assert judge["uncalibrated_labels"] is False
    ledger.commit([judged_set("q2", outcomes=[calibrated[0], graded(0)])])
    with pytest.raises(InputError, match="only with a calibration map, and its label has none for negatives"):
        export(ledger, tmp_path, TRIPLES, found)


def test_only_labels_that_are_trained_on_are_held_against_the_report(ledger: Ledger, tmp_path: Path) -> None:
    record = judged_set(outcomes=[graded(3), graded(0)])
    fused = [judgment("d0#0", graded(3), FUSED), judgment("d1#0", graded(0), FUSED)]
    ledger.commit([with_labels(record, *fused)])
    found = report(tmp_path, positives=use("not_qualified"), negatives=use("not_qualified"))
    manifest = export(ledger, tmp_path, TRIPLES, found, unmeasured=True)
    assert list(manifest["qualification"]["judges"]) == [judge_digest(FUSED)]
    with pytest.raises(InputError, match="not qualified"):
        export(ledger, tmp_path, TRIPLES, found, judge="graded")


@pytest.mark.parametrize("measured", [None, OTHER_JUDGE])
def test_without_a_report_or_a_verdict_labels_are_exported_as_unknown(
    ledger: Ledger, tmp_path: Path, measured: JudgeIdentity | None
) -> None:
    ledger.commit([judged_set()])
    found = report(tmp_path, measured) if measured else NO_REPORT
    for kind in (QRELS, TRIPLES):
        manifest = export(ledger, tmp_path, kind, found, unmeasured=True)
        assert manifest["rows"] > 0
        assert manifest["qualification"]["verdict"] == "unknown"
        (judge,) = manifest["qualification"]["judges"].values()
        assert judge["positives"]["verdict"] == "unknown"


def test_the_manifest_names_judge_uses_numbers_and_the_report(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set()])
    found = report(tmp_path, positives=use("qualified", "precision at least 0.8", {"precision": 0.93}))
    manifest = export(ledger, tmp_path, TRIPLES, found)["qualification"]
    assert manifest["verdict"] == "qualified"
    assert manifest["report"] == hashlib.sha256((tmp_path / "qualification.json").read_bytes()).hexdigest()
    assert manifest["judges"] == {
        judge_digest(JUDGE): {
            "strategy": "graded",
            "verdict": "qualified",
            "let_through_by": [],
            "used_for": ["negatives", "positives"],
            "calibrations": [],
            "uncalibrated_labels": True,
            "stage_scores": False,
            "positives": use("qualified", "precision at least 0.8", {"precision": 0.93}),
            "negatives": use("qualified"),
            "gate": use("qualified"),
        }
    }


def test_the_least_of_the_verdicts_stands_for_the_export(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set("q1"), judged_set("q2", judge=OTHER_JUDGE)])
    assert export(ledger, tmp_path, QRELS, report(tmp_path))["qualification"]["verdict"] == "unknown"


GOOD = {"verdicts": {"small": verdicts()}}
ALTERED: dict[str, Any] = {
    "not JSON": "{",
    "no object": [],
    "no verdicts": {"verdict": {}},
    "unknown word": {"verdicts": {"small": verdicts(positives=use("excellent"))}},
    "no reason": {"verdicts": {"small": verdicts(positives={"verdict": "qualified"})}},
    "a use missing": {"verdicts": {"small": {k: v for k, v in verdicts().items() if k != "negatives"}}},
    "no hash": {"verdicts": {"small": {**verdicts(), "judge": "small"}}},
    "no judge": {"verdicts": {"small": {k: v for k, v in verdicts().items() if k != "judge"}}},
    "an unknown field": {"verdicts": {"small": {**verdicts(), "override": True}}},
    "two verdicts": {"verdicts": {"a": verdicts(), "b": verdicts(positives=use("not_qualified"))}},
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_report_stops_the_start_naming_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(GOOD))
    assert set(read_report(path).verdicts) == {judge_digest(JUDGE)}
    content = ALTERED[name]
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=r"sink\.qualification: .*report\.json"):
        load_sink(SinkSettings(data_dir=tmp_path, qualification=str(path)))


def test_an_absent_report_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_sink(SinkSettings(data_dir=tmp_path, qualification=str(tmp_path / "none.json")))


def test_no_setting_is_no_report() -> None:
    assert read_report("") == NO_REPORT
